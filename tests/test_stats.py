"""Statistics on synthetic noise whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from effbench.stats import (
    Spread,
    median_interval,
    median_of_medians,
    process_spread,
    ratio_interval,
)

Groups = list[list[float]]


def noisy(
    random: np.random.Generator, processes: int, passes: int, spread: float, value: float = 1.0
) -> Groups:
    """Each process has a level of its own, and its passes drift together."""
    groups = []
    for level in value * np.exp(spread * random.standard_normal(processes)):
        drift = np.cumsum(random.standard_normal(passes)) * 0.001
        groups.append(list(level * np.exp(drift + 0.005 * random.standard_normal(passes))))
    return groups


def test_the_process_is_the_unit() -> None:
    assert median_of_medians([[1.0, 1.0, 1.0, 1.0, 9.0], [2.0], [3.0]]) == 2.0


def test_the_same_samples_give_the_same_interval() -> None:
    groups = noisy(np.random.default_rng(0), 3, 50, 0.02)
    assert median_interval(groups, 0.02) == median_interval(groups, 0.02)


def test_the_spread_is_recovered() -> None:
    random = np.random.default_rng(1)
    spread = process_spread(noisy(random, 3, 20, 0.05) for _ in range(300))
    assert spread == pytest.approx(0.05, rel=0.2)


def test_one_disturbed_cell_does_not_widen_all_others() -> None:
    random = np.random.default_rng(2)
    cells = [noisy(random, 3, 20, 0.01) for _ in range(40)]
    spread = process_spread([*cells, [[1.0], [3.0], [9.0]]])
    assert spread is not None
    assert spread < 0.02


def test_without_a_second_process_there_is_no_spread_and_no_interval() -> None:
    assert process_spread([[[1.0, 1.1]], [[2.0]]]) is None
    assert median_interval([[1.0, 1.1]], None) is None
    assert median_interval([], 0.1) is None


def test_a_single_pass_borrows_the_spread() -> None:
    low, high = median_interval([[1.0]], 0.05) or pytest.fail("no interval")
    assert low == pytest.approx(np.exp(-1.96 * 0.05), abs=0.02)
    assert high == pytest.approx(np.exp(1.96 * 0.05), abs=0.02)


def test_a_single_pass_is_off_by_its_process_and_by_itself() -> None:
    """Its interval covers the truth; by the spread of processes, which is one of medians, it would not."""
    random = np.random.default_rng(6)

    def cell(passes: int) -> Groups:
        levels = np.exp(0.02 * random.standard_normal(3))
        return [list(level * np.exp(0.06 * random.standard_normal(passes))) for level in levels]

    run = [cell(400) for _ in range(40)]
    spread = Spread.pooled(run)
    assert spread.passes == pytest.approx(0.06, rel=0.1)

    def covered(spread: float | None) -> float:
        bounds = [median_interval(cell(1)[:1], spread) or (2.0, 0.0) for _ in range(300)]
        return sum(low <= 1.0 <= high for low, high in bounds) / 300

    assert covered(spread.of([[1.0]])) >= 0.92
    assert covered(spread.processes) < 0.7


def test_what_a_cell_borrows() -> None:
    assert Spread(0.03, 0.04, 0.03).of([[1.0]]) == pytest.approx(0.05)
    assert Spread(0.03, 0.04, 0.03).of([[1.0], [1.1]]) == pytest.approx(0.05)
    assert Spread(0.03, 0.04, 0.03).of([[1.0, 1.1]]) == 0.03
    assert Spread(0.03, None, 0.03).of([[1.0]]) == 0.03
    assert Spread(None, 0.04, None).of([[1.0]]) is None


def test_thousands_of_short_passes_do_not_speak_for_the_long_ones() -> None:
    random = np.random.default_rng(7)
    short = [[list(np.exp(0.01 * random.standard_normal(5000)))] for _ in range(10)]
    long = [[list(np.exp(0.10 * random.standard_normal(8)))] for _ in range(30)]
    assert (Spread.pooled(short + long).passes or 0.0) > 0.05
    assert Spread.pooled([[[1.0]], [[2.0]]]).passes is None


@pytest.mark.parametrize("processes", [1, 2, 3, 5, 8])
def test_the_interval_covers_the_truth(processes: int) -> None:
    """At least 88 % of nominal 95 % intervals, with a spread pooled over a run of 40 such cells."""
    random = np.random.default_rng(processes)
    spread = process_spread(noisy(random, 3, 30, 0.03) for _ in range(40))
    hits = 0
    for _ in range(300):
        low, high = median_interval(noisy(random, processes, 30, 0.03), spread) or (2.0, 0.0)
        hits += low <= 1.0 <= high
    assert hits / 300 >= 0.88


@pytest.mark.parametrize(("cells", "processes"), [(2, 2), (4, 2), (2, 3)])
def test_the_interval_of_a_small_run_covers_the_truth(cells: int, processes: int) -> None:
    """What few processes say of their spread may be far too little, and Student's distribution knows it."""
    random = np.random.default_rng(cells * processes)
    hits = 0
    for _ in range(200):
        run = [noisy(random, processes, 30, 0.03) for _ in range(cells)]
        intervals = [median_interval(groups, Spread.pooled(run).of(groups)) or (2.0, 0.0) for groups in run]
        hits += sum(low <= 1.0 <= high for low, high in intervals)
    assert hits / (200 * cells) >= 0.9


