"""What the reports say: the same content in Markdown, HTML and LaTeX, for runs of every kind."""

from __future__ import annotations

import random
import re
from csv import reader
from html.parser import HTMLParser
from pathlib import Path

import pytest

from effbench.frame import Run, load_run
from effbench.reports import csv, html, latex, markdown, png
from effbench.reports._document import document
from effbench.reports._findings import findings
from effbench.reports._tables import FAILURES, Table
from tests.synthetic import describe, failed, make_cell, measured, sweep, visits, write_example, write_run

RENDERERS = (csv, markdown, png, html, latex)
HOSTILE = "a|b`c`<script>alert(1)</script>\n| x | **bold** [l](http://e.com) $x_1$"


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_example(tmp_path_factory.mktemp("example")))


PLOTTED = ("time", "memory", "flops", "throughput", "speedup")


def rendered(run: Run, folder: Path) -> dict[str, str]:
    folder.mkdir(exist_ok=True)
    for renderer in RENDERERS:
        renderer.render(run, folder)
    return {path.name: path.read_text() for path in folder.iterdir() if path.suffix != ".png"}


def tables(run: Run) -> dict[str, Table]:
    """Tables of the report by their title, or by their section's."""
    return {
        block.title or section.title: block
        for section in document(run).sections
        for block in section.blocks
        if isinstance(block, Table)
    }


def test_every_format_is_written(example: Run, tmp_path: Path) -> None:
    assert set(rendered(example, tmp_path)) == {
        *("table.csv", "report.md", "report.html", "tables.tex", "answers.tex", "methods.tex")
    }


def test_the_counts_of_statuses_add_up(example: Run) -> None:
    rows = dict(tables(example)["How the cells ended"].rows)
    total = int(rows.pop("all"))
    assert total == len(example.frame) == sum(map(int, rows.values()))
    assert set(rows) == {"ok", *FAILURES}


def test_a_failure_stands_in_its_cell_and_nothing_is_a_hole(example: Run) -> None:
    found = tables(example)
    title = next(title for title in found if title.startswith("Time by sequence length"))
    rows = {row[0]: list(row[1:]) for row in found[title].rows}
    assert rows["mha"][4:] == ["OOM", "OOM (predicted)", "OOM (predicted)"]
    assert rows["aft-full"][5:] == ["TIMEOUT", "SKIPPED"]
    numbers = [cell for table in found.values() if table.numeric for row in table.rows for cell in row]
    assert all(numbers)


def test_times_carry_their_interval_and_doubtful_ones_a_mark(example: Run) -> None:
    table = next(table for title, table in tables(example).items() if title.startswith("Time by sequence"))
    rows = {row[0]: row for row in table.rows}
    assert re.fullmatch(r"18\.\d ±\d %", rows["mha"][1])
    assert rows["aft-conv"][7].endswith("% †")
    assert "†" in table.note


def test_every_metric_is_tabulated_against_length_and_width(example: Run) -> None:
    titles = [title.split(" (width")[0].split(" (length")[0] for title in tables(example)]
    for metric in ("Time", "Memory (live + peak)", "FLOPs", "Throughput"):
        assert f"{metric} by sequence length" in titles
        assert f"{metric} by width" in titles


def test_every_cell_without_numbers_is_listed_with_its_cause(example: Run) -> None:
    rows = tables(example)["Cells without numbers"].rows
    assert len(rows) == (example.frame["status"] != "ok").sum()
    skipped = next(row for row in rows if row[:3] == ["aft-full", "length 64K · width 256", "SKIPPED"])
    assert skipped[5].startswith("aft-full, length 32K · width 256 (")


def test_an_unfinished_run_says_what_is_missing(example: Run, tmp_path: Path) -> None:
    assert "(interrupted): 1 of 110 cells has no answer yet" in rendered(example, tmp_path)["report.md"]


