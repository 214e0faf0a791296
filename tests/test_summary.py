"""What a run says on the terminal, wide and narrow, with colours and without."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from effbench.frame import Run, load_run
from effbench.ranking import rankings
from effbench.summary import answer, say_what_is_missing, summarise
from tests.synthetic import SHAPES, failed, make_cell, measured, write_example, write_run


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_example(tmp_path_factory.mktemp("example")))


def printed(run: Run, width: int, *, point: dict[str, int] | None = None, terminal: bool = False) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=terminal)
    if point is None:
        summarise(run, Path("out"), console)
    else:
        for ranking in rankings(run, point):
            answer(run, ranking, console)
    say_what_is_missing(run, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    return str(text)


def test_a_line_for_each_mechanism(example: Run) -> None:
    lines = {
        cells[0]: cells[1:]
        for line in printed(example, 220).splitlines()
        if len(cells := [cell.strip() for cell in line.strip("│┃").split("│")]) > 1 and cells[0]
    }
    assert set(lines) == {*SHAPES, "mha ="} - {"mha"}
    assert lines["aft-simple"][2:4] == ["0.88–1.06", "2K, the shortest"]
    assert lines["mha ="][0] == "OOM-PREDICTED"
    assert lines["mha ="][3] == "none up to 8K"
    assert lines["aft-conv"][0].endswith("†")
    assert "off-declared" in lines["aft-conv"][4]
    assert lines["mha-sdpa"][3] == ""


@pytest.mark.parametrize("width", [30, 50, 80, 89])
def test_a_narrow_terminal_gets_lines_and_loses_nothing(example: Run, width: int) -> None:
    for point in (None, {"seq": 8192, "dim": 256}):
        text = printed(example, width, point=point)
        assert max(map(len, text.splitlines())) <= max(width, 60)  # but for the paths of the report
        for name in SHAPES:
            assert name in text
        assert "…" not in text


def test_no_color_is_respected(example: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[2m" in printed(example, 200, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[3" not in printed(example, 200, terminal=True).replace("\x1b[3m", "")


def test_the_answer_at_a_point(example: Run) -> None:
    text = printed(example, 200, point={"seq": 8192, "dim": 256})
    assert "the same function as mha-sdpa" in text
    assert "other functions, which need training" in text
    assert "Fastest within a memory limit: from " in text
    assert "Cost is not quality" in text


def test_what_is_missing_is_said(example: Run) -> None:
    assert "1 of 110 cells has no answer yet" in printed(example, 120)


def test_a_run_of_one_point_answers_by_itself(tmp_path: Path) -> None:
    cells = [make_cell(name) for name in ("mha-sdpa", "[bold]evil[/bold]")]
    run = load_run(write_run(tmp_path, cells, [measured(cell, [0.25]) for cell in cells]))
    text = printed(run, 200)
    assert "Rank" in text
    assert "[bold]evil[/bold]" in text


def test_a_run_without_any_number(tmp_path: Path) -> None:
    cells = [make_cell(seq=n) for n in (1024, 2048)]
    run = load_run(write_run(tmp_path / "a", cells, [failed(c, "error", "x") for c in cells]))
    assert "ERROR" in printed(run, 200)
    assert "0 cells" in printed(load_run(write_run(tmp_path / "b", [], [])), 200)
