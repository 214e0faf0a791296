"""Retired user instructions of one pass on one thread, which a noisy machine changes by one in a million.

They see neither page faults nor cache misses, so they stand beside the time and do not replace it. Take them
in a process of ``environment.server_environment("instructions", ...)`` started in ``perf.fixed_layout()``.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median_low
from typing import Any

from effbench.meters.time import no_collection
from effbench.perf import Counter

WARM, PASSES = 3, 9  # passes before counting, and passes counted: Python and the libraries settle first
ENOUGH = 300_000_000  # instructions of all counted passes together; a pass of more is counted once, after one


def measure(
    call: Callable[[int], Any],
    *,
    counter: Counter,
    warm: Callable[[], Any] | None = None,
    tick: Callable[[], Any] = lambda: None,
) -> int:
    """The median count of some passes ``call(i)``, without what counting itself takes.

    How many passes depends on what the first one counts and on no clock, so every run makes as many.
    ``warm``: a cheaper pass, before one so costly that it must do alone. ``tick()`` comes before each pass.

    Raises:
        NoCounter: the processor's counters were taken away meanwhile.
    """

    def count(one: Callable[[int], Any], i: int) -> int:
        tick()
        start = counter.read()
        one(i)
        return counter.read() - start

    with no_collection():
        passes = 1
        if warm is not None:
            tick()
            warm()
        else:
            first = max(1, count(call, 0))
            passes = max(1, min(PASSES, ENOUGH // first))
            for i in range(1, WARM if passes == PASSES else 1):
                count(call, i)
        own = min(count(lambda _: None, i) for i in range(3))
        return max(0, median_low([count(call, i) for i in range(passes)]) - own)
