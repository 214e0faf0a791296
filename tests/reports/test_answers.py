"""Findings in sentences, the tables of answers, and two runs side by side."""

from __future__ import annotations

import difflib
import random
import re
from dataclasses import replace
from pathlib import Path

import pytest
from tabulate import tabulate

from effbench.frame import Run, load_run
from effbench.reports import markdown
from effbench.reports._document import document
from effbench.reports._findings import findings
from effbench.reports._tables import Table
from effbench.salvage import salvage
from effbench.stats import _cached_draws
from effbench.store import RECORDS
from tests.synthetic import describe, failed, make_cell, measured, sweep, visits, write_example, write_run

GOLDEN = Path(__file__).parent / "answers.golden.txt"
ANSWERS = (
    "What was found",
    "The answer at a point",
    "How cost grows",
    "Where the baseline is overtaken",
    "How the cells ended",
    "Cells without numbers",
    "Flagged cells",
)


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_example(tmp_path_factory.mktemp("example")))


def sections(run: Run) -> dict[str, list[object]]:
    return {section.title: list(section.blocks) for section in document(run).sections}


def plain(run: Run) -> str:
    """The answers of a report as plain text."""
    lines = []
    for title, blocks in sections(run).items():
        if title in ANSWERS:
            lines.append(f"== {title}")
            for block in blocks:
                if isinstance(block, Table):
                    lines += [f"-- {block.title}", tabulate(block.rows, block.header, disable_numparse=True)]
                    lines += [block.note] if block.note else []
                else:
                    lines.append(str(block))
    return re.sub(r" +\n", "\n", "\n".join(lines) + "\n")


def test_a_cell_is_resampled_once_for_all_answers(tmp_path: Path) -> None:
    """As the first and as the second of a ratio; 10 mechanisms at a point are 45 pairs."""
    run = load_run(write_example(tmp_path))
    _cached_draws.cache_clear()
    document(run)
    assert 0 < _cached_draws.cache_info().misses <= 2 * (run.frame["status"] == "ok").sum()
    assert _cached_draws.cache_info().hits > _cached_draws.cache_info().misses


def test_the_answers_of_a_run_that_holds_every_status_and_every_flag(example: Run) -> None:
    """Written anew by deleting the file and running the test twice; look at the difference."""
    text = plain(example)
    if not GOLDEN.exists():
        GOLDEN.write_text(text)
        pytest.fail(f"{GOLDEN.name} was missing and has been written: read it")
    difference = difflib.unified_diff(GOLDEN.read_text().splitlines(), text.splitlines(), lineterm="", n=0)
    assert list(difference) == []


def numbers(text: str) -> set[str]:
    """Numbers of a text with what follows them closely: 4.05, 8K, 64K, 0.88."""
    return set(re.findall(r"(?<![\w.])\d+(?:\.\d+)?[KMG]?(?![\w])", text))


def test_no_sentence_has_a_number_that_is_in_no_table(example: Run) -> None:
    blocks = [block for found in sections(example).values() for block in found if isinstance(block, Table)]
    tabled = " ".join(
        " ".join([block.title, *block.header, *(" ".join(map(str, row)) for row in block.rows)])
        for block in blocks
    )
    rows = {str(len(block.rows)) for block in blocks}
    for sentence in findings(example):
        # Counts of rows that carry a flag, which no table adds up.
        found = numbers(re.sub(r" (7|4) of (?=99 cells with numbers)", "", sentence))
        assert found <= numbers(tabled) | rows | {"1"}, sentence


def test_findings_come_first_and_cost_is_not_quality(example: Run, tmp_path: Path) -> None:
    markdown.render(example, tmp_path)
    text = (tmp_path / "report.md").read_text()
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert headings[:4] == list(ANSWERS[:4])
    assert headings[-2:] == ["Cells without numbers", "Flagged cells"]
    assert text.index("Cost is not quality") < text.index("## The answer at a point")


