"""Two runs against each other: every call, and what follows from all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from effbench.announce import table
from effbench.errors import BadInput
from effbench.frame import load_run
from effbench.judgement import Rules, Verdict
from effbench.record import FlopsBlock, Memory
from effbench.verdict import judge
from tests.synthetic import ENVIRONMENT, failed, make_cell, measured, write_example, write_run

CELL, OTHER = make_cell(), make_cell(seq=2048)


def timed(factor: float = 1.0, processes: int = 5, cell=CELL, wobble: float = 0.004, **changes):
    """Records of several processes, a little apart from one another."""
    levels = [factor * (1 + wobble * (i - processes // 2)) for i in range(processes)]
    return [
        measured(cell, [level, level * 1.001, level * 0.999], round=i, process=f"p{i}", **changes)
        for i, level in enumerate(levels)
    ]


def compared(folder: Path, base, head, base_cells=(CELL,), head_cells=(CELL,), **changes) -> Verdict:
    runs = [
        load_run(write_run(folder / "base", base_cells, base)),
        load_run(write_run(folder / "head", head_cells, head, **changes)),
    ]
    return judge(*runs)


def calls(verdict: Verdict) -> dict[str, str]:
    return {judgement.metric: judgement.call for judgement in verdict.judgements}


@pytest.mark.parametrize(
    ("factor", "wobble", "call", "answer"),
    [
        (1.0, 0.004, "same", "fine"),
        (1.03, 0.004, "same", "fine"),
        (1.10, 0.004, "slower", "worse"),
        (0.90, 0.004, "faster", "fine"),
        (0.20, 0.004, "inconclusive", "inconclusive"),
        (1.08, 0.05, "inconclusive", "inconclusive"),
        (1.00, 0.10, "inconclusive", "inconclusive"),
    ],
)
def test_times(tmp_path: Path, factor: float, wobble: float, call: str, answer: str) -> None:
    verdict = compared(tmp_path, timed(wobble=wobble), timed(factor, wobble=wobble))
    assert (calls(verdict)["time_s"], verdict.overall) == (call, answer)


@pytest.mark.parametrize(
    ("state", "call", "answer"),
    [
        (2048, "same", "fine"),
        (2052, "bigger", "worse"),
        (1024, "smaller", "fine"),
        (None, "inconclusive", "inconclusive"),
    ],
)
def test_the_state_of_decoding(tmp_path: Path, state: int | None, call: str, answer: str) -> None:
    cell = make_cell(mode="decode", causal=True)
    base, head = (
        timed(cell=cell, memory=Memory(alloc_bytes=100, peak_bytes=100, state_bytes=kept))
        for kept in (2048, state)
    )
    verdict = compared(tmp_path, base, head, (cell,), (cell,))
    assert (calls(verdict)["state_bytes"], verdict.overall) == (call, answer)


@pytest.mark.parametrize(
    ("alloc", "peak", "expected"),
    [
        (1.0, 1.0, ("same", "same")),
        (1.0009, 1.02, ("same", "same")),
        (1.05, 1.02, ("bigger", "same")),
        (1.0, 1.05, ("same", "bigger")),
        (0.9, 0.9, ("smaller", "smaller")),
        (0.2, 1.0, ("inconclusive", "same")),
    ],
)
def test_memory(tmp_path: Path, alloc: float, peak: float, expected: tuple[str, str]) -> None:
    def used(asked: float, resident: float) -> Memory:
        return Memory(alloc_bytes=int(asked * 1e8), peak_bytes=int(resident * 1e8), live_bytes=10)

    found = calls(compared(tmp_path, timed(memory=used(1, 1)), timed(memory=used(alloc, peak))))
    assert (found["alloc_bytes"], found["peak_bytes"]) == expected


def test_small_memory_has_an_absolute_tolerance(tmp_path: Path) -> None:
    small, more = (
        Memory(alloc_bytes=20_000 + extra, peak_bytes=20_000 + 30 * extra) for extra in (0, 16_000)
    )
    found = calls(compared(tmp_path, timed(memory=small), timed(memory=more)))
    assert (found["alloc_bytes"], found["peak_bytes"]) == ("same", "same")


def test_flops_are_exact(tmp_path: Path) -> None:
    one, two = (FlopsBlock(counted={"matmul": 1e9 + extra}) for extra in (0, 1e5))
    assert calls(compared(tmp_path, timed(flops=one), timed(flops=two)))["flops"] == "bigger"


@pytest.mark.parametrize(
    ("base", "head", "call", "answer"),
    [
        ("ok", "error", "broke", "worse"),
        ("ok", "oom", "broke", "worse"),
        ("ok", "missing", "inconclusive", "inconclusive"),
        ("error", "ok", "fixed", "fine"),
        ("missing", "ok", "new", "fine"),
        ("oom", "oom", "same", "fine"),
        ("oom", "oom-predicted", "same", "fine"),
        ("oom", "incorrect", "inconclusive", "inconclusive"),
        ("missing", "missing", "inconclusive", "inconclusive"),
    ],
)
def test_a_row_without_numbers_is_never_taken_for_green(
    tmp_path: Path, base: str, head: str, call: str, answer: str
) -> None:
    def side(status: str):
        return timed() if status == "ok" else [] if status == "missing" else [failed(CELL, status, "why")]

    verdict = compared(tmp_path, side(base), side(head))
    assert calls(verdict) == {"status": call}
    assert verdict.overall == answer


def test_a_budget_says_nothing_and_a_consequence_does(tmp_path: Path) -> None:
    left_out = compared(tmp_path / "a", timed(), [failed(CELL, "skipped", "budget")])
    consequence = compared(tmp_path / "b", timed(), [failed(CELL, "skipped", "larger", caused_by=OTHER.id)])
    assert (calls(left_out), calls(consequence)) == ({"status": "inconclusive"}, {"status": "broke"})


def test_a_cell_that_head_dropped_is_gone_and_one_it_added_is_new(tmp_path: Path) -> None:
    gone = compared(tmp_path / "a", timed(), timed(cell=OTHER), head_cells=(OTHER,))
    assert [(judgement.id, judgement.call) for judgement in gone.judgements] == [
        (CELL.id, "gone"),
        (OTHER.id, "new"),
    ]
    assert gone.overall == "worse"
    new = compared(tmp_path / "b", [], timed(cell=OTHER), base_cells=(), head_cells=(OTHER,))
    assert new.overall == "fine"
    assert "Nothing was compared" in table(new)


def test_only_time_is_incomparable_between_environments(tmp_path: Path) -> None:
    verdict = compared(
        tmp_path,
        timed(),
        timed(2.0, environment="elsewhere"),
        environment="elsewhere",
        environments={"elsewhere": {}, ENVIRONMENT: {}},
    )
    assert calls(verdict) == {
        "time_s": "incomparable",
        "alloc_bytes": "same",
        "peak_bytes": "same",
        "flops": "same",
    }
    assert verdict.overall == "fine"


def test_times_of_another_environment_for_advice_never_count(tmp_path: Path) -> None:
    base = load_run(write_run(tmp_path / "base", [CELL], timed()))
    other = {"environment": "elsewhere", "environments": {"elsewhere": {}}}
    slow = timed(2.0, environment="elsewhere")
    head = load_run(write_run(tmp_path / "head", [CELL], slow, **other))
    verdict = judge(base, head, Rules(advisory=True))
    one = next(judgement for judgement in verdict.judgements if judgement.metric == "time_s")
    assert (one.call, verdict.overall) == ("slower", "fine")
    assert "advisory only" in one.excused


def test_a_number_that_one_side_lacks(tmp_path: Path) -> None:
    lost = calls(compared(tmp_path / "a", timed(), timed(flops=None)))
    won = calls(compared(tmp_path / "b", timed(flops=None), timed()))
    assert (lost["flops"], won["flops"]) == ("inconclusive", "new")


def test_one_process_a_side_proves_nothing(tmp_path: Path) -> None:
    verdict = compared(tmp_path, timed(processes=1), timed(2.0, processes=1))
    assert calls(verdict)["time_s"] == "inconclusive"
    assert "one process" in table(verdict, explain=True)


def test_nothing_on_either_side_is_not_fine(tmp_path: Path) -> None:
    verdict = compared(tmp_path, [], [], base_cells=(), head_cells=())
    assert verdict.overall == "inconclusive"
    assert table(verdict) == "inconclusive: no row on either side. Nothing was compared."


def test_the_text_shows_what_changed_and_explains_on_demand(tmp_path: Path) -> None:
    verdict = compared(tmp_path, timed(), timed(1.5))
    short, long = table(verdict), table(verdict, explain=True)
    assert "toy seq=1K dim=256  Time      slower" in short
    assert "1.500 [1.4" in short
    assert "FLOPs  " not in short
    assert "FLOPs  " in long
    assert "Time: geometric mean of head / base 1.500 over 1 cells" in short
    assert "15 passes in 5 processes and 15 passes in 5 processes" in long
    assert short.endswith("worse: 3 same, 1 slower.")


def test_a_run_against_itself_has_nothing_worse(tmp_path: Path) -> None:
    run = load_run(write_example(tmp_path))
    counts = judge(run, run).counts
    assert set(counts) == {"same", "inconclusive"}
    assert counts["inconclusive"] == 2  # one left out by the budget, one not measured yet


def test_a_folder_without_a_run_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput):
        load_run(tmp_path)
