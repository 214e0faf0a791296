"""What the cores give beside a timed block: how long fixed works take on them, and who waited for one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from effbench.calm import Pace, is_calm

_GRAIN = 32768  # elements that torch gives a thread at least; in place they stay in its own cache
_GOOD = 1.05  # times the best: such a reading needs no other
_LONG_S = 2e-3  # beside other processes a single reading may take as long as they please
_READINGS = 24  # half a millisecond: so long a clock takes to rise again after passes that waited for memory


class Beside(NamedTuple):
    """Of one block: ``pace_s`` as slow as before or after it, and the share of it that threads waited."""

    pace_s: Pace | None
    waited: float | None


class Cores:
    """Watches blocks that compute with torch's threads, from outside of what is timed.

    One fixed work is arithmetic in the cache, since a neighbour on the same physical core takes just that;
    what only waits for results would not feel it. On several threads the other one is over before it has well
    begun: it takes as long as threads wait for each other, which small operators do all the time.
    """

    def __init__(self, best_s: Pace | None = None) -> None:
        """``best_s``: the works at their best, as far as known."""
        self._threads = torch.get_num_threads()
        self._works = [torch.zeros(self._threads * _GRAIN).sigmoid_]
        if self._threads > 1:
            self._works.append(torch.zeros(self._threads * _GRAIN, dtype=torch.bool).logical_not_)
        self.best_s = best_s
        self._stats: list[int] | None = None  # open files, one a thread
        self._before = Beside(None, None)

    def slow(self) -> bool:
        """Whether they calculate slower just now than they do at best, wherever they are."""
        pace = self.pace()
        return not is_calm(pace and pace[:1], None, self.best_s)

    def begin(self) -> None:
        """Look at the cores just before a block."""
        if self._stats is None:
            self._stats = _open_stats()
        self._before = Beside(self.pace(), self._waiting())

    def end(self, seconds: float) -> Beside:
        """Look at them just after a block of so many seconds."""
        now, before = self._waiting(), self._before.waited
        waited = None if now is None or before is None else (now - before) / max(seconds, 1e-9)
        paces = [pace for pace in (self._before.pace_s, self.pace()) if pace is not None]
        return Beside(tuple(map(max, zip(*paces, strict=True))) or None, waited)

    def pace(self) -> Pace | None:
        """Seconds that each fixed work takes: the fastest of some readings, or the first good one.

        None where somebody changed torch's number of threads, since the works would be others.
        """
        if torch.get_num_threads() != self._threads:
            return None
        return tuple(map(_fastest, self._works, self.best_s or [0.0] * len(self._works)))

    def _waiting(self) -> float | None:
        """Seconds that the threads of this process have been ready to run without a core so far.

        None where the system does not say, or a thread has ended, as when what is timed changes their number.
        """
        try:
            waits = [int(os.pread(file, 80, 0).split()[1]) for file in self._stats or ()]
        except OSError:
            return None
        return sum(waits) / 1e9 if waits else None


def _fastest(work: Callable[[], object], best_s: float) -> float:
    """Seconds of a fixed work."""
    least, begun = float("inf"), time.perf_counter()
    work()  # comes back into the cache
    for _ in range(_READINGS):
        start = time.perf_counter()
        work()
        now = time.perf_counter()
        least = min(least, now - start)
        if least <= _GOOD * best_s or now - begun > _LONG_S:
            break
    return least


def _open_stats(folder: Path = Path("/proc/self/task")) -> list[int]:
    """The scheduler's account of each thread; none where the system keeps none.

    They stay open to the end of the process, which is near: opening one takes longer than reading it.
    """
    try:
        return [os.open(thread / "schedstat", os.O_RDONLY) for thread in folder.iterdir()]
    except OSError:
        return []
