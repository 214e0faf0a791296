"""Every way in which a mechanism can fail becomes a row of the right status, and the sweep goes on."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest

from effbench.cell import Budget
from effbench.frame import Run
from effbench.perf import INSTRUCTIONS, missing
from effbench.record import Record
from effbench.session import Request, measure
from effbench.suite import make_suite

SECONDS, BYTES = 1.0, 400 * 2**20

#: name -> (status, stage, a part of the reason); the module fails at one length only, after its check.
WHILE_MEASURED = {
    "raises": ("error", "time", "ValueError: no such luck"),
    "hangs": ("timeout", "time", "took more than"),
    "hangs-deaf": ("timeout", "time", "took more than"),
    "aborts": ("crashed", "time", "SIGABRT"),
    "exits": ("crashed", "time", "exit code 7"),
    "exits-politely": ("error", "time", "SystemExit"),
    "segfaults": ("crashed", "time", "SIGSEGV"),
    "allocates": ("oom", "time", "allocate"),
    "raises-out-of-memory": ("oom-predicted", "predict", "are available"),
    "closes-everything": ("crashed", "time", "exit code 1"),
    "writes-rubbish": ("crashed", "time", "could not be read"),
    "prints": ("ok", "", ""),
    "leaves-a-thread": ("ok", "", ""),
    "leaves-a-process": ("ok", "", ""),
    "changes-threads": ("ok", "", ""),
}
BEFORE = {
    "check-shape": ("incorrect", "check", "shape [2, 15, 4]"),
    "check-nan": ("incorrect", "check", "not finite"),
    "check-hangs": ("timeout", "check", "took more than"),
    "check-wrong": ("incorrect", "check", "differs from its reference"),
    "check-second-tile": ("incorrect", "check", "seq 1031"),
    "build": ("error", "check", "cannot be built"),
    "unsupported": ("unsupported", "check", "even lengths only"),
}
ON_IMPORT = {
    "raises_on_import.py": ("error", "load", "no import today"),
    "aborts_on_import.py": ("error", "load", "SIGABRT"),
    "hangs_on_import.py": ("error", "load", "took more than"),
}


def _spec(data: Path, name: str) -> str:
    if name.endswith(".py"):
        return str(data / "faults" / name)
    return f"{data / 'faults' / 'faults.py'}:{name.replace('-', '_').upper()}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def run(data: Path, folder: Path) -> Run:
    """One run over all of them, at one length, and what it left behind."""
    names = [*WHILE_MEASURED, *BEFORE, *ON_IMPORT]
    suite = make_suite(
        {"mechanisms": [_spec(data, name) for name in names], "axes": {"seq": 48, "dim": 8}}, "test"
    )
    budget = Budget(
        memory_limit=BYTES, cell_timeout=SECONDS, load_timeout=5.0, min_time=0.01, rounds=((1e9, 1),)
    )
    return measure(Request(name="faults", suite=suite, out=folder, budget=budget, command="effbench run"))


@pytest.mark.parametrize("name", [*WHILE_MEASURED, *BEFORE, *ON_IMPORT])
def test_fault_becomes_a_row(run: Run, data: Path, name: str) -> None:
    status, stage, reason = {**WHILE_MEASURED, **BEFORE, **ON_IMPORT}[name]
    mechanism = _spec(data, name) if name in ON_IMPORT else name
    (record,) = [r for r in run.records if r.cell["mechanism"] == mechanism]
    assert (record.status, record.stage) == (status, stage), record.reason
    assert reason in record.reason
    assert "\n" not in record.reason


def test_every_cell_has_exactly_one_row(run: Run) -> None:
    count = len(WHILE_MEASURED) + len(BEFORE) + len(ON_IMPORT)
    assert len(run.frame) == count
    assert run.frame["id"].nunique() == count


def test_numbers_only_where_ok(run: Run) -> None:
    failed = run.frame[run.frame["status"] != "ok"]
    assert failed[["time_s", "samples", "peak_bytes", "alloc_bytes", "flops", "params"]].isna().all().all()
    fine = run.frame[run.frame["status"] == "ok"]
    assert fine[["time_s", "alloc_bytes", "live_bytes"]].notna().all().all()
    small = [record for record in run.records if record.status == "ok"]
    assert all(r.memory.peak_bytes or "told apart" in r.missing["peak_bytes"] for r in small if r.memory)


def test_an_empty_number_says_why(run: Run) -> None:
    fine = [r for r in run.records if r.status == "ok" and r.cell["mechanism"] == "prints"]
    assert fine
    for record in fine:
        assert (record.instructions is None) == ("instructions" in record.missing)
        assert record.missing.get("instructions") == missing(INSTRUCTIONS)
        assert "flops" not in record.missing
        assert "alloc_bytes" not in record.missing
    assert not any(r.missing for r in run.records if r.status != "ok")


def test_who_changes_the_number_of_threads_is_flagged(run: Run) -> None:
    flagged = [r.cell["mechanism"] for r in run.records if "other-threads" in r.flags]
    assert flagged == ["changes-threads"]


def test_what_is_in_place_is_told_apart(run: Run) -> None:
    (record,) = [r for r in run.records if r.cell["mechanism"] == "prints"]
    memory = record.memory
    assert memory is not None
    assert (memory.param_bytes, memory.input_bytes) == (4, 48 * 8 * 4)
    assert memory.live_bytes == 4 + 48 * 8 * 4


def test_what_a_mechanism_prints_is_in_its_log_only(run: Run, folder: Path) -> None:
    (record,) = [r for r in run.records if r.cell["mechanism"] == "prints"]
    log = (folder / "logs" / f"{record.id}.log").read_text()
    assert "hello from the mechanism" in log
    assert "and to the error stream" in log


def test_the_traceback_is_in_the_log(run: Run, folder: Path) -> None:
    (record,) = [r for r in run.records if r.cell["mechanism"] == "raises"]
    log = (folder / "logs" / f"{record.id}.log").read_text()
    assert "Traceback" in log
    assert "second line" in log


def test_no_process_is_left_behind(run: Run) -> None:
    assert not psutil.Process(os.getpid()).children(recursive=True)
    sleepers = [
        p.info["cmdline"]
        for p in psutil.process_iter(["cmdline"])
        if p.info["cmdline"] and "import time; time.sleep(3600)" in p.info["cmdline"]
    ]
    assert not sleepers


def test_a_record_with_numbers_must_be_ok() -> None:
    with pytest.raises(ValueError, match="carries numbers"):
        Record(schema=1, id="0", cell={}, status="oom", params=3)
