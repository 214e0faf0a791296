"""What a pass does and needs, counted op by op: on fake tensors, which compute nothing, or on real ones."""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import comb
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from effbench.cell import Cell
from effbench.meters import counts
from effbench.plugin import Mechanism
from effbench.subject import build_subject

#: Where a cell is too long to be predicted, it is at lengths this far apart, or twice as far, and so on: no
#: less than a tile. And how much a peak's irregularity may make of it at the length in question.
_STEP, _DOUBT = 1024, 0.01


@cache
def fake_mode() -> FakeTensorMode:
    """The mode of this process; it takes longer to make than many operators to count."""
    return FakeTensorMode()


def on_fake_tensors(mechanism: Mechanism, cell: Cell, *, seconds: float) -> dict[str, Any]:
    """``live_bytes``, and what ``counts.count`` gives; without the latter where it fails or is too slow.

    Where half of the ``seconds`` is too little, ``peak_bytes`` is extrapolated from shorter lengths if it
    grows regularly over them; ``predicted_method`` says from which.
    """
    mode = fake_mode()  # the first one of a process may import for seconds
    with mode:
        with _alarm(seconds / 2) as late:
            found = _counted(mechanism, cell, empty=True)
        if late:
            with suppress(Exception), _alarm(seconds / 2):  # late again, or no pass at such a length
                found |= by_length(lambda seq: _peak(mechanism, replace(cell, seq=seq)), cell.seq)
    return found


def by_length(peak: Callable[[int], int], seq: int) -> dict[str, Any]:
    """``peak_bytes`` at a length, continued from four equally spaced shorter ones; empty where it cannot be.

    Three on a line, or four on a parabola: one more than it takes, which tells whether they are. Seen exact
    for tiles of one size; short of the truth by up to 13 % where tiles grow with the length.
    """
    step = _STEP
    while 4 * step < seq and seq % step == 0:
        peaks = [peak(step * k) for k in (1, 2, 3, 4)]
        for known in (peaks[1:], peaks):
            *regular, rest = _differences(known)
            ahead = seq // step - 5 + len(known)  # steps from the first known one on
            continued = sum(comb(ahead, order) * value for order, value in enumerate(regular))
            if abs(comb(ahead, len(regular)) * rest) <= _DOUBT * continued:
                lengths = ", ".join(str(step * k) for k in range(5 - len(known), 5))
                return {"peak_bytes": continued, "predicted_method": f"extrapolated from n = {lengths}"}
        step *= 2
    return {}


def _differences(values: list[int]) -> list[int]:
    """The first value, the first difference, and so on: Newton's coefficients of a polynomial."""
    leading = []
    while values:
        leading.append(values[0])
        values = [after - before for before, after in pairwise(values)]
    return leading


def _peak(mechanism: Mechanism, cell: Cell) -> int:
    subject = build_subject(mechanism, cell, seed=0, ring=1, empty=True)
    return int(counts.count(lambda: subject.call(0))["peak_bytes"])


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
def _alarm(seconds: float) -> Iterator[list[float]]:
    """Raises TimeoutError in the block after so long, once, and says so in the list that it gives."""
    late: list[float] = []

    def too_long(*_: Any) -> None:
        late.append(seconds)
        raise TimeoutError(f"counting took more than {seconds:g} s of a processor")

    # Of the processor's time, so that what can be counted does not depend on the load.
    signal.signal(signal.SIGPROF, too_long)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield late
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
