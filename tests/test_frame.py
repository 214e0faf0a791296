"""A run as a table: exactly the documented columns, one row for every cell of the plan, visits joined."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from effbench.errors import BadInput
from effbench.frame import load_run, write_table
from effbench.plausibility import sound
from effbench.record import STATUSES, FlopsBlock
from tests.synthetic import failed, make_cell, measured, sweep, write_example, write_run

#: The contract of table.csv, to the letter.
DOCUMENTED = """
mechanism options level mode causal batch seq dim heads dtype device threads compile gemm precision allocator
stack status reason time_s time_low_s time_high_s samples tokens_per_s peak_bytes alloc_bytes live_bytes flops
transcendentals instructions bytes_moved flops_per_s ceiling_fraction params flags environment id
""".split()  # noqa: SIM905, a list of 37 strings is harder to compare with the contract

CELL = make_cell(batch=2)


def only_row(folder: Path, *records, cell=CELL, **changes):
    return load_run(write_run(folder, [cell], records, **changes)).frame.iloc[0]


def test_the_columns_are_the_documented_ones(tmp_path: Path) -> None:
    run = load_run(write_example(tmp_path))
    assert list(run.frame.columns) == DOCUMENTED
    write_table(run, tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        assert next(csv.reader(file)) == DOCUMENTED


def test_every_cell_of_the_plan_has_one_row_and_numbers_only_where_ok(tmp_path: Path) -> None:
    frame = load_run(write_example(tmp_path)).frame
    assert len(frame) == 110
    assert frame["id"].is_unique
    assert set(frame["status"]) == set(STATUSES)
    numbers = frame.loc[:, "time_s":"params"].drop(columns="instructions")
    assert numbers[frame["status"] != "ok"].isna().all(axis=None)
    assert (
        frame.loc[frame["status"] == "ok", ["time_s", "samples", "peak_bytes", "flops"]]
        .notna()
        .all(axis=None)
    )


def test_the_value_is_the_median_over_processes(tmp_path: Path) -> None:
    groups = [[1.0, 1.0, 5.0], [2.0, 2.0], [9.0]]
    records = [measured(CELL, group, round=i, process=f"p{i}") for i, group in enumerate(groups)]
    row = only_row(tmp_path, *records)
    assert (row["time_s"], row["samples"]) == (2.0, 6)
    assert row["time_low_s"] <= 2.0 <= row["time_high_s"]
    assert row["tokens_per_s"] == 2 * 1024 / 2.0


def test_visits_of_one_process_are_one_replicate(tmp_path: Path) -> None:
    records = [measured(CELL, [value], round=i, process="same") for i, value in enumerate((1.0, 2.0, 9.0))]
    row = only_row(tmp_path, *records)
    assert row["time_s"] == 2.0
    assert np.isnan(row["time_low_s"])


def test_a_decode_step_makes_one_token_a_sequence(tmp_path: Path) -> None:
    cell = make_cell(batch=4, mode="decode")
    assert only_row(tmp_path, measured(cell, [0.5]), cell=cell)["tokens_per_s"] == 8.0


def test_the_last_record_of_a_round_wins(tmp_path: Path) -> None:
    assert only_row(tmp_path, measured(CELL, [1.0]), measured(CELL, [2.0]))["time_s"] == 2.0


@pytest.mark.parametrize(
    "stale", [{"source": "toy@sha256:old"}, {"environment": "elsewhere"}, {"id": "000000000000"}]
)
def test_records_of_another_source_environment_or_plan_do_not_count(tmp_path: Path, stale: dict) -> None:
    row = only_row(tmp_path, measured(CELL, [1.0], **stale))
    assert (row["status"], row["reason"]) == ("skipped", "not measured yet")


def test_a_later_round_alone_is_no_answer(tmp_path: Path) -> None:
    assert only_row(tmp_path, measured(CELL, [1.0], round=1))["reason"] == "not measured yet"


def test_a_later_visit_that_failed_is_flagged(tmp_path: Path) -> None:
    bad = failed(CELL, "crashed", "signal 11", round=1)
    row = only_row(tmp_path, measured(CELL, [1.0], flags=["unverified"]), bad)
    assert (row["status"], row["flags"], row["time_s"]) == ("ok", "unverified;visit-failed", 1.0)


def test_one_process_borrows_the_spread_of_the_run(tmp_path: Path) -> None:
    other = make_cell(seq=2048)
    records = [measured(other, [1.0 + 0.05 * i], round=i, process=f"p{i}") for i in range(3)]
    frame = load_run(write_run(tmp_path, [CELL, other], [measured(CELL, [1.0]), *records])).frame
    assert list(frame["flags"]) == ["borrowed", ""]
    assert frame["time_low_s"][0] < 1.0 < frame["time_high_s"][0]


def test_without_any_replication_the_interval_is_empty(tmp_path: Path) -> None:
    row = only_row(tmp_path, measured(CELL, [1.0, 1.1, 1.2]))
    assert (row["flags"], row["time_s"]) == ("", 1.1)
    assert np.isnan(row["time_high_s"])


def test_flops_are_those_counted_and_declared_ones_else(tmp_path: Path) -> None:
    counted = {"matmul": 4.0, "elementwise": 2.0, "transcendental": 8.0, "fft": 1.0}
    row = only_row(
        tmp_path / "a", measured(CELL, [0.5], flops=FlopsBlock(counted=counted, formula={"matmul": 99.0}))
    )
    assert (row["flops"], row["transcendentals"], row["flops_per_s"]) == (7.0, 8.0, 14.0)
    row = only_row(tmp_path / "b", measured(CELL, [0.5], flops=FlopsBlock(formula={"matmul": 99.0})))
    assert (row["flops"], row["transcendentals"]) == (99.0, 0.0)


@pytest.mark.parametrize(
    ("formula", "needed", "differs"),
    [
        (100.0, None, False),
        (100.9, None, False),
        (98.0, None, True),
        (102.0, None, True),
        (60.0, 60.0, False),
        (50.0, 60.0, True),
        (102.0, 60.0, True),
    ],
)
def test_a_closed_form_is_right_between_what_is_needed_and_what_is_done(
    formula: float, needed: float | None, differs: bool
) -> None:
    block = FlopsBlock(
        counted={"matmul": 90.0, "fft": 10.0, "elementwise": 7.0},
        formula={"matmul": formula},
        needed=None if needed is None else {"matmul": needed},
    )
    assert block.differs is differs
    assert not block.model_copy(update={"uncounted_ops": {"aten.riddle": 1}}).differs
    assert not block.model_copy(update={"formula": None}).differs


def test_flops_needed_stand_beside_those_done(tmp_path: Path) -> None:
    other = make_cell(seq=2048)
    block = FlopsBlock(counted={"matmul": 10.0}, needed={"matmul": 6.0, "elementwise": 1.0, "fft": 0.0})
    run = load_run(
        write_run(tmp_path, [CELL, other], [measured(CELL, [0.5], flops=block), measured(other, [1.0])])
    )
    assert list(run.frame["flops"]) == [10.0, 4.2e6]
    assert run.values("flops_needed")[0] == 7.0
    assert np.isnan(run.values("flops_needed")[1])


def test_what_could_not_be_measured_is_empty_and_not_zero(tmp_path: Path) -> None:
    row = only_row(tmp_path, measured(CELL, [0.5], flops=None, memory=None, params=None))
    assert row[["flops", "peak_bytes", "params", "instructions", "flops_per_s"]].isna().all()


@pytest.mark.parametrize(
    ("path", "moved", "share"),
    [
        ({"gemm": "torch"}, 0, 0.5),
        ({"gemm": "onednn"}, 0, 0.25),
        ({"gemm": "torch"}, 40e9, 0.8),
        ({"gemm": "", "attention": "flash"}, 0, 0.5),
        ({"gemm": ""}, 0, 0.25),  # it may be of any
    ],
)
def test_the_ceiling_is_of_the_product_that_was_taken(
    tmp_path: Path, path: dict[str, str], moved: float, share: float
) -> None:
    block = FlopsBlock(counted={"matmul": 6.5e10}, bytes_moved=int(moved))
    row = only_row(tmp_path, measured(CELL, [1.0], flops=block, path=path))
    assert row["ceiling_fraction"] == pytest.approx(share)


@pytest.mark.parametrize(("disturbed", "flags"), [(True, "disturbed-ceiling"), (False, "above-ceiling")])
def test_to_be_above_a_disturbed_ceiling_says_nothing_of_the_cell(
    tmp_path: Path, disturbed: bool, flags: str
) -> None:
    rate = {"flops_per_s": 1e8, "spread": 0.1, "disturbed": disturbed}
    ceilings = {"5e17be71c001": {"matmul": {"float32": {"torch": rate}}}}
    block = FlopsBlock(counted={"matmul": 6.5e10})
    row = only_row(tmp_path, measured(CELL, [1.0], flops=block), ceilings=ceilings)
    assert row["flags"] == flags
    assert sound(row, "time_s") is disturbed
    assert not sound(row, "ceiling_fraction")


def test_without_ceilings_there_is_no_share(tmp_path: Path) -> None:
    assert np.isnan(only_row(tmp_path, measured(CELL, [1.0]), ceilings={})["ceiling_fraction"])


def test_series_name_the_options_that_vary(tmp_path: Path) -> None:
    cells = [make_cell("local", options={"window": window, "bias": True}) for window in (32, 64)]
    run = load_run(write_run(tmp_path, [*cells, make_cell("other", options={"window": 32})], []))
    assert list(run.series) == ["local window=32", "local window=64", "other"]


def test_facets_are_the_axes_that_vary(tmp_path: Path) -> None:
    cells = [make_cell(dim=dim, mode=mode) for dim in (64, 256) for mode in ("forward", "train")]
    run = load_run(write_run(tmp_path / "a", cells, []))
    assert run.varying == ("mode", "dim")
    more = make_cell(dim=256, heads=1)
    assert load_run(write_run(tmp_path / "b", [*cells, more], [])).varying == ("mode", "dim", "heads")


def test_memory_in_all_is_live_and_peak(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, [CELL], [measured(CELL, [1.0])]))
    assert list(run.values("total_bytes")) == [2**20 + 2**21]


def test_an_empty_plan_is_an_empty_frame(tmp_path: Path) -> None:
    run = load_run(write_run(tmp_path, [], []))
    assert (list(run.frame.columns), len(run.frame), run.varying) == (DOCUMENTED, 0, ())


def test_the_table_writes_whole_numbers_whole(tmp_path: Path) -> None:
    write_table(load_run(write_run(tmp_path, [CELL], [measured(CELL, [0.25])])), tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["samples"], row["peak_bytes"], row["time_s"], row["time_low_s"]) == (
        "1",
        "2097152",
        "0.25",
        "",
    )
    assert (row["options"], row["causal"]) == ("{}", "False")


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no effbench run in .*nothing"):
        load_run(tmp_path / "nothing")


def test_five_thousand_cells_load_in_seconds(tmp_path: Path) -> None:
    base = [cell for i in range(460) for cell in sweep(f"toy-{i}")][:5000]
    records = [
        measured(cell, np.linspace(1, 2, 20), round=i, process=f"p{i}") for cell in base for i in range(2)
    ]
    write_run(tmp_path, base, records)
    start = time.process_time()
    assert load_run(tmp_path).frame["time_low_s"].notna().all()
    assert time.process_time() - start < 10


def test_reading_and_judging_never_import_torch() -> None:
    code = (
        "import sys, effbench.metrics, effbench.stats, effbench.store, effbench.frame, effbench.verdict\n"
        "import effbench.reports.csv, effbench.reports.markdown, effbench.reports.png\n"
        "import effbench.reports.html, effbench.reports.latex\n"
        "assert 'effbench.reports.html' in sys.modules\n"
        "sys.exit('torch' in sys.modules or 'matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
