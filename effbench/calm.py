"""Which samples of a time were taken while the cores were fully at hand: pure functions, no clock.

On a rented machine a pass takes up to 1.4 times as long for seconds, while a neighbour has the other thread
of its physical core; a pass of many small operators up to twice as long, while the host has the cores far
apart, and threads wait for each other. No counter of the system shows it. So small fixed works are timed
beside every sample (``meters/cores``): where one took longer than it does at best, or where threads waited
for a core, the sample says what the machine did and not what the mechanism costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

#: Seconds of each fixed work: arithmetic, and with several threads one that mostly waits for all of them.
Pace = Sequence[float]
#: A fixed work may take so many times its best, and threads may wait for such a share of a sample.
SLOWER, WAITED = 1.12, 0.02
#: So many calm samples speak for a process; the only sample of a costly pass does, too.
ENOUGH = 2
#: Of a visit at least such a share is calm: beside a busy core single samples happen to look so.
SHARE = 0.2
#: The medians of the first and the last third of a steady series are no further apart.
STEADY = 1.1
#: The best is what one in so many readings reaches: a single one may be luck.
BEST = 10


def best(readings: Sequence[Pace]) -> Pace | None:
    """Seconds of each fixed work at its best; None without readings."""
    works = zip(*readings, strict=False)
    return tuple(sorted(work)[len(readings) // BEST] for work in works) or None


def is_calm(pace_s: Pace | None, waited: float | None, best_s: Pace | None) -> bool:
    """Whether the cores were fully at hand.

    Args:
        pace_s: seconds of the fixed works beside the sample; None where they were not done.
        waited: share of the sample for which its threads waited for a core; None where nobody knows.
        best_s: seconds of the fixed works at their best; None while nobody knows.
    """
    return (waited or 0.0) <= WAITED and _slower(pace_s, best_s) <= SLOWER


def hindrance(pace_s: Pace | None, waited: float | None, best_s: Pace | None) -> float:
    """How many times as long a sample may have lasted as it would have with the cores fully at hand.

    What a pass does lies between the fixed works: some of it is arithmetic, some of it waiting of threads for
    each other. Known without a look at how long the sample took. Arguments as above.
    """
    return max(_slower(pace_s, best_s), 1.0) + (waited or 0.0)


def _slower(pace_s: Pace | None, best_s: Pace | None) -> float:
    """How many times its best the fixed work took that suffered most; 0 where nobody knows."""
    both = zip(pace_s or (), best_s or (), strict=False)
    return max((took / least for took, least in both if least), default=0.0)


def calm_samples(
    samples: Sequence[float],
    paces: Sequence[Pace | None] | None,
    waits: Sequence[float | None] | None,
    best_s: Pace | None,
) -> list[float]:
    """The samples of a visit taken while the cores were at hand; all where nothing was noted beside them.

    The cores are looked at between samples, and a neighbour may come and go in the midst of one: next to
    a sample on slow cores, no other is taken for calm, and none where hardly any is.
    """
    if not paces:
        return list(samples)
    slow = [not is_calm(pace, None, best_s) for pace in paces]
    alone = [not any(slow[max(0, place - 1) : place + 2]) for place in range(len(slow))]
    beside = zip(samples, alone, waits or [None] * len(paces), strict=True)
    found = [sample for sample, calm, waited in beside if calm and is_calm(None, waited, best_s)]
    return found if len(found) >= SHARE * len(slow) else []


def steady(samples: Sequence[float]) -> bool:
    """Whether a series neither drifts nor jumps, as far as its first and its last third tell."""
    third = len(samples) // 3
    if third < 3:
        return True
    early, late = median(samples[:third]), median(samples[-third:])
    return max(early, late) <= STEADY * min(early, late)
