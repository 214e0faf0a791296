"""Statistics of pairs on made-up noise, and the calls that follow from pairs."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from effbench.frame import load_run
from effbench.gate import Gated, advice
from effbench.judgement import Excuse, Judgement, Rules, Verdict
from effbench.metrics import METRICS, Gate
from effbench.paired import ACCUSING, LOOKS, SCREENING
from effbench.pairs import chance, floor, holm, interval, log_ratio, spread
from effbench.record import Memory
from effbench.verdict import judge, suspects
from tests.synthetic import ENVIRONMENT, make_cell, measured, write_run

CELL = make_cell()


def test_a_burst_in_one_turn_leaves_the_ratio_alone() -> None:
    base = [1.0, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0]
    head = [1.1, 1.1, 9.0, 1.1, 1.1, 1.1, 1.1, 1.1, 5.0]  # the ninth has no partner
    assert log_ratio(base, head) == pytest.approx(math.log(1.1))


def test_a_drift_is_no_difference() -> None:
    """A B B A: what grows evenly with time hits both sides alike."""
    times = [1 + 0.1 * moment for moment in range(8)]
    base, head = ([times[i] for i in places] for places in ((0, 3, 4, 7), (1, 2, 5, 6)))
    assert abs(log_ratio(base, head)) < 0.01  # of a drift of 10 % a block


def test_the_interval_covers_as_often_as_it_says() -> None:
    random_ = np.random.default_rng(1)
    for pairs in (3, 8):
        values = random_.normal(math.log(1.1), 0.03, size=(200, pairs))
        found = [interval(list(row), 0.03) for row in values]
        hits = sum(low <= 1.1 <= high for low, high in found if low)
        assert hits >= 176, f"{hits} of 200 with {pairs} pairs"  # 95 % is 190; 176 is five deviations below


def test_one_pair_has_no_interval_and_equal_ones_a_point() -> None:
    assert interval([0.1], 0.2) is None
    assert interval([0.1] * 6, None) == pytest.approx((math.exp(0.1),) * 2)
    assert chance([0.1], 1.05) == 1
    assert (chance([0.1] * 3, 1.05), chance([0.01] * 3, 1.05)) == (0.0, 1.0)


def test_spread_is_that_of_a_usual_cell_and_needs_two_pairs() -> None:
    assert spread([[1.0], []]) is None
    random_ = np.random.default_rng(2)
    cells = [*random_.normal(0, 0.03, size=(60, 3)), *random_.normal(0, 0.03, size=(60, 11))]
    usual = spread(cells)
    assert usual == pytest.approx(0.03, rel=0.15)
    assert spread([*cells, [0.0, 0.9, -0.4]]) == pytest.approx(usual, rel=0.02), "one bad cell is one cell"


def test_holm_is_the_printed_procedure() -> None:
    """Chances of the example in Holm 1979's manner: the smallest times m, the next times m - 1, monotone."""
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.9})
    assert adjusted == pytest.approx({"a": 0.04, "c": 0.09, "b": 0.09, "d": 0.9})


def test_the_floor_grows_with_bias_and_spread() -> None:
    quiet, biased, noisy = ([0.0, 0.01] * 4, [0.05, 0.06] * 4, [-0.1, 0.11] * 4)
    assert floor(quiet, ACCUSING) < floor(biased, ACCUSING)
    assert floor(quiet, ACCUSING) < floor(noisy, ACCUSING)
    assert floor(quiet, 4 * ACCUSING) < floor(quiet, ACCUSING)


def side(name: str, levels: Sequence[float], cell=CELL, start: int = 0, **changes):
    return [
        measured(
            cell, [level] * 8, round=start + n, pair=start + n, side=name, process=f"{name}{n}", **changes
        )
        for n, level in enumerate(levels)
    ]


def verdict(folder: Path, factors: Sequence[float], rules: Rules | None = None, **head) -> Verdict:
    """Of pairs with these ratios; the pairs beyond the screening are those that decide."""
    base = side("base", [1.0] * len(factors))
    runs = [
        load_run(write_run(folder / name, [CELL], records))
        for name, records in (("base", base), ("head", side("head", factors, **head)))
    ]
    return judge(*runs, rules or Rules())


def time_of(found: Verdict) -> Judgement:
    return next(one for one in found.judgements if one.metric == "time_s")


def around(ratio: float, pairs: int, wobble: float = 0.005) -> list[float]:
    noise = random.Random(pairs)
    return [ratio * (1 + noise.uniform(-wobble, wobble)) for _ in range(pairs)]


@pytest.mark.parametrize(
    ("first", "later", "call"),
    [
        (1.0, None, "same"),
        (1.2, None, "inconclusive"),  # never called from the pairs that raised the suspicion
        (1.2, 1.0, "same"),
        (1.2, 1.1, "slower"),
        (1.2, 1.052, "inconclusive"),
        (0.9, None, "faster"),
        (0.2, None, "inconclusive"),
    ],
)
def test_suspicion_and_decision(tmp_path: Path, first: float, later: float | None, call: str) -> None:
    factors = around(first, SCREENING) + ([] if later is None else around(later, ACCUSING))
    found = verdict(tmp_path, factors)
    assert time_of(found).call == call
    assert (CELL.id in suspects(found)) == (call == "inconclusive")


