"""Exponents of growth whose truth is known: the range holds it, or says that nothing has settled."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from effbench.fit import Exponent, from_counters, from_times

Sizes = NDArray[np.float64]
Random = np.random.Generator
LENGTHS = 1024 * 2.0 ** np.arange(7)
#: What must hold of each family of curves.
COVERED = 0.93
#: 1000 take 14 s, and miss no more.
TRIALS = 200


def between(random: Random, low: float, high: float) -> float:
    return math.exp(random.uniform(math.log(low), math.log(high)))


def pure(n: Sizes, random: Random) -> tuple[Sizes, float]:
    power = float(random.choice([0.5, 1, 1.5, 2, 3]))
    return n**power, power


def sum_of_terms(n: Sizes, random: Random) -> tuple[Sizes, float]:
    """a n + b n^2, which weigh the same at some measured length."""
    return n + n**2 / between(random, n[0], n[-1]), 2


def with_log(n: Sizes, random: Random) -> tuple[Sizes, float]:
    return n * np.log2(n), 1


def offset(n: Sizes, random: Random) -> tuple[Sizes, float]:
    power = float(random.choice([1, 2]))
    return n**power + between(random, 0.01, 30) * n[0] ** power, power


def cache_step(n: Sizes, random: Random) -> tuple[Sizes, float]:
    """Up to twice as slow from some length on, within an octave or three."""
    power = float(random.choice([1, 2]))
    where, width = between(random, n[0], n[-1]), random.uniform(0.1, 0.35)
    return n**power * (1 + random.uniform(0.2, 1) / (1 + np.exp(-np.log(n / where) / width))), power


FAMILIES = [pure, sum_of_terms, with_log, offset, cache_step]
Family = Callable[[Sizes, Random], tuple[Sizes, float]]


def timed(n: Sizes, y: Sizes, noise: float, random: Random) -> Exponent:
    seen = 1e-6 * y * np.exp(noise * random.standard_normal(len(n)))
    return from_times(n, seen, [(t * math.exp(-1.96 * noise), t * math.exp(1.96 * noise)) for t in seen])


def outcomes(family: Family, trials: int) -> dict[str, Counter[str]]:
    """How often times and counts hit, missed, or had not settled."""
    random = np.random.default_rng(0)
    found: dict[str, Counter[str]] = {"times": Counter(), "counters": Counter()}
    for _ in range(trials):
        y, truth = family(LENGTHS, random)
        counted = y * np.exp(1e-5 * random.standard_normal(len(y)))
        for kind, exponent in (
            ("times", timed(LENGTHS, y, random.choice([0.002, 0.01, 0.03, 0.06]), random)),
            ("counters", from_counters(LENGTHS, counted)),
        ):
            hit = "hit" if exponent.low <= truth <= exponent.high else "miss"
            found[kind][hit if exponent.trend == "settled" else exponent.trend] += 1
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_the_range_holds_the_exponent_or_says_that_it_has_not_settled(family: Family) -> None:
    for kind, counts in outcomes(family, TRIALS).items():
        assert counts["miss"] <= (1 - COVERED) * counts.total(), (kind, counts)


def test_pure_powers_settle_and_their_ranges_are_narrow() -> None:
    random = np.random.default_rng(0)
    for power in (1, 1.5, 2):
        widths = [timed(LENGTHS, LENGTHS**power, 0.01, random) for _ in range(40)]
        assert sum(e.trend == "settled" for e in widths) >= 38
        assert np.median([e.high - e.low for e in widths]) < 0.25


def test_increments_are_exact_where_a_straight_line_is_not() -> None:
    counted = from_counters(LENGTHS, 3e6 + 16 * LENGTHS**2)
    assert counted.trend == "settled"
    assert counted.low == pytest.approx(2, abs=0.003) == counted.high
    assert str(counted) == "2.00"


@pytest.mark.parametrize("sizes", [[1000, 1500, 3000, 7000, 8000], [64, 128, 256, 512]])
def test_sizes_need_not_double(sizes: list[float]) -> None:
    counted = from_counters(sizes, [7 + 2 * n**1.5 for n in sizes])
    assert (counted.low + counted.high) / 2 == pytest.approx(1.5, abs=1e-3)


def test_terms_that_still_compete_are_told_from_where_to_where() -> None:
    y = LENGTHS + LENGTHS**2 / 8192
    assert str(from_counters(LENGTHS, y)) == "still rising: 1.68 → 1.89"
    exponent = timed(LENGTHS, y, 0.01, np.random.default_rng(0))
    assert exponent.trend == "rising"
    assert exponent.local[0] < 1.65 < 1.7 < exponent.local[-1]


def test_what_does_not_grow() -> None:
    assert str(from_counters(LENGTHS, [5.0] * 7)) == "0.00"
    assert str(from_counters(LENGTHS, [5.0, 6, 5, 6, 5, 6, 5])) == "no fit: it does not grow steadily"
    flat = from_times(LENGTHS, [1.0, 1.01, 1, 1.02, 1, 1, 1.05], [(math.nan, math.nan)] * 7)
    assert str(flat) == "no fit: it grew by no more than a factor of 1.05"


def test_no_fit_from_three_sizes() -> None:
    for exponent in (
        from_counters(LENGTHS[:3], LENGTHS[:3]),
        from_times(LENGTHS[:3], LENGTHS[:3], [(1, 2)] * 3),
    ):
        assert (exponent.trend, str(exponent)) == ("none", "no fit: 3 of at least 4 sizes")


def test_only_the_last_regime_is_fitted_where_it_is_long_enough() -> None:
    y = np.where(LENGTHS <= 4096, LENGTHS, 2 * LENGTHS)
    intervals = [(0.99 * t, 1.01 * t) for t in y]
    alone = from_times(LENGTHS, y, intervals, [n <= 4096 for n in LENGTHS])
    assert (alone.trend, alone.sizes) == ("settled", (8192, 65536))
    assert alone.low <= 1 <= alone.high
    late = from_times(LENGTHS, y, intervals, [n <= 16384 for n in LENGTHS])
    assert late.sizes == (8192, 65536)


def test_times_without_an_interval_get_a_wide_range() -> None:
    known = timed(LENGTHS, LENGTHS, 0.01, np.random.default_rng(0))
    unknown = from_times(LENGTHS, LENGTHS, [(math.nan, math.nan)] * 7)
    assert unknown.high - unknown.low > known.high - known.low


def test_a_range_that_is_too_wide_is_no_answer() -> None:
    intervals = [(0.4 * t, 2.5 * t) for t in LENGTHS]
    exponent = from_times(LENGTHS, LENGTHS, intervals)
    assert exponent.trend == "unsettled"
    assert str(exponent).startswith("not settled: ")
