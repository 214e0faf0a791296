"""Crossings of curves whose truth is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from effbench.crossover import Overtaking, overtaking

LENGTHS = 1024 * 2.0 ** np.arange(7)
COVERED = 0.93
TRIALS = 300
Random = np.random.Generator
Curve = Callable[[float], float]


def seen(curve: Curve, noise: float, random: Random, sizes=LENGTHS) -> Overtaking:
    ratios = np.array([curve(n) for n in sizes]) * np.exp(noise * random.standard_normal(len(sizes)))
    return overtaking(
        sizes, ratios, [(r * math.exp(-1.96 * noise), r * math.exp(1.96 * noise)) for r in ratios]
    )


def linear_against_square(random: Random) -> Curve:
    """c n against a n + b n^2."""
    where = math.exp(random.uniform(math.log(700), math.log(130_000)))
    share = random.uniform(0.05, 0.9)  # of the linear term where they cross
    return lambda n: 1 / (share + (1 - share) * n / where)


def with_overhead(random: Random) -> Curve:
    """A large overhead against a steeper curve."""
    where = math.exp(random.uniform(math.log(700), math.log(130_000)))
    return lambda n: (0.5 + 0.5 * n / where) / (n / where) ** 1.5


def with_cache_step(random: Random) -> Curve:
    """A pure power of a ratio that gets a step on its way."""
    where, step = (math.exp(random.uniform(math.log(1500), math.log(40_000))) for _ in range(2))
    power, height = random.uniform(0.5, 1), random.uniform(0.1, 0.5)
    return lambda n: (where / n) ** power * (1 + height / (1 + (step / n) ** 4))


def true_crossing(curve: Curve) -> float:
    low, high = 1.0, 1e9
    for _ in range(100):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if curve(middle) > 1 else (low, middle)
    return low


@pytest.mark.parametrize("family", [linear_against_square, with_overhead, with_cache_step])
def test_intervals_hold_the_crossing_or_nothing_is_claimed(family: Callable[[Random], Curve]) -> None:
    random, counts = np.random.default_rng(0), Counter[str]()
    for _ in range(TRIALS):
        curve = family(random)
        found = seen(curve, random.choice([0.002, 0.01, 0.03, 0.06]), random)
        truth = true_crossing(curve)
        for crossing in found.crossings:
            high = math.inf if math.isnan(crossing.high) else crossing.high
            hit = crossing.low <= truth <= high and crossing.to == "cheaper"
            counts[f"{crossing.kind} {'hit' if hit else 'miss'}"] += 1
        counts["none"] += not found.crossings
    for kind in ("measured", "extrapolated"):
        hits, misses = counts[f"{kind} hit"], counts[f"{kind} miss"]
        assert misses <= (1 - COVERED) * (hits + misses), counts
    assert counts["measured hit"] > TRIALS / 2


def test_a_crossing_is_found_where_it_is() -> None:
    found = seen(lambda n: 5000 / n, 0.01, np.random.default_rng(0))
    (crossing,) = found.crossings
    assert (crossing.kind, crossing.to) == ("measured", "cheaper")
    assert 4800 < crossing.low < 5000 < crossing.high < 5200
    assert (found.signs[0], found.cheaper_from) == (1, 8192)


def test_several_crossings_are_all_listed() -> None:
    found = seen(
        lambda n: 1 + 0.5 * math.cos(math.log2(n / 1024) * math.pi / 2), 0.01, np.random.default_rng(1)
    )
    assert [crossing.to for crossing in found.measured] == ["cheaper", "dearer", "cheaper"]
    assert [crossing.at for crossing in found.crossings] == sorted(
        crossing.at for crossing in found.crossings
    )


def test_cheaper_at_every_size_is_no_crossing() -> None:
    found = seen(lambda n: 0.5, 0.01, np.random.default_rng(0))
    assert (found.crossings, found.cheaper_from) == ((), 1024)


def test_never_cheaper_is_no_crossing() -> None:
    found = seen(lambda n: 1.5, 0.01, np.random.default_rng(0))
    assert (found.crossings, found.cheaper_from) == ((), None)


def test_curves_that_cannot_be_told_apart_do_not_cross() -> None:
    found = overtaking(LENGTHS, [1.01, 0.99] * 3 + [1.01], [(0.9, 1.1)] * 7)
    assert (found.crossings, set(found.signs)) == ((), {0})


def test_undecided_sizes_widen_the_interval_between_decided_ones() -> None:
    ratios = [2, 1.02, 0.99, 1.01, 0.5]
    (crossing,) = overtaking(LENGTHS[:5], ratios, [(0.95 * r, 1.05 * r) for r in ratios]).crossings
    assert crossing.low < 2048.001
    assert crossing.high > 8192


def test_a_crossing_just_beyond_the_largest_size_is_extrapolated_and_a_far_one_is_not() -> None:
    near = seen(lambda n: 80_000 / n, 0.002, np.random.default_rng(0))
    (crossing,) = near.crossings
    assert crossing.kind == "extrapolated"
    assert crossing.low < 80_000 < crossing.high
    assert not seen(lambda n: 300_000 / n, 0.002, np.random.default_rng(0)).crossings


def test_two_sizes_tell_no_more_than_that_it_lies_between_them() -> None:
    (crossing,) = overtaking([1024, 4096], [2, 0.5], [(1.99, 2.01), (0.49, 0.51)]).crossings
    assert (crossing.at, crossing.low, crossing.high) == pytest.approx((2048, 1024, 4096))


def test_without_an_interval_nothing_is_decided() -> None:
    found = overtaking(LENGTHS[:3], [2, 1, 0.5], [(math.nan, math.nan)] * 3)
    assert (found.signs, found.crossings) == ((0, 0, 0), ())


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=7), st.floats(0, 0.5))
def test_intervals_hold_their_crossing_and_lie_between_the_sizes(ratios: list[float], noise: float) -> None:
    sizes = LENGTHS[: len(ratios)]
    found = overtaking(sizes, ratios, [(r * math.exp(-noise), r * math.exp(noise)) for r in ratios])
    for crossing in found.crossings:
        assert crossing.low <= crossing.at * (1 + 1e-9)
        assert not crossing.at > crossing.high * (1 + 1e-9)
    for crossing in found.measured:
        assert sizes[0] <= crossing.low * (1 + 1e-9)
        assert crossing.high <= sizes[-1] * (1 + 1e-9)
