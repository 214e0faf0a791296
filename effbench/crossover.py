"""Where one cost overtakes another: the sizes at which their ratio passes 1, each as an interval.

A size counts as decided where the interval of its ratio leaves out 1. A crossing is measured where it lies
between two decided sizes of opposite sign; everything else is said to be what it is: extrapolated, by no more
than a factor of two and from what the last sizes say, or none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

#: Nothing is extrapolated beyond so many times the largest size.
REACH = 2.0


@dataclass(frozen=True)
class Crossing:
    """One size at which the ratio passes 1, and its interval, of which an open end is nan."""

    at: float
    low: float
    high: float
    to: Literal["cheaper", "dearer"]  # what it is beyond
    kind: Literal["measured", "extrapolated"]


@dataclass(frozen=True)
class Overtaking:
    """What became of a ratio over some sizes: its sign at each (-1 cheaper, 1 dearer, 0 not decided)."""

    sizes: tuple[float, ...]
    signs: tuple[int, ...]
    crossings: tuple[Crossing, ...]

    @property
    def measured(self) -> tuple[Crossing, ...]:
        return tuple(crossing for crossing in self.crossings if crossing.kind == "measured")

    @property
    def cheaper_from(self) -> float | None:
        """The smallest size from which on every size is decidedly cheaper; None where the largest is not."""
        start = None
        for size, sign in zip(reversed(self.sizes), reversed(self.signs), strict=True):
            if sign >= 0:
                break
            start = size
        return start


def overtaking(
    sizes: Sequence[float], ratios: Sequence[float], intervals: Sequence[tuple[float, float]]
) -> Overtaking:
    """Crossings of a ratio, ascending in size.

    Between sizes the logarithm of the ratio is taken to be straight over the logarithm of the size, give or
    take what its curvature at the neighbouring sizes would make of it; where too few sizes tell a
    curvature, the interval is all that lies between the two.

    Args:
        sizes: ascending.
        ratios: cost / the other's cost.
        intervals: of each ratio; nan where it is not known, and then nothing is decided there.
    """
    x, value = np.log(np.asarray(sizes, dtype=float)), np.log(np.asarray(ratios, dtype=float))
    bounds = np.log(np.asarray(intervals, dtype=float).reshape(-1, 2))
    signs = [1 if low > 0 else -1 if high < 0 else 0 for low, high in bounds]
    decided = [place for place, sign in enumerate(signs) if sign]
    found = [
        _between(x, value, bounds, left, right, signs)
        for left, right in pairwise(decided)
        if signs[left] != signs[right]
    ]
    found += list(_beyond(x, value, bounds, signs))
    return Overtaking(tuple(map(float, sizes)), tuple(signs), tuple(found))


def _between(
    x: Floats, value: Floats, bounds: Floats, left: int, right: int, signs: Sequence[int]
) -> Crossing:
    """The crossing somewhere between two decided sizes, of which those between them are not decided."""
    part = slice(left, right + 1)
    zeros = _zeros(x[part], value[part])
    at = (zeros[0] + zeros[-1]) / 2
    low, high = float(x[left]), float(x[right])
    bend = _bend(x, value, left, right)
    if bend is not None:
        edges = bounds[part] + (-bend, bend)
        early, late = edges.T if signs[left] > 0 else edges.T[::-1]
        first, last = _zeros(x[part], early), _zeros(x[part], late)
        low = first[0] if first else low
        high = last[-1] if last else high
    to: Literal["cheaper", "dearer"] = "cheaper" if signs[right] < 0 else "dearer"
    return Crossing(math.exp(at), math.exp(min(low, at)), math.exp(max(high, at)), to, "measured")


def _zeros(x: Floats, value: Floats) -> list[float]:
    """Where straight pieces through points pass 0."""
    return [
        float(a + (b - a) * u / (u - v))
        for (a, u), (b, v) in pairwise(zip(x, value, strict=True))
        if (u > 0) != (v > 0)
    ]


def _bend(x: Floats, value: Floats, left: int, right: int) -> float | None:
    """How far a curve may be from the straight line between two sizes; None where nothing tells."""
    second = _second_differences(x, value)
    if not len(second):
        return None
    near = second[max(0, left - 1) : right + 1]  # those that the sizes from left to right take part in
    return float(np.max(near, initial=0.0) * np.max(np.diff(x[left : right + 1])) ** 2 / 8)


def _second_differences(x: Floats, value: Floats) -> Floats:
    """The size of the second derivative at each inner point."""
    slopes = np.diff(value) / np.diff(x)
    found: Floats = np.abs(np.diff(slopes) / ((x[2:] - x[:-2]) / 2))
    return found


def _beyond(x: Floats, value: Floats, bounds: Floats, signs: Sequence[int]) -> Iterator[Crossing]:
    """The crossing that the last two sizes point at, not further than ``REACH``; from three sizes on."""
    if len(x) < 3 or not signs[-1] or not np.isfinite(bounds[-2:]).all():
        return
    sign = signs[-1]
    height, before = sign * value[-1], sign * value[-2]
    near, far = sorted(sign * bounds[-1])
    near_before, far_before = sorted(sign * bounds[-2])
    step, reach = float(x[-1] - x[-2]), math.log(REACH)
    at = _fall(before, height, step)
    if at is None or at > reach:
        return
    bend = float(_second_differences(x, value)[-1]) * reach * step
    low = _fall(far_before, max(near - bend, 0.0), step)
    high = _fall(near_before, far + bend, step)
    last = float(x[-1])
    yield Crossing(
        math.exp(last + at),
        math.exp(last + min(low or 0.0, at)),
        math.nan if high is None or high > reach else math.exp(last + max(high, at)),
        "cheaper" if sign > 0 else "dearer",
        "extrapolated",
    )


def _fall(before: float, now: float, step: float) -> float | None:
    """How far from now a straight line through both reaches 0; None where it does not fall."""
    return now * step / (before - now) if before > now else None
