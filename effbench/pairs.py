"""Statistics of pairs: pure functions on the logarithm of head / base, one value a pair of processes.

Both sides of a pair were measured in turns, so what disturbed the moment is in neither ratio; every pair is
of processes started afresh, so pairs are independent, and the pair is the unit of replication.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
DRAWS = 2000
#: From so many pairs on, a cell's own spread is trusted alone; below, that of a usual cell counts beside
#: it, like that of so many pairs more.
ENOUGH_PAIRS, BORROWED_PAIRS = 5, 4


def log_ratio(base: Sequence[float], head: Sequence[float]) -> float:
    """log(head / base) of one pair: the median over its fours A B B A, each two samples a side in turn.

    A burst of load spoils the fours that it hits, and the median leaves them out.
    """
    fours = min(len(base), len(head)) // 2
    logs = np.log([np.asarray(side[: 2 * fours], dtype=np.float64) for side in (base, head)])
    return float(np.median((logs[1] - logs[0]).reshape(fours, 2).mean(axis=1)))


def spread(cells: Iterable[Sequence[float]]) -> float | None:
    """The standard deviation of log ratios between pairs that a usual cell has; None where none has two.

    From the median of the cells' variances, each over the median that chi squared has with its degrees of
    freedom: a few cells that were hit hard say nothing of the others.
    """
    variances = [
        float(np.var(cell, ddof=1)) * (len(cell) - 1) / float(stats.chi2.median(len(cell) - 1))
        for cell in cells
        if len(cell) > 1
    ]
    return math.sqrt(float(np.median(variances))) if variances else None


def interval(logs: Sequence[float], usual: float | None) -> tuple[float, float] | None:
    """The 95 % interval of head / base; None for a single pair.

    A bootstrap over pairs. Few values resampled claim too much: the percentiles are those whose interval
    would be Student's if the values were normal (the expanded percentiles of Hesterberg 2015). Below
    ``ENOUGH_PAIRS`` there is nothing to resample: Student's interval by the variance of the cell and that of
    a ``usual`` one, each weighted by its degrees of freedom (the moderated variance of Smyth 2004).
    """
    if len(logs) < 2:
        return None
    values = np.asarray(logs, dtype=np.float64)
    centre, count = float(values.mean()), len(values)
    if count < ENOUGH_PAIRS and usual is not None:
        freedom = count - 1 + BORROWED_PAIRS
        variance = ((count - 1) * float(values.var(ddof=1)) + BORROWED_PAIRS * usual**2) / freedom
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance / count)
        return math.exp(centre - half), math.exp(centre + half)
    student = math.sqrt(count / (count - 1)) * stats.t.ppf((1 + CONFIDENCE) / 2, count - 1)
    level = float(1 - 2 * stats.norm.sf(student))
    found = stats.bootstrap(
        (values,), np.mean, confidence_level=level, method="percentile", n_resamples=DRAWS, rng=0
    ).confidence_interval
    return math.exp(min(found.low, centre)), math.exp(max(found.high, centre))


def chance(logs: Sequence[float], limit: float) -> float:
    """The probability of ratios as large as these where the true one is ``limit``: Student's t, one-sided."""
    if len(logs) < 2:
        return 1.0
    if np.ptp(logs) == 0:
        return float(logs[0] <= math.log(limit))
    return float(stats.ttest_1samp(logs, math.log(limit), alternative="greater").pvalue)


def holm(chances: Mapping[str, float]) -> dict[str, float]:
    """Chances adjusted by Holm: the claims with one below alpha hold together, at a risk of alpha for all."""
    adjusted: dict[str, float] = {}
    worst = 0.0
    for place, (name, one) in enumerate(sorted(chances.items(), key=lambda item: item[1])):
        worst = max(worst, min(1.0, one * (len(chances) - place)))
        adjusted[name] = worst
    return adjusted


def floor(logs: Sequence[float], pairs: int) -> float:
    """The relative difference that ``pairs`` pairs may show with nothing changed, from pairs of equal sides.

    The bias of those seen, and twice the standard error of so many.
    """
    values = np.asarray(logs, dtype=np.float64)
    error = float(values.std(ddof=1)) / math.sqrt(pairs)
    return math.expm1(abs(float(values.mean())) + 2 * error)