def test_the_point_that_was_asked_for(example: Run) -> None:
    asked = replace(
        example, info={**example.info, "at": {"seq": 4096, "dim": 512}, "memory_limit": 120 * 2**20}
    )
    tables = [block for block in sections(asked)["The answer at a point"] if isinstance(block, Table)]
    assert all("length 4K · width 512" in table.title for table in tables)
    assert tables[-1].title.startswith("Fastest within 120 MiB, at ")
    assert any(text.startswith("Within 120 MiB, ") for text in findings(asked))


def test_a_line_that_overtakes_is_found_with_its_interval(tmp_path: Path) -> None:
    costs = {"mha-sdpa": lambda n: 1e-2 * (n / 5000) ** 2, "linear": lambda n: 1e-2 * n / 5000}
    cells = [make_cell(name, seq=1024 * 2**power) for name in costs for power in range(6)]
    records = [
        measured(cell, [costs[cell.mechanism](cell.seq) * (1 + i / 200)] * 3, round=i, process=f"p{i}")
        for cell in cells
        for i in range(3)
    ]
    run = load_run(write_run(tmp_path, cells, records))
    said = next(text for text in findings(run) if text.startswith("linear is "))
    assert re.fullmatch(
        r"linear is faster than mha-sdpa from ≈ 4\.\d+K \(4\.\d+K–\d\.?\d*K\), measured\.", said
    )


def test_two_runs_stand_side_by_side_and_no_fit_holds_both(tmp_path: Path) -> None:
    noise = random.Random(0)
    cells = [cell for name in ("mha-sdpa", "fnet") for cell in sweep(name)]
    runs = [
        load_run(
            write_run(
                tmp_path / name,
                cells,
                [record for cell in cells for record in visits(cell, noise, slower=slower)],
            )
        )
        for name, slower in (("here", 1.0), ("there", 2.0))
    ]
    both = replace(runs[0], beside=runs[1])
    blocks = sections(both)["Beside another run"]
    times, exponents = (block for block in blocks if isinstance(block, Table))
    assert list(times.header[2:5]) == ["Time, here", "Time, there", "Ratio"]
    assert len(times.rows) == len(cells)
    assert all(re.match(r"(1\.[89]|2\.[012])\d+ \[", row[4]) for row in times.rows if "†" not in row[3])
    assert len(exponents.rows) == 4
    said, alone = ({t: repr(blocks) for t, blocks in sections(one).items()} for one in (both, runs[0]))
    assert {title: text for title, text in said.items() if title != "Beside another run"} == alone


def test_another_environment_has_no_ratio_of_times(example: Run, tmp_path: Path) -> None:
    cells = sweep("fnet")
    elsewhere = load_run(
        write_run(
            tmp_path,
            cells,
            [measured(cell, [0.1], environment="other") for cell in cells],
            environment="other",
        )
    )
    table = next(
        b for b in sections(replace(example, beside=elsewhere))["Beside another run"] if isinstance(b, Table)
    )
    assert {row[4] for row in table.rows} == {""}
    assert table.note.startswith("No ratio of times")


def test_a_damaged_run_says_so_first(tmp_path: Path) -> None:
    folder = write_example(tmp_path)
    lines = (folder / RECORDS).read_text().splitlines()
    (folder / RECORDS).write_text("\n".join(["{broken", *lines[1:]]))
    assert findings(salvage(folder))[0].startswith(f"Damaged: {RECORDS}:1 is damaged")