def test_the_report_says_what_it_does_not_say_and_on_what_it_ran(example: Run, tmp_path: Path) -> None:
    text = rendered(example, tmp_path)
    for name in ("report.md", "report.html"):
        assert "Cost is not quality" in text[name]
        assert "Synthetic CPU 2000" in text[name]
        assert "2 cores, 24.0 GiB of memory, Linux 6.18, CPython 3.11.7, torch 2.13.0+cpu." in text[name]
        assert "130 GFLOP/s" in text[name]
        assert "2.00 G elements/s" in text[name]


def test_a_wide_interval_is_shown_by_its_ends(tmp_path: Path) -> None:
    cells = [make_cell(seq=n) for n in (1024, 2048)]
    records = [
        measured(c, [v], round=i, process=str(i)) for c in cells for i, v in enumerate((0.1, 0.2, 0.4))
    ]
    run = load_run(write_run(tmp_path, cells, records))
    table = next(table for title, table in tables(run).items() if title.startswith("Time by sequence"))
    assert re.fullmatch(r"200 \[\d+\.?\d*, \d+\]", table.rows[0][1])


def test_a_machine_of_which_nothing_is_known(tmp_path: Path) -> None:
    cell = make_cell()
    run = load_run(write_run(tmp_path / "run", [cell], [], environments={}, ceilings={}, circumstances=[]))
    assert "Measured on an unnamed CPU" in rendered(run, tmp_path / "out")["report.md"]


def test_markdown_shows_every_picture_it_wrote(example: Run, tmp_path: Path) -> None:
    text = rendered(example, tmp_path)["report.md"]
    shown = set(re.findall(r"\]\(([\w-]+\.png)\)", text))
    assert shown == {path.name for path in tmp_path.glob("*.png")}
    assert {
        *(f"{what}-by-{along}.png" for what in PLOTTED for along in ("seq", "dim")),
        "roofline.png",
        "ranking.png",
    } == shown


def test_the_page_needs_no_network(example: Run, tmp_path: Path) -> None:
    text = rendered(example, tmp_path)["report.html"]
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert markup.count('src="data:image/png;base64,') == 12
    assert not re.search(r'(?:src|href)="(?!data:|#)', markup)
    assert "default-src 'none'" in markup


