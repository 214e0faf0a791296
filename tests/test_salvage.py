"""A report shows what there is of a damaged run, and says what is missing."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from effbench.errors import BadInput
from effbench.frame import load_run
from effbench.salvage import salvage
from effbench.store import INFO, RECORDS
from tests.synthetic import make_cell, measured, write_run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    cells = [make_cell(seq=n) for n in (1024, 2048, 4096)]
    return write_run(tmp_path / "run", cells, [measured(cell, [cell.seq * 1e-6]) for cell in cells])


def test_a_whole_run_is_read_as_it_is(folder: Path) -> None:
    whole, strict = salvage(folder), load_run(folder)
    assert whole.info.pop("damage") == []
    assert whole.info == strict.info
    assert whole.frame.equals(strict.frame) is True


def test_damaged_lines_are_named_and_the_others_count(folder: Path) -> None:
    lines = (folder / RECORDS).read_text().splitlines()
    (folder / RECORDS).write_text("\n".join([lines[0], "{broken", lines[1], lines[2][:50]]))
    run = salvage(folder)
    assert [text.split(" is ")[0] for text in run.info["damage"]] == [f"{RECORDS}:2", f"{RECORDS}:4"]
    assert list(run.frame["status"]) == ["ok", "ok", "skipped"]
    with pytest.raises(BadInput, match="damaged"):
        load_run(folder)


@pytest.mark.parametrize("content", [None, "", "{broken", "[]"])
def test_without_run_json_the_records_are_the_plan(folder: Path, content: str | None) -> None:
    (folder / INFO).unlink()
    if content is not None:
        (folder / INFO).write_text(content)
    run = salvage(folder)
    assert list(run.frame["status"]) == ["ok"] * 3
    assert "the plan is what the records answer" in run.info["damage"][0]
    assert run.info["state"] == "damaged"


def test_what_is_no_run_at_all(folder: Path) -> None:
    with pytest.raises(BadInput, match="no effbench run"):
        salvage(folder.parent / "nowhere")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(BadInput, match="no effbench run"):
        salvage(folder)
    (folder / INFO).write_text("{broken")
    with pytest.raises(BadInput, match="damaged"):
        salvage(folder)