def test_another_matrix_product_stands_apart(tmp_path: Path) -> None:
    names = ("mha-sdpa", "mha-tiled", "linear")
    cells = [make_cell(name, seq=1024 * 2**power) for name in names for power in range(4)]
    records = [
        measured(
            cell,
            [cell.seq * 1e-5 * (1 + i / 200)] * 3,
            round=i,
            process=f"p{i}",
            path={"gemm": "torch" if cell.mechanism == "mha-sdpa" else "onednn"},
        )
        for cell in cells
        for i in range(3)
    ]
    mechanisms = {name: describe(name) | {"complexity": None} for name in names}
    run = load_run(write_run(tmp_path, cells, records, mechanisms=mechanisms))
    (table,) = [b for b in sections(run)["Where the baseline is overtaken"] if isinstance(b, Table)]
    rows = {row[0]: row[-1] for row in table.rows}
    assert rows["linear"] == (
        "against mha-sdpa: no difference seen (1K to 8K); "
        "against mha-tiled on the same product: no difference seen (1K to 8K)"
    )
    assert rows["mha-tiled"] == "against mha-sdpa: no difference seen (1K to 8K)"
    assert any("linear" in text for text in findings(run))
    assert not any("linear" in text and ("faster" in text or "in time" in text) for text in findings(run))


def test_a_sentence_fits_one_and_several(tmp_path: Path) -> None:
    cells = [make_cell(name, seq=n) for name in ("mha-sdpa", "linear", "fnet") for n in (1024, 2048)]
    cost = {"mha-sdpa": 0.2, "linear": 0.1, "fnet": 0.3}
    records = [
        measured(cell, [cost[cell.mechanism] * (1 + i / 200)] * 3, round=i, process=f"p{i}")
        for cell in cells
        for i in range(3)
        if cell.mechanism != "fnet" or cell.seq == 1024
    ]
    gone = [failed(cell, "oom", "x") for cell in cells if cell.mechanism == "fnet" and cell.seq == 2048]
    said = findings(load_run(write_run(tmp_path, cells, [*records, *gone])))
    assert "linear is faster than mha-sdpa at every length measured (1K to 2K)." in said
    assert "fnet is not faster than mha-sdpa at any length up to 1K." in said
    assert "fnet runs out of memory from length 2K on." in said
    assert "No difference in memory (live + peak) from mha-sdpa is seen for linear, up to 2K." in said
    assert (
        "Nothing else here computes the same function as mha-sdpa: what takes its place needs training."
        in said
    )


@pytest.mark.parametrize("doubted", ["linear", "mha-sdpa"])
def test_who_is_ranked_alone_is_not_called_the_fastest(doubted: str, tmp_path: Path) -> None:
    cells = [make_cell(name) for name in ("mha-sdpa", "linear", "fnet")]
    records = [
        measured(
            cell,
            [0.1 * (1 + i / 200)] * 3,
            round=i,
            process=f"p{i}",
            flags=["unsteady"] if cell.mechanism in (doubted, "fnet") else [],
        )
        for cell in cells
        for i in range(3)
    ]
    said = findings(load_run(write_run(tmp_path, cells, records)))
    (alone,) = {"linear", "mha-sdpa"} - {doubted}
    assert re.fullmatch(rf"At length 1K, width 256, only {alone} \(\d+ ms .*\) is ranked\.", said[0])
    assert not any("fastest" in text or "takes" in text for text in said)


def test_several_settings_are_told_apart_by_what_differs(tmp_path: Path) -> None:
    cells = [
        make_cell(name, seq=n, level="model", mode="train", stack=stack)
        for name in ("mha-sdpa", "linear")
        for stack in ({"depth": 4, "norm": "pre"}, {"depth": 8, "norm": "pre"})
        for n in (1024, 2048)
    ]
    records = [
        measured(
            cell, [(0.1 if cell.mechanism == "linear" else 0.2) * (1 + i / 200)] * 3, round=i, process=f"p{i}"
        )
        for cell in cells
        for i in range(3)
    ]
    said = findings(load_run(write_run(tmp_path, cells, records)))
    assert "Depth 4: linear is faster than mha-sdpa at every length measured (1K to 2K)." in said
    assert any(text.startswith("At length 2K, width 256, depth 8: linear (100") for text in said)