@pytest.mark.parametrize(
    ("first", "later", "call"),
    [(1.04, 1.0, "same"), (1.12, 1.03, "inconclusive"), (1.2, 1.3, "inconclusive")],
)
def test_the_first_look_only_clears(tmp_path: Path, first: float, later: float, call: str) -> None:
    """By what raised the suspicion, too: a real slowdown may have four lucky pairs."""
    assert LOOKS[0] < ACCUSING
    found = verdict(tmp_path, around(first, SCREENING) + around(later, LOOKS[0]))
    assert time_of(found).call == call


def test_noise_that_hides_a_slowdown_is_not_same(tmp_path: Path) -> None:
    assert time_of(verdict(tmp_path, around(1.0, SCREENING + ACCUSING, wobble=0.5))).call == "inconclusive"


@pytest.mark.parametrize("threads", [1, 2])
def test_one_thread_is_advised_where_several_left_a_time_open(tmp_path: Path, threads: int) -> None:
    cell = make_cell(threads=threads)
    base, head = (
        load_run(write_run(tmp_path / name, [cell], side(name, factors, cell=cell)))
        for name, factors in (("base", [1.0] * 3), ("head", [1.2] * 3))
    )
    found = advice(Gated(base=base, head=head, verdict=judge(base, head)))
    assert ["--threads 1" in line for line in found] == [True] * (threads - 1)


def test_a_floor_above_the_threshold_is_said(tmp_path: Path) -> None:
    floors = {ENVIRONMENT: {CELL.id: 0.2}}
    equal = time_of(verdict(tmp_path / "a", around(1.0, SCREENING), Rules(floors=floors)))
    within = time_of(verdict(tmp_path / "b", around(1.12, SCREENING + ACCUSING), Rules(floors=floors)))
    beyond = time_of(verdict(tmp_path / "c", around(1.4, SCREENING + ACCUSING), Rules(floors=floors)))
    elsewhere = time_of(
        verdict(tmp_path / "d", around(1.0, SCREENING), Rules(floors={"other": {CELL.id: 0.2}}))
    )
    assert (equal.call, within.call, beyond.call) == ("inconclusive", "inconclusive", "slower")
    assert "not gateable" in equal.why
    assert elsewhere.call == "same"


def test_thresholds_of_a_mechanism_and_of_all_others(tmp_path: Path) -> None:
    factors = around(1.1, SCREENING + ACCUSING)
    wide = Gate(relative=0.2, interval=True)
    for number, (whose, call) in enumerate((("toy", "same"), ("*", "same"), ("other", "slower"))):
        rules = Rules(gates={(whose, "time_s"): wide})
        assert time_of(verdict(tmp_path / str(number), factors, rules)).call == call


def test_instructions_are_gated_where_a_record_has_them(tmp_path: Path) -> None:
    base = side("base", [1.0] * 3, instructions=1_000_000)
    for number, (count, call) in enumerate(((1_004_000, "same"), (1_006_000, "bigger"))):
        head = side("head", [1.0] * 3, instructions=count)
        runs = [
            load_run(write_run(tmp_path / f"{number}{name}", [CELL], records))
            for name, records in (("base", base), ("head", head))
        ]
        calls = {one.metric: one.call for one in judge(*runs).judgements}
        assert calls["instructions"] == call


def test_memory_in_doubt_is_the_least_that_was_seen(tmp_path: Path) -> None:
    more = Memory(peak_bytes=2**24, alloc_bytes=2**21 - 1000, live_bytes=2**20)
    less = Memory(peak_bytes=2**21, alloc_bytes=2**21 - 1000, live_bytes=2**20)
    base = side("base", [1.0] * 4)
    head = [*side("head", [1.0] * 3, memory=more), *side("head", [1.0], start=3, memory=less)]
    runs = [
        load_run(write_run(tmp_path / name, [CELL], records)) for name, records in (("b", base), ("h", head))
    ]
    calls = {one.metric: one.call for one in judge(*runs).judgements}
    assert (calls["peak_bytes"], calls["alloc_bytes"]) == ("same", "same")


@pytest.mark.parametrize(
    ("excuse", "overall"),
    [
        ({}, "fine"),
        ({"up_to": 1.3}, "fine"),
        ({"up_to": 1.1}, "worse"),
        ({"expires": "2026-01-01", "expired": True}, "worse"),
        ({"metric": "flops"}, "worse"),
        ({"mechanism": "other"}, "worse"),
    ],
)
def test_an_excuse_holds_for_what_it_names(tmp_path: Path, excuse: dict, overall: str) -> None:
    one = Excuse(**({"mechanism": "toy", "metric": "time_s", "reason": "more exact"} | excuse))
    found = verdict(tmp_path, around(1.2, SCREENING + ACCUSING), Rules(excuses=[one]))
    assert found.overall == overall
    assert ("more exact" in time_of(found).excused) == (overall == "fine")
    assert ("accepted until 2026-01-01 only" in time_of(found).why) == bool(excuse.get("expired"))


def test_means_are_geometric_and_say_of_how_many(tmp_path: Path) -> None:
    means = verdict(tmp_path, around(2.0, SCREENING + ACCUSING, wobble=0)).mean_ratios()
    assert means["time_s"] == (pytest.approx(2.0), 1)
    assert means["flops"] == (pytest.approx(1.0), 1)
    assert METRICS["instructions"].gate == Gate(relative=0.005)