class Tags(HTMLParser):
    """Counts what a browser would see."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.seen.append(tag)


def test_strangers_text_stays_text(tmp_path: Path) -> None:
    cell = make_cell("evil|`name`<img src=x>")
    about = describe(cell.mechanism) | {"title": HOSTILE, "paper": HOSTILE}
    folder = write_run(
        tmp_path / "run",
        [cell],
        [failed(cell, "error", HOSTILE)],
        mechanisms={cell.mechanism: about},
        title=HOSTILE,
    )
    text = rendered(load_run(folder), tmp_path / "out")
    parser = Tags()
    parser.feed(text["report.html"])
    assert not {"img", "b"} & set(parser.seen)
    assert parser.seen.count("script") == 3  # the data, plotly and the page's own
    assert "<script" not in text["report.md"]
    assert "<img" not in text["report.md"]
    for table in re.findall(r"(?:^\|.*\n)+", text["report.md"], re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1, table
    assert not re.search(r"(?<!\\)[_$#]", text["tables.tex"].split("\n", 1)[1].replace(r"$\cdot$", ""))


def test_a_run_in_which_everything_failed(tmp_path: Path) -> None:
    cells = sweep("toy")
    run = load_run(
        write_run(tmp_path / "run", cells, [failed(cell, "crashed", "signal 6") for cell in cells])
    )
    text = rendered(run, tmp_path / "out")["report.md"]
    assert "0 of 11 cells have numbers" in text
    assert "Nothing to plot" in text
    assert text.count("CRASHED") >= 4 * 12 + 11


def test_a_run_of_one_cell(tmp_path: Path) -> None:
    cell = make_cell()
    run = load_run(write_run(tmp_path / "run", [cell], [measured(cell, [0.25])]))
    table = next(table for title, table in tables(run).items() if title.startswith("At length 1K"))
    assert list(table.rows[0]) == ["toy", "250", "3.00 (+2.00)", "4.20", "4.10"]
    assert "Nothing to plot" in rendered(run, tmp_path / "out")["report.md"]


def test_an_empty_plan(tmp_path: Path) -> None:
    text = rendered(load_run(write_run(tmp_path / "run", [], [])), tmp_path / "out")["report.md"]
    assert "The plan of this run is empty" in text


def test_a_setting_that_varied_is_a_facet_with_its_own_title_and_file(tmp_path: Path) -> None:
    cells = [cell for mode in ("forward", "train") for cell in sweep("toy", mode=mode)]
    run = load_run(write_run(tmp_path / "run", cells, [measured(cell, [cell.seq * 1e-5]) for cell in cells]))
    titles = [title for title in tables(run) if title.startswith("Time by sequence length")]
    assert [("forward" in title, "train" in title) for title in titles] == [(True, False), (False, True)]
    rendered(run, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").glob("time-by-seq*.png")}
    assert names == {"time-by-seq-mode-forward.png", "time-by-seq-mode-train.png"}


def test_option_values_are_series_of_their_own(tmp_path: Path) -> None:
    cells = [cell for window in (32, 64) for cell in sweep("local", options={"window": window})]
    run = load_run(write_run(tmp_path, cells, [measured(cell, [0.1]) for cell in cells]))
    table = next(table for title, table in tables(run).items() if title.startswith("Time by sequence"))
    assert [row[0] for row in table.rows] == ["local window=32", "local window=64"]


def test_a_point_that_nobody_asked_for_is_not_a_hole(tmp_path: Path) -> None:
    cells = [make_cell("a", seq=1024), make_cell("a", seq=2048), make_cell("b", seq=1024)]
    run = load_run(write_run(tmp_path, cells, [measured(cell, [0.1]) for cell in cells]))
    table = next(table for title, table in tables(run).items() if title.startswith("Time by sequence"))
    assert [list(row)[0::2] for row in table.rows] == [["a", "100"], ["b", "not asked"]]


def test_csv_has_one_row_a_cell(example: Run, tmp_path: Path) -> None:
    rows = reader(rendered(example, tmp_path)["table.csv"].splitlines(keepends=True))
    assert len(list(rows)) == 1 + 110


def test_the_paragraph_of_methods_has_the_numbers_of_the_run(example: Run, tmp_path: Path) -> None:
    text = rendered(example, tmp_path)["methods.tex"]
    for part in (
        "effbench 0.1.0",
        "110 cells, 99 of them",
        "1 to 3 processes",
        "1 to 36 passes",
        "6.00 GiB of memory",
    ):
        assert part in text
    assert r"95 \% intervals" in text


def test_latex_has_a_table_for_each_metric_and_setting(example: Run, tmp_path: Path) -> None:
    text = rendered(example, tmp_path)["tables.tex"]
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 8
    assert "µ" not in text
    assert "±" not in text


def test_latex_has_the_answers_too(example: Run, tmp_path: Path) -> None:
    text = rendered(example, tmp_path)["answers.tex"]
    assert text.count(r"\item ") == len(findings(example))
    assert "At length 4K" in text
    for caption in ("the same function as mha-sdpa", "Exponent of the width d", "Against mha-sdpa by width"):
        assert rf"\caption{{{caption}" in text or f": {caption}" in text
    assert r"\begin{tabular}{llp{0.24\linewidth}p{0.24\linewidth}}" in text
    assert not set("≈≠→–±†·µ") & set(text)


def test_visits_of_the_example_follow_its_shapes() -> None:
    few = visits(make_cell("mha-sdpa", seq=65536), random.Random(0))
    many = visits(make_cell("fnet", seq=1024), random.Random(0))
    assert ([len(few), len(many)], few[0].flags) == ([1, 3], ["few-samples"])
