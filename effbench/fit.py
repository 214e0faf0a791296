"""How fast a quantity grows with a size: the exponent p of n^p for large n, as a range.

Two kinds of numbers need two ways. Counters (FLOPs, instructions, bytes asked for) are exact, so increments
tell the exponent: what does not grow cancels. Times are not: overheads bend them down at small sizes, caches
bend them up somewhere in the middle, and the interval of a straight line through all of it is a tight
interval around the wrong number. There the range holds what the local slopes do.

Sizes are lengths or widths, values plain SI; both ascending in size. Nothing here knows a table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import chi2

Floats = NDArray[np.float64]
Trend = Literal["settled", "rising", "falling", "unsettled", "none"]

#: No exponent from fewer sizes.
FEWEST = 4
#: Exponents that are looked for.
_LEAST, _MOST = -1.0, 6.0
#: What increments of a counter leave uncertain. An exponent that drifts by more from one size to the next has
#: not settled, nor has one that drifted by so much before.
COUNTED, _BEFORE = 0.002, 0.02

#: Below this the range of an exponent of time is no narrower, whatever the noise: lower terms and caches.
MODEL = 0.05
#: Slopes that differ by more over the fitted sizes, beyond their noise, have not settled.
DRIFT = 0.1
#: A wider range is no answer.
WIDEST = 0.8
#: At the smallest fitted size the part that does not grow may be so large a share.
OVERHEAD = 0.1
#: What has grown by less in all is mostly overhead, behind which any exponent may hide.
GROWN = 2.0
#: At the largest fitted size a term of one power less may still be so large a share.
LEADS = 0.5
#: The standard deviation of the logarithm of a time without an interval, and the least that is believed.
_UNKNOWN, _LEAST_NOISE = 0.05, 0.002
_Z = 1.96
_STEP = 0.005
_GRID = np.arange(_LEAST, _MOST, _STEP)


@dataclass(frozen=True)
class Exponent:
    """The exponent for large sizes: between ``low`` and ``high`` where ``trend`` is ``settled``.

    Where it is still ``rising`` or ``falling``, ``local`` says from where to where; where it is ``unsettled``
    the range is too wide to be an answer; where it is ``none``, ``reason`` says why.
    """

    trend: Trend
    low: float = math.nan
    high: float = math.nan
    local: tuple[float, ...] = ()  # between neighbouring sizes, small to large
    sizes: tuple[float, float] = (math.nan, math.nan)  # the smallest and the largest that were used
    reason: str = ""

    def __str__(self) -> str:
        match self.trend:
            case "settled":
                low, high = f"{self.low:.2f}", f"{self.high:.2f}"
                return low if low == high else f"{low}–{high}"
            case "rising" | "falling":
                return f"still {self.trend}: {self.local[0]:.2f} → {self.local[-1]:.2f}"
            case "unsettled":
                return f"not settled: {self.low:.2f}–{self.high:.2f}"
            case _:
                return f"no fit: {self.reason}"


def no_fit(reason: str) -> Exponent:
    """No exponent, and why."""
    return Exponent("none", reason=reason)


def from_counters(sizes: Sequence[float], values: Sequence[float]) -> Exponent:
    """The exponent of an exact count by increments: p such that y(4n) - y(2n) = 2^p (y(2n) - y(n)).

    Sizes need not double: for any three, p solves the same for c0 + c1 n^p.
    """
    if len(sizes) < FEWEST:
        return no_fit(f"{len(sizes)} of at least {FEWEST} sizes")
    ends = (float(sizes[0]), float(sizes[-1]))
    if max(values) <= min(values) * (1 + 1e-9):
        return Exponent("settled", 0.0, 0.0, (0.0,) * (len(sizes) - 1), ends)
    triples = zip(_triples(sizes), _triples(values), strict=True)
    local = [_increments(*pair) for pair in triples]
    if any(p is None for p in local[-3:]):
        return no_fit("it does not grow steadily")
    known = tuple(p for p in local if p is not None)
    recent = known[-3:]
    steps = np.diff(recent)
    last = float(steps[-1])
    if abs(last) <= COUNTED and all(abs(steps) <= _BEFORE):
        margin = COUNTED + abs(last)
        return Exponent("settled", min(recent[-2:]) - margin, max(recent[-2:]) + margin, known, ends)
    if all(steps > 0) or all(steps < 0):
        return Exponent("rising" if last > 0 else "falling", min(recent), max(recent), recent, ends)
    return Exponent("unsettled", min(recent), max(recent), recent, ends)


def _triples(numbers: Sequence[float]) -> list[tuple[float, float, float]]:
    return list(zip(numbers, numbers[1:], numbers[2:], strict=False))


def _increments(sizes: tuple[float, ...], values: tuple[float, ...]) -> float | None:
    """p of c0 + c1 n^p through three points; None where one of the two increments is none."""
    first, second = values[1] - values[0], values[2] - values[1]
    if first <= 0 or second <= 0:
        return None
    down, up = math.log(sizes[0] / sizes[1]), math.log(sizes[2] / sizes[1])

    def surplus(p: float) -> float:
        ratio = math.expm1(p * up) / -math.expm1(p * down) if p else up / -down
        return math.log(ratio) - math.log(second / first)

    if surplus(_LEAST) > 0 or surplus(_MOST) < 0:
        return None
    return float(brentq(surplus, _LEAST, _MOST, xtol=1e-9))


def from_times(
    sizes: Sequence[float],
    values: Sequence[float],
    intervals: Sequence[tuple[float, float]],
    regimes: Sequence[object] = (),
) -> Exponent:
    """The exponent of a time by c0 + c1 n^p, and by the local slopes of the points that it is fitted to.

    Fitted are the most of the largest points that one such curve describes, and of which the overhead c0 is a
    small share; only those in the largest one's regime, where that leaves enough. A factor log n cannot be
    told from a power of about 0.1, so the range begins where c0 + c1 n^p log n would.

    Args:
        intervals: 95 % intervals of the values; nan where there is none.
        regimes: of each point, such as whether it fits the cache; left out, all are in one.
    """
    if len(sizes) < FEWEST:
        return no_fit(f"{len(sizes)} of at least {FEWEST} sizes")
    n, y = np.asarray(sizes, dtype=float), np.asarray(values, dtype=float)
    if y[-1] < GROWN * y[0]:
        return no_fit(f"it grew by no more than a factor of {y[-1] / y[0]:.2f}")
    noise = _noise(intervals)
    start = _start_of_regime(regimes) if len(regimes) else 0
    start = start if len(n) - start >= FEWEST else 0
    for first in range(start, len(n) - FEWEST + 1):
        curve = _Curve(n[first:], y[first:], noise[first:])
        if curve.fits and curve.overhead <= OVERHEAD:
            break
    return _range(n[first:], y[first:], noise[first:], curve)


def _noise(intervals: Sequence[tuple[float, float]]) -> Floats:
    """Standard deviation of the logarithm of each value."""
    bounds = np.asarray(intervals, dtype=float)
    known = np.log(bounds[:, 1] / bounds[:, 0]) / (2 * _Z)
    typical = float(np.nanmedian(known)) if np.isfinite(known).any() else _UNKNOWN
    return np.maximum(np.where(np.isfinite(known), known, typical), _LEAST_NOISE)


def _start_of_regime(regimes: Sequence[object]) -> int:
    """The place of the first point of the last regime."""
    start = len(regimes) - 1
    while start and regimes[start - 1] == regimes[-1]:
        start -= 1
    return start


@lru_cache
def _quantile(share: float, freedom: int) -> float:
    """Of chi squared."""
    return float(chi2.ppf(share, freedom))


class _Curve:
    """c0 + c1 n^p held against some points for every p of a grid, and forms that look like it; c >= 0.

    A factor log n looks like a power of about 0.1; a term of one power less, like an exponent that is a
    little too small. What either would make of the points belongs to the range.
    """

    def __init__(self, n: Floats, y: Floats, noise: Floats) -> None:
        size = n / n[-1]
        power = size ** _GRID[:, None]  # [p, n]
        fitted = _Fitted(np.ones_like(power), power, y, noise)
        best = int(np.argmin(fitted.misfit))
        least, freedom = float(fitted.misfit[best]), max(1, len(n) - 3)
        self.fits = bool(least <= _quantile(0.99, freedom))
        self.overhead = float(fitted.lower_share[best, 0])
        self.allowed = least + _quantile(0.95, 1) * max(1.0, least / freedom)
        self.best = float(_GRID[best])
        own = self._within(fitted.misfit)
        with_log = self._within(
            _Fitted(np.ones_like(power), power * np.log(n) / np.log(n[-1]), y, noise).misfit
        )
        lower_term = _Fitted(power / size, power, y, noise)
        leads = lower_term.lower_share[:, -1] <= LEADS
        with_term = self._within(np.where(leads, lower_term.misfit, np.inf))
        self.low = min([*own, *with_log, *with_term]) - _STEP
        self.high = max([*own, *with_term]) + _STEP

    def _within(self, misfit: Floats) -> Floats:
        """The exponents whose misfit is not much larger than the best curve's."""
        within: Floats = _GRID[misfit <= self.allowed]
        return within


