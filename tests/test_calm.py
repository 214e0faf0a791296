"""Which samples were taken while the cores were at hand, and which of a cell's have a say."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effbench.against import ratio_of
from effbench.calm import SLOWER, Pace, best, calm_samples, hindrance, is_calm, steady
from effbench.cell import Cell
from effbench.frame import Run, best_pace, build_run
from effbench.groups import flags_of, groups_of, hindered, slowed, undecided
from effbench.paces import Paces, recall, remember
from effbench.plausibility import sound
from effbench.record import Record, Time
from effbench.reports._methods import methods
from effbench.stats import ratio_interval
from effbench.verdict import judge
from tests.synthetic import describe, make_cell, make_info, measured

CELL = make_cell()
BEST = {2: (1e-5, 2e-6)}
QUICK, SLOW = (1.05e-5, 2e-6), (1.4e-5, 2e-6)


def visit(samples: list[float], paces: list[Pace] | None, **changes: Any) -> Record:
    """A visit to the cell whose samples were taken while the cores worked so fast."""
    return measured(CELL, [], time=Time(samples_s=samples, pace_s=paces), **changes)


@given(st.lists(st.tuples(*[st.floats(1e-6, 1e-3)] * 2), min_size=1))
def test_the_best_is_reached_by_a_tenth_and_not_luck(readings: list[tuple[float, float]]) -> None:
    found = best(readings)
    assert found is not None
    for least, work in zip(found, zip(*readings, strict=True), strict=True):
        assert min(work) <= least <= max(work)
        assert sum(reading <= least for reading in work) >= len(work) / 10


def test_without_readings_there_is_no_best() -> None:
    assert best([]) is None
    assert is_calm((1.0, 1.0), None, None)


@pytest.mark.parametrize(
    ("pace", "waited", "calm"),
    [
        ((1.0, 1.0), 0.0, True),
        ((SLOWER, SLOWER), None, True),
        ((SLOWER + 0.01, 1.0), 0.0, False),
        ((1.0, SLOWER + 0.01), 0.0, False),
        ((1.0, 1.0), 0.03, False),
    ],
)
def test_a_slow_core_a_far_one_and_a_wait_for_one_disturb(
    pace: Pace, waited: float | None, calm: bool
) -> None:
    assert is_calm(pace, waited, (1.0, 1.0)) is calm


def test_where_nothing_was_noted_all_samples_count() -> None:
    assert calm_samples([1.0, 2.0], None, None, BEST[2]) == [1.0, 2.0]
    assert calm_samples([1.0, 2.0], [QUICK, QUICK], [0.0, 0.5], BEST[2]) == [1.0]


def test_next_to_a_sample_on_slow_cores_none_is_taken_for_calm() -> None:
    """A neighbour that came in the midst of one was not there yet when the cores were looked at."""
    samples, paces = [1.0, 1.1, 9.0, 1.2, 1.3, 1.4], [QUICK, QUICK, SLOW, QUICK, QUICK, QUICK]
    assert calm_samples(samples, paces, None, BEST[2]) == [1.0, 1.3, 1.4]
    assert calm_samples(samples, paces, [0.0, 0.0, 0.0, 0.0, 0.9, 0.0], BEST[2]) == [1.0, 1.4]


def test_a_series_that_drifts_is_not_steady() -> None:
    assert steady([1.0] * 9)
    assert not steady([1.0] * 3 + [1.1] * 3 + [1.2] * 3)
    assert steady([1.0, 2.0])  # too few to tell


def test_where_hardly_any_sample_is_calm_none_is() -> None:
    """Beside a burning core one block in ten looks calm, and yet takes a quarter longer than without it."""
    paces = [QUICK] * 10
    waits = [0.0, 0.0] + [0.5] * 8
    assert calm_samples([1.0] * 2 + [9.0] * 8, paces, waits, BEST[2]) == [1.0, 1.0]
    assert calm_samples([1.0] * 2 + [9.0] * 9, [*paces, QUICK], [*waits, 0.5], BEST[2]) == []


def test_a_process_speaks_by_its_calm_samples() -> None:
    first = visit([1.0, 1.1, 1.2, 1.5], [QUICK, QUICK, QUICK, SLOW], process="a")
    second = visit([1.6, 1.7], [SLOW, SLOW], process="b", round=1)
    assert groups_of([first, second], BEST) == [[1.0, 1.1]]
    assert slowed([first, second], BEST) == []
    assert slowed([first, second], BEST, wanted=2) == [1]
    again = visit([1.05, 1.06], [QUICK, QUICK], process="b", round=2)
    assert groups_of([first, second, again], BEST) == [[1.0, 1.1], [1.05, 1.06]]
    assert slowed([first, second, again], BEST, wanted=2) == []


def test_alike_samples_without_calm_all_speak_and_the_row_says_so() -> None:
    visits = [visit([1.5, 1.6], [SLOW, SLOW]), visit([1.7], [SLOW], round=1, process="b")]
    assert groups_of(visits, BEST) == [[1.5, 1.6], [1.7]]
    assert slowed(visits, BEST) == [0, 1]
    info = make_info([CELL], pace={make_info([CELL])["environment"]: {"2": BEST[2]}})
    (row,) = build_run(Path(), info, visits).frame.to_dict("records")
    assert "slowed" in row["flags"]
    assert row["samples"] == 3


def test_without_any_calm_sample_the_least_hindered_speak() -> None:
    slow = visit([1.5, 1.6, 40.0], [SLOW, SLOW, (4e-3, 2e-6)], process="a")
    waited = Time(samples_s=[30.0, 1.7], pace_s=[SLOW, SLOW], waited=[0.9, 0.05])
    waiting = measured(CELL, [], time=waited, process="b", round=1)
    throughout = visit([50.0, 60.0], [(3e-3, 2e-6), (4e-3, 2e-6)], process="c", round=2)
    assert groups_of([slow, waiting, throughout], BEST) == [[1.5, 1.6], [1.7]]
    assert groups_of([throughout], BEST) == [[50.0, 60.0]]
    assert slowed([slow, waiting, throughout], BEST) == [0, 1, 2]


def test_the_interval_of_a_slowed_cell_reaches_down_to_what_it_may_be_without() -> None:
    info = make_info([CELL], pace={make_info([CELL])["environment"]: {"2": BEST[2]}})
    cells = {}
    for name, pace in (("calm", QUICK), ("slowed", (1e-5, 4e-6))):
        visits = [visit([1.0, 1.1], [pace] * 2, process=p, round=r) for r, p in enumerate("ab")]
        (cells[name],) = build_run(Path(), info, visits).frame.to_dict("records")
        assert hindered(visits, BEST) == pytest.approx(1.0 if name == "calm" else 2 * SLOWER)
    assert cells["slowed"]["time_s"] == cells["calm"]["time_s"]
    assert cells["slowed"]["time_high_s"] == cells["calm"]["time_high_s"]
    assert cells["slowed"]["time_low_s"] == pytest.approx(cells["calm"]["time_low_s"] / (2 * SLOWER))


def paced_run(*timed: tuple[Cell, float, float]) -> Run:
    """(cell, so many times its best the fixed work took, seconds of a pass), each cell by two processes."""
    info = make_info([cell for cell, _, _ in timed], pace={make_info([CELL])["environment"]: {"2": BEST[2]}})
    visits = [
        measured(
            cell, [], time=Time(samples_s=[time, time], pace_s=[(pace * 1e-5, 2e-6)] * 2), process=p, round=r
        )
        for cell, pace, seconds in timed
        for r, p in enumerate("ab")
        for time in [seconds * (1 + 0.01 * r)]
    ]
    return build_run(Path(), info, visits)


def test_a_comparison_allows_for_one_of_the_two_having_been_hindered_alone() -> None:
    for base_pace, head_pace in itertools.product((1.0, 2.0), repeat=2):
        run = paced_run((make_cell("mha-sdpa"), base_pace, 1.0), (CELL, head_pace, 2.0))
        base, head = run.frame.to_dict("records")
        assert sound(base, "time_s")
        assert sound(head, "time_s")
        samples = [run.samples(row["id"]) for row in (base, head)]
        low, high = ratio_interval(*samples, *map(run.spread.of, samples)) or (0.0, 0.0)
        assert low < 2.0 < high
        longer = {1.0: 1.0, 2.0: 2 * SLOWER}
        expected = low / longer[head_pace], high * longer[base_pace]
        assert ratio_of(run, head, base, "time_s") == pytest.approx(expected)


def test_a_verdict_on_two_runs_allows_for_slowed_cores() -> None:
    found = {}
    for pace in (1.0, 2.0):
        runs = paced_run((CELL, 1.0, 1.0)), paced_run((CELL, pace, 1.5))
        (found[pace],) = [one for one in judge(*runs).judgements if one.metric == "time_s"]
    assert found[1.0].call == "slower"
    assert found[2.0].call == "inconclusive"
    assert found[2.0].why.endswith("the cores were below their best")


def test_growth_that_slowed_cores_may_have_bent_is_not_held_against_a_mechanism() -> None:
    about = {"toy": describe("toy") | {"complexity": {"time": "n d^2", "memory": ""}}}
    for pace, flags in ((1.0, "off-declared"), (1.5, "slowed")):
        timed = [(make_cell(seq=n), pace, 1e-2 * (n / 1024) ** 1.6) for n in (1024, 2048, 4096, 8192)]
        run = paced_run(*timed)
        run = build_run(Path(), run.info | {"mechanisms": about}, run.records)
        assert flags in run.frame["flags"].iloc[-1]
        assert ("off-declared" in run.frame["flags"].iloc[-1]) is (pace == 1.0)


def test_runs_that_timed_one_fixed_work_are_still_read() -> None:
    time = {"samples_s": [1.0, 1.1, 1.5, 1.6], "pace_s": [1e-5, 1e-5, 1e-5, None]}
    visits = [Record.model_validate_json(measured(CELL, [], time=time).model_dump_json())]
    info = make_info([CELL], pace={make_info([CELL])["environment"]: {"2": 1e-5}})
    (row,) = build_run(Path(), info, visits).frame.to_dict("records")
    assert row["samples"] == 4
    slow = Record(**visits[0].model_dump() | {"time": time | {"pace_s": [2e-5] * 4}})
    assert slowed([slow], best_pace(info)) == [0]


def test_hindrance_ranks_by_what_the_machine_did() -> None:
    assert (
        hindrance(None, None, (1.0,))
        == hindrance((0.9,), 0.0, (1.0,))
        == hindrance((5.0,), None, None)
        == 1.0
    )
    assert hindrance((1.5, 1.2), 0.25, (1.0, 1.0)) == hindrance((1.2, 1.5), 0.25, (1.0, 1.0)) == 1.75


def test_one_calm_process_alone_borrows_the_spread_of_all_samples() -> None:
    info = make_info([CELL], pace={make_info([CELL])["environment"]: {"2": BEST[2]}})
    visits = [visit([1.0, 1.1], [QUICK] * 2), visit([1.5, 1.6], [SLOW] * 2, process="b", round=1)]
    (row,) = build_run(Path(), info, visits).frame.to_dict("records")
    assert row["time_s"] == pytest.approx(1.05)
    assert row["time_low_s"] < 1.0
    assert row["time_high_s"] > 1.1
    assert "borrowed" in row["flags"]


def test_a_report_says_how_many_samples_have_no_say() -> None:
    info = make_info([CELL], pace={make_info([CELL])["environment"]: {"2": BEST[2]}})
    run = build_run(Path(), info, [visit([1.0, 1.1, 1.2, 1.5], [QUICK, QUICK, QUICK, SLOW])])
    assert "Of 4 samples 2 have no say: the cores worked below their best" in methods(run)
    calm = build_run(Path(), info, [visit([1.0, 1.1], [QUICK, QUICK])])
    assert "below their best" not in methods(calm)


def test_the_single_pass_of_a_costly_cell_may_be_calm() -> None:
    assert groups_of([visit([9.0], [QUICK])], BEST) == [[9.0]]
    assert not slowed([visit([9.0], [QUICK])], BEST)
    assert slowed([visit([9.0, 9.1], [QUICK, SLOW])], BEST)  # one of two is not enough


def test_doubts_about_samples_without_a_say_are_dropped() -> None:
    calm = visit([1.0] * 9, [QUICK] * 9, flags=["unsteady"])
    beside = visit([1.5] * 9, [SLOW] * 9, flags=["loaded", "page-faults"], process="b", round=1)
    assert flags_of([calm, beside], BEST) == ["page-faults"]
    assert flags_of([beside], BEST) == ["loaded", "page-faults"]
    drifting = visit([1.0] * 3 + [1.1] * 3 + [1.2] * 3, [QUICK] * 9)
    assert flags_of([drifting], BEST) == ["unsteady"]
    assert undecided([drifting], BEST) == 1


def test_a_cell_is_unsteady_if_half_of_what_speaks_for_it_is() -> None:
    drifting = visit([1.0] * 3 + [1.1] * 3 + [1.2] * 3, [QUICK] * 9)
    others = [visit([1.1] * 9, [QUICK] * 9, process=p, round=r) for r, p in ((1, "b"), (2, "c"))]
    assert flags_of([drifting, others[0]], BEST) == ["unsteady"]
    assert flags_of([drifting, *others], BEST) == []
    slow = [
        visit([1.0] * 3 + [1.1] * 3 + [9.0] * 3, [SLOW] * 6 + [(9e-4, 2e-6)] * 3, process=p) for p in "ab"
    ]
    assert flags_of(slow, BEST) == []  # the samples that the cores hindered least are steady


def test_processes_that_part_are_undecided() -> None:
    visits = [visit([1.0] * 5, [QUICK] * 5), visit([1.02] * 5, [QUICK] * 5, process="b", round=1)]
    assert undecided(visits, BEST) == 0
    assert undecided([*visits, visit([1.04] * 5, [QUICK] * 5, process="c", round=2)], BEST) == 3
    assert undecided([*visits, visit([9.0] * 5, [SLOW] * 5, process="c", round=2)], BEST) == 0


def test_paces_are_kept_from_run_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    paces = Paces()
    paces.learn(2, [BEST[2]] * 20)
    paces.learn(1, [(1e-5,)] * 3)  # too few to be worth it
    remember("here", paces)
    again = recall("here")
    assert again.all() == BEST
    again.learn(2, [(2e-5, 1e-6)] * 20)
    assert again.best(2) == (1e-5, 1e-6)  # the run alone would not know that it was slow
    assert again.best(8) is None
    assert recall("elsewhere").all() == {}


@pytest.mark.parametrize(
    "content", ["", "[]", '{"here": 1}', '{"here": {"2": [1e-5]}}', '{"here": {"2": ["x"]}}']
)
def test_a_damaged_memory_of_paces_is_none(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "effbench" / "paces.json"
    file.parent.mkdir()
    file.write_text(content)
    assert recall("here").all() == {}
    paces = Paces()
    paces.learn(2, [BEST[2]] * 20)
    remember("here", paces)
    assert json.loads(file.read_text()) == {"here": {"2": [list(BEST[2])]}}