def together(random: np.random.Generator, *, rounds: float, apart: float) -> list[Groups]:
    """A run of ten cells in two rounds: what slows a round slows all its cells."""
    common = rounds * random.standard_normal(2)
    levels = np.exp(common + apart * random.standard_normal((10, 2)))
    return [[[float(level)] * 3 for level in cell] for cell in levels]


def test_cells_that_a_round_slows_alike_say_no_more_than_one() -> None:
    """Ten such cells look like ten witnesses, and their times by themselves would be claimed too surely."""
    random = np.random.default_rng(8)
    hits = {"of": 0, "alone": 0}
    for _ in range(200):
        run = together(random, rounds=0.1, apart=0.02)
        spread = Spread.pooled(run)
        for name in hits:
            low, high = median_interval(run[0], getattr(spread, name)(run[0])) or (2.0, 0.0)
            hits[name] += low <= 1.0 <= high
    assert hits["alone"] / 200 >= 0.85
    assert hits["of"] / 200 < 0.8


def test_where_rounds_explain_nothing_every_cell_is_a_witness() -> None:
    random = np.random.default_rng(9)
    spread = Spread.pooled([noisy(random, 3, 10, 0.05) for _ in range(60)])
    assert spread.rounds == pytest.approx(spread.processes, rel=0.02)
    lone = Spread.pooled([noisy(random, 2, 10, 0.05)])
    assert lone.rounds == pytest.approx(lone.processes)


def test_cells_with_fewer_rounds_than_others_count_with_those_they_have() -> None:
    random = np.random.default_rng(10)
    run = [noisy(random, 2 + place % 2, 10, 0.05) for place in range(60)]
    spread = Spread.pooled(run)
    assert spread.rounds == pytest.approx(spread.processes, rel=0.05)


def test_many_processes_are_taken_at_their_word() -> None:
    random = np.random.default_rng(6)
    run = [noisy(random, 2, 10, 0.05) for _ in range(200)]
    plain, borrowed = process_spread(run), Spread.pooled(run).processes
    assert plain is not None
    assert borrowed == pytest.approx(plain, rel=0.01)
    assert Spread.pooled([[[1.0]]]).processes is None


def test_the_interval_holds_the_value() -> None:
    random = np.random.default_rng(3)
    for passes in (1, 2, 5, 63, 64, 65, 500):
        groups = [list(random.lognormal(sigma=1.0, size=passes)) for _ in range(3)]
        low, high = median_interval(groups, 0.01) or (1.0, 0.0)
        assert low <= median_of_medians(groups) <= high


def test_a_ratio_is_head_over_base() -> None:
    random = np.random.default_rng(4)
    base, head = noisy(random, 5, 40, 0.01), noisy(random, 5, 40, 0.01, value=1.2)
    low, high = ratio_interval(base, head, None, None) or (0.0, 0.0)
    assert 1.1 < low < 1.2 < high < 1.3


def test_a_ratio_of_a_run_with_itself_is_not_taken_for_exact() -> None:
    groups = noisy(np.random.default_rng(5), 3, 40, 0.02)
    low, high = ratio_interval(groups, groups, 0.02, 0.02) or (1.0, 1.0)
    assert low < 0.99
    assert high > 1.01


def test_a_ratio_needs_replication_on_both_sides() -> None:
    assert ratio_interval([[1.0], [1.1]], [[1.0]], 0.1, None) is None
