"""Which samples of a time were taken while the cores were fully at hand: pure functions, no clock.

On a rented machine a pass takes up to 1.4 times as long for seconds, while a neighbour has the other thread
of its physical core, and no counter of the system shows it. So a small fixed work is timed beside every
sample (``meters/cores``): where it took longer than it does at best, or where threads waited for a core, the
sample says what the machine did and not what the mechanism costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

#: The fixed work may take so many times its best, and threads may wait for such a share of a sample.
SLOWER, WAITED = 1.12, 0.02
#: So many calm samples speak for a process; the only sample of a costly pass does, too.
ENOUGH = 2
#: The medians of the first and the last third of a steady series are no further apart.
STEADY = 1.1
#: The best is what one in so many readings reaches: a single one may be luck.
BEST = 10


def best(readings: Sequence[float]) -> float | None:
    """Seconds of the fixed work at its best; None without readings."""
    return sorted(readings)[len(readings) // BEST] if readings else None


def is_calm(pace_s: float | None, waited: float | None, best_s: float | None) -> bool:
    """Whether the cores were fully at hand.

    Args:
        pace_s: seconds of the fixed work beside the sample; None where it was not done.
        waited: share of the sample for which its threads waited for a core; None where nobody knows.
        best_s: seconds of the fixed work at its best; None while nobody knows.
    """
    return (waited or 0.0) <= WAITED and (pace_s is None or best_s is None or pace_s <= SLOWER * best_s)


def hindrance(pace_s: float | None, waited: float | None, best_s: float | None) -> float:
    """About how many times as long a sample lasted as it would have with the cores fully at hand.

    Of use to rank samples by what the machine did, without a look at how long they took. Arguments as above.
    """
    slower = pace_s / best_s if pace_s is not None and best_s else 1.0
    return max(slower, 1.0) + (waited or 0.0)


def calm_samples(
    samples: Sequence[float],
    paces: Sequence[float | None] | None,
    waits: Sequence[float | None] | None,
    best_s: float | None,
) -> list[float]:
    """The samples of a visit taken while the cores were at hand; all where nothing was noted beside them.

    The cores are looked at between samples, and a neighbour may come and go in the midst of one: next to
    a sample on slow cores, no other is taken for calm.
    """
    if not paces:
        return list(samples)
    slow = [not is_calm(pace, None, best_s) for pace in paces]
    alone = [not any(slow[max(0, place - 1) : place + 2]) for place in range(len(slow))]
    beside = zip(samples, alone, waits or [None] * len(paces), strict=True)
    return [sample for sample, calm, waited in beside if calm and is_calm(None, waited, best_s)]


def steady(samples: Sequence[float]) -> bool:
    """Whether a series neither drifts nor jumps, as far as its first and its last third tell."""
    third = len(samples) // 3
    if third < 3:
        return True
    early, late = median(samples[:third]), median(samples[-third:])
    return max(early, late) <= STEADY * min(early, late)