class _Fitted:
    """y = a lower + b basis for each row of both, by weighted least squares with a, b >= 0."""

    def __init__(self, lower: Floats, basis: Floats, y: Floats, noise: Floats) -> None:
        weight = 1 / (noise * y) ** 2
        ll, lb, bb = lower**2 @ weight, (lower * basis) @ weight, basis**2 @ weight
        ly, by = lower @ (weight * y), basis @ (weight * y)
        with np.errstate(divide="ignore", invalid="ignore"):
            a = np.nan_to_num((bb * ly - lb * by) / (ll * bb - lb**2), posinf=0, neginf=0)
        a = np.clip(a, 0, ly / ll)[:, None]
        b = ((by - a[:, 0] * lb) / bb)[:, None]
        model = a * lower + b * basis
        self.misfit: Floats = (model - y) ** 2 @ weight
        self.lower_share: Floats = a * lower / model  # [p, n]


def _range(n: Floats, y: Floats, noise: Floats, curve: _Curve) -> Exponent:
    x, log = np.log(n / n[-1]), np.log(y)
    local = np.diff(log) / np.diff(x)
    low = min(curve.low, local.min(), curve.best - MODEL)
    high = max(curve.high, local.max(), curve.best + MODEL)
    ends = (float(n[0]), float(n[-1]))
    coefficients, covariance = np.polyfit(x, log, 2, w=1 / noise, cov="unscaled")
    bend, slope = float(coefficients[0]), float(coefficients[1])
    drift = -2 * bend * x[0]
    if abs(drift) > DRIFT and abs(bend) > _Z * math.sqrt(covariance[0, 0]):
        smooth = tuple(float(s) for s in slope + 2 * bend * (x[1:] + x[:-1]) / 2)
        return Exponent("rising" if drift > 0 else "falling", low, high, smooth, ends)
    trend: Trend = "settled" if high - low <= WIDEST else "unsettled"
    return Exponent(trend, float(low), float(high), tuple(map(float, local)), ends)
