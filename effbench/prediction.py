"""What a pass does and needs, counted op by op: on fake tensors, which compute nothing, or on real ones."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from effbench.cell import Cell
from effbench.meters import counts
from effbench.plugin import Mechanism
from effbench.subject import build_subject


@cache
def fake_mode() -> FakeTensorMode:
    """The mode of this process; it takes longer to make than many operators to count."""
    return FakeTensorMode()


def on_fake_tensors(mechanism: Mechanism, cell: Cell, *, seconds: float) -> dict[str, Any]:
    """``live_bytes``, and what ``counts.count`` gives; without the latter where it fails or is too slow."""
    mode = fake_mode()  # the first one of a process may import for seconds
    with _alarm(seconds), mode:
        return _counted(mechanism, cell, empty=True)


def on_real_tensors(mechanism: Mechanism, cell: Cell) -> dict[str, Any]:
    """The same by a pass that is really made."""
    return _counted(mechanism, cell, empty=False)


def _counted(mechanism: Mechanism, cell: Cell, *, empty: bool) -> dict[str, Any]:
    subject = build_subject(mechanism, cell, seed=0, ring=1, empty=empty)
    live = sum(t.numel() * t.element_size() for t in subject.live)
    try:
        return {"live_bytes": live, **counts.count(lambda: subject.call(0))}
    except Exception as error:
        traceback.print_exc()  # what has to be in place is known all the same
        reason = str(error).strip() or type(error).__name__
        return {"live_bytes": live, "uncounted": reason.splitlines()[0]}


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def too_long(*_: Any) -> None:
        raise TimeoutError(f"counting took more than {seconds:g} s of a processor")

    # Of the processor's time, so that what can be counted does not depend on the load.
    signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
