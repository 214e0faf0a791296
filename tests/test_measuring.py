"""The scripts behind docs/measuring.md: each on a tiny case, and the page against its tables."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from effbench import perf
from effbench.cell import Budget, Cell
from effbench.environment import default_memory_limit
from effbench.frame import Run, load_run
from effbench.meters.memory import allocated
from effbench.session import Request, measure
from effbench.suite import make_suite

SCRIPTS = Path(__file__).parents[1] / "docs" / "measuring"


@pytest.fixture(scope="module", autouse=True)
def script() -> Iterator[None]:
    """The scripts import each other by their plain names."""
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


def load(name: str) -> ModuleType:
    return importlib.import_module(name)


def tiny(out: Path) -> Run:
    """One small run for three scripts: a known peak and attention."""
    asked = {
        "mechanisms": [f"{SCRIPTS / 'memory.py'}:KNOWN", "mha"],
        # One thread waits for no other: beside load two may be so slow that one visit must do.
        "axes": {"seq": 256, "dim": 64, "threads": 1},
        "options": {"known-peak": {"operator": ["attention"]}},
    }
    budget = Budget(memory_limit=default_memory_limit(), min_time=0.01)
    measure(Request(name="tiny", suite=make_suite(asked, "tiny"), out=out, budget=budget))
    return load_run(out)


@pytest.fixture(scope="module")
def heard_and_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, object]], Run]:
    """The run, and every question that it asked."""
    with load("overhead").listening() as heard:
        run = tiny(tmp_path_factory.mktemp("measuring"))
    return heard, run


def test_memory_is_held_against_its_truth(
    heard_and_run: tuple[list[dict[str, object]], Run], tmp_path: Path
) -> None:
    def outside(run: Run) -> list[str]:
        (row,) = load("memory").rows(run)
        assert row["truth_bytes"] == (2 * 256 * 256 + 256 * 64) * 4
        assert "torch 2." in row["machine"]
        bounds = load("make_page").BOUNDS.items()
        off = {column: abs(row[column] - row["truth_bytes"]) for column, _ in bounds}
        return [
            column for column, (share, extra) in bounds if off[column] > share * row["truth_bytes"] + extra
        ]

    # Beside other tests a resident peak has some pages too many now and then, not twice.
    assert not outside(heard_and_run[1]) or not outside(tiny(tmp_path))


def test_the_truths_of_the_operators() -> None:
    import torch

    x = torch.randn(1, 64, 256)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for which the tile of fused attention is stated
    allocated(lambda: x.logsumexp(-1))  # what a process takes once
    found = {
        name: (allocated(lambda operator=operator: operator(x)), truth(1, 64, 256))
        for name, (operator, truth, _) in load("memory").OPERATORS.items()
    }
    torch.set_num_threads(threads)
    for name, (asked, expected) in found.items():
        assert asked == pytest.approx(expected, abs=16 * 1024), name


def test_flops_of_attention_by_three_ways(heard_and_run: tuple[list[dict[str, object]], Run]) -> None:
    row = next(row for row in load("flops").rows(heard_and_run[1]) if row["mechanism"] == "mha")
    own = 8 * 256 * 64**2 + 4 * 256**2 * 64
    assert row["own_matmul"] == own
    assert row["counted_matmul"] == pytest.approx(own, rel=0.01)
    assert row["formula_matmul"] == pytest.approx(own, rel=0.01)
    assert row["uncounted"] == ""


def test_what_is_retired_is_asked_of_a_counter(heard_and_run: tuple[list[dict[str, object]], Run]) -> None:
    """Counted by the kernel instead: few processors let their own operations be counted."""
    flops = load("flops")
    cells = [Cell(**e["cell"]) for e in heard_and_run[1].info["plan"] if e["cell"]["mechanism"] == "mha"]
    found = dict(flops.retired(cells, {perf.PAGE_FAULTS: 1, perf.Event(1, 5, "minor faults"): 1}))
    assert list(found) == [cells[0].id]
    assert found[cells[0].id] >= 0
    assert flops.why_not_retired() is None or flops.why_not_retired()


def test_every_question_of_a_cell_is_heard(heard_and_run: tuple[list[dict[str, object]], Run]) -> None:
    rows = [row for row in heard_and_run[0] if row["mechanism"] == "mha"]
    asked = [
        row["question"] for row in rows if row["question"] != "instructions"
    ]  # where they can be counted
    once = ["check", "counts", "memory", "time"]  # and the time again, unless other tests slowed every pass
    assert sorted(asked) in (once, [*once, "time"])
    for row in rows:
        assert 0 < row["parent_s"] < row["seconds"]
        assert (row["passes_s"] > 0) == (row["question"] == "time")
        assert row["passes_s"] < row["seconds"]


def test_faults_are_rows_and_leave_nothing() -> None:
    faults, faulty = load("faults"), load("faulty")
    quick = (faulty.raises, faulty.aborts, faulty.forks_a_child_that_hangs)
    cases = [next(c for c in range(200) if faulty.drawn(c) == (fault, "time")) for fault in quick]
    rows = faults.injected(cases)
    assert {row["fault"]: row["status"] for row in rows} == {f.__name__: faulty.STATUS[f] for f in quick}
    assert {row["left_behind"] for row in rows} == {0}
    assert all(row["parent_bytes"] > 0 for row in rows)


def test_coverage_goes_on_where_it_stopped(tmp_path: Path) -> None:
    coverage, path = load("coverage"), tmp_path / "coverage.csv"
    cells, patience = {"small": {"seq": 16, "dim": 64}}, {"quiet": 0.0, "loaded": 0.0}
    coverage.measured(cells, path, runs=1, patience=patience, for_s=0.0)
    (first,) = pd.read_csv(path).to_dict("records")
    assert first["condition"] in ("quiet", "disturbed")  # by what else runs beside the tests
    coverage.measured(cells, path, runs=1, patience=patience)
    table = pd.read_csv(path)
    assert table.iloc[0]["time_s"] == first["time_s"]
    again = [] if first["condition"] == "quiet" else list(table["condition"])[1:2]
    assert list(table["condition"]) == [first["condition"], *again, "loaded"]
    known = table.dropna(subset=["low_s"])  # a lone process that other work slowed has no interval
    assert (known["low_s"] <= known["time_s"]).all()
    assert (known["time_s"] <= known["high_s"]).all()


def test_the_page_says_what_the_tables_say(tmp_path: Path) -> None:
    page = tmp_path / "measuring.md"
    load("make_page").main(page)
    assert page.read_text() == (SCRIPTS.parent / "measuring.md").read_text()


def test_a_missed_goal_is_said() -> None:
    table = pd.DataFrame(
        [
            {"operator": "exp", "batch": 1, "seq": 8, "dim": 8, "holds": "the result", "truth_bytes": 1 << 30}
            | {"alloc_bytes": 1 << 30, "peak_bytes": 1 << 29, "predicted_bytes": 1 << 30, "machine": "M"}
        ]
    )
    text = "\n".join(load("make_page").memory(table))
    assert "-536,870,912 **missed**" in text
    assert "1 of 2 values within their bounds. On M." in text
