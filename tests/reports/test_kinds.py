"""The figures beside the scaling plots: what each draws, where it is drawn, and on which sheets."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from effbench.against import ratio_of
from effbench.cell import Cell
from effbench.frame import Run, load_run
from effbench.record import Memory
from effbench.reports import github, pdf, svg
from effbench.reports._figures import pictures
from effbench.reports._lines import lines_of
from effbench.reports._speedup import OTHER_PRODUCT, ratios
from effbench.reports._style import COLUMN, DARK, LIGHT, Sheet
from effbench.reports._tables import scaling_table, tabulated
from effbench.reports._views import views
from effbench.reports._winners import squares_of
from tests.reports.test_figures import inside
from tests.synthetic import failed, make_cell, measured, write_example, write_run


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_example(tmp_path_factory.mktemp("example")))


def run_of(folder: Path, times: Iterable[tuple[Cell, float]], **changes: object) -> Run:
    """A run of three processes a cell, which differ by a few per cent."""
    pairs = list(times)
    records = [
        measured(cell, [time * factor], round=number, process=f"server-{number}", **changes)
        for cell, time in pairs
        for number, factor in enumerate((0.98, 1.0, 1.02))
    ]
    return load_run(write_run(folder, [cell for cell, _ in pairs], records))


def drawn(run: Run, name: str, sheet: Sheet = LIGHT) -> Figure:
    return next(picture for picture in pictures(run) if picture.name == name).draw(sheet)


def words(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text) if text.get_visible())


@pytest.mark.parametrize("name", ["speedup-by-seq", "speedup-by-dim", "roofline", "ranking"])
@pytest.mark.parametrize("sheet", [LIGHT, DARK, COLUMN], ids=["light", "dark", "column"])
def test_nothing_is_cut_off(example: Run, name: str, sheet: Sheet) -> None:
    inside(drawn(example, name, sheet))


#: Name -> (seconds, MiB): a tie, one that needs no training, and one that holds much.
POINT = {"mha-sdpa": (0.1, 40), "mha": (0.14, 900), "linear": (0.0300, 20), "aft-simple": (0.0301, 30)}


@pytest.fixture(scope="module")
def point(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One point: a tie, one in doubt, one by another provider, one that failed; asked within 100 MiB."""
    cells = [make_cell(name, seq=8192) for name in [*POINT, "unsteady", "aft-full", "broken"]]
    records = [failed(cells[-1], "oom", "out of memory")]
    for cell in cells[:-1]:
        seconds, mib = POINT.get(cell.mechanism, (0.2, 50))
        records += [
            measured(
                cell,
                [seconds * factor] * 3,
                round=number,
                process=f"p{number}",
                path={"gemm": "onednn" if cell.mechanism == "aft-full" else "torch"},
                flags=["unsteady"] if cell.mechanism == "unsteady" else [],
                memory=Memory(peak_bytes=(mib - 10) * 2**20, alloc_bytes=2**20, live_bytes=10 * 2**20),
            )
            for number, factor in enumerate((0.97, 1.0, 1.03))
        ]
    folder = write_run(tmp_path_factory.mktemp("point"), cells, records, memory_limit=100 * 2**20)
    return load_run(folder)


@pytest.mark.parametrize("name", ["ranking", "ranking-memory"])
@pytest.mark.parametrize("sheet", [LIGHT, DARK, COLUMN], ids=["light", "dark", "column"])
def test_no_bar_is_cut_off_and_no_text_hides_another(point: Run, name: str, sheet: Sheet) -> None:
    figure = drawn(point, name, sheet)
    inside(figure)
    boxes = [
        text.get_window_extent()
        for text in figure.findobj(Text)
        if text.get_visible() and text.get_text().strip()
    ]
    for one, other in combinations(boxes, 2):
        across = min(one.x1, other.x1) - max(one.x0, other.x0)
        along = min(one.y1, other.y1) - max(one.y0, other.y0)
        assert min(across, along) <= 0.2 * min(one.height, other.height)


def test_bars_show_ranks_groups_intervals_and_why_there_is_none(point: Run) -> None:
    figure = drawn(point, "ranking")
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == [
        "mha-sdpa  3",
        "mha  4",
        "linear  1=",
        "aft-simple  1=",
        "unsteady  –",
        "aft-full  –",
        "broken",
    ]
    text = words(figure)
    for part in ("the same function as mha-sdpa", "other functions, which need training", "OOM"):
        assert part in text
    assert "whisker: 95 % interval; hollow: not ranked; = tie; ‡ other matrix product; † flagged" in text
    assert re.search(r"200 ms ±\d % †", text)
    assert re.search(r"200 ms ±\d % ‡", text)
    whiskers = [line.get_xdata() for line in axes.lines if line.get_gid() == "interval"]
    across = [ends for ends in whiskers if ends[0] < ends[1]]
    assert len(across) == 6  # all but the one that failed
    low, high = across[0]
    assert low < 0.1 < high
    bars = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    assert [bar.get_x() for bar in bars] == [0.0] * 6
    assert bars[0].get_width() == pytest.approx(0.1, rel=0.01)
    ground = (1.0, 1.0, 1.0, 1.0)
    assert [bar.get_facecolor() == ground for bar in bars] == [False] * 4 + [True] * 2


def test_bars_of_memory_show_the_limit_and_who_is_beyond_it(point: Run) -> None:
    axes = drawn(point, "ranking-memory").axes[0]
    (limit,) = (line for line in axes.lines if line.get_gid() == "limit")
    assert list(limit.get_xdata()) == [100 * 2**20] * 2
    assert axes.get_xscale() == "log"  # 20 MiB and 900
    assert "hollow: over the limit" in words(axes.figure)
    hatched = [patch for patch in axes.patches if patch.get_hatch()]
    assert len(hatched) == 5  # the peak of each that fits, above what was in place


def test_no_limit_no_bars_of_memory(example: Run) -> None:
    assert not any(picture.name.startswith("ranking-memory") for picture in pictures(example))


def test_bands_and_slopes_are_drawn_where_they_mean_something(example: Run) -> None:
    def slopes(name: str, kind: str = "slope") -> list[str]:
        named = [line.get_gid() or "" for line in drawn(example, name).axes[0].lines]
        return [name for name in named if name.startswith(kind)]

    assert len(drawn(example, "time-by-seq").axes[0].collections) == 10
    assert not drawn(example, "flops-by-seq").axes[0].collections
    assert slopes("time-by-seq") == ["slope n", "slope n log n", "slope n²"]
    assert slopes("memory-by-dim") == ["slope d", "slope d log d", "slope d²"]
    assert slopes("throughput-by-seq") == slopes("speedup-by-seq") == []
    assert len(slopes("memory-by-seq", "part")) == 10
    assert slopes("time-by-seq", "part") == []


def test_memory_in_place_stands_apart_from_the_peak_above_it(example: Run) -> None:
    view = views(example)[0]
    line = next(line for line in lines_of(example, view, "total_bytes") if line.label == "linear")
    rows = view.by_series["linear"]
    assert list(line.points["part"]) == [row["live_bytes"] for row in rows]
    assert list(line.points["value"]) == [row["live_bytes"] + row["peak_bytes"] for row in rows]
    assert "dotted: what was in place" in words(drawn(example, "memory-by-seq"))


def test_the_speedup_is_the_ratio_of_times(tmp_path: Path) -> None:
    cells = [(make_cell(name, seq=n), n * pace) for name, pace in PACES for n in (1024, 2048)]
    run = run_of(tmp_path, cells)
    view = views(run)[0]
    (line,) = ratios(run, view, "mha-sdpa")
    assert list(line.points["value"]) == pytest.approx([4, 4])
    for point, base, own in zip(line.points.itertuples(), *view.by_series.values(), strict=True):
        low, high = ratio_of(run, own, base, "time_s")
        assert (point.low, point.high) == (1 / high, 1 / low)
        assert low < 0.25 < high
    assert "Speed-up over mha-sdpa" in words(drawn(run, "speedup-by-seq"))
    assert ratios(run, views(run)[0], "absent") == []


PACES = (("mha-sdpa", 4e-6), ("toy", 1e-6))


def run_with_products(tmp_path: Path, product: str) -> Run:
    """The toy's matrices are multiplied by ``product``, the baseline's by torch."""
    cells = [make_cell(name, seq=n, dim=d) for name, _ in PACES for n in (1024, 2048) for d in (64, 128)]
    records = [
        measured(cell, [0.1], path={"gemm": product if cell.mechanism == "toy" else "torch"})
        for cell in cells
    ]
    return load_run(write_run(tmp_path, cells, records))


def test_another_matrix_product_is_no_speedup(tmp_path: Path) -> None:
    run = run_with_products(tmp_path, "onednn")
    (line,) = ratios(run, views(run)[0], "mha-sdpa")
    assert (len(line.points), line.breaks) == (0, [(1024, OTHER_PRODUCT)])
    assert "speedup-by-seq" not in [picture.name for picture in pictures(run)]
    assert "‡" in words(drawn(run, "fastest"))


def test_what_multiplies_no_matrices_agrees_with_everybody(tmp_path: Path) -> None:
    run = run_with_products(tmp_path, "")
    (line,) = ratios(run, views(run)[0], "mha-sdpa")
    assert (len(line.points), line.breaks) == (2, [])
    assert "‡" not in words(drawn(run, "fastest"))


def test_the_roofline_shows_this_machine_and_needs_its_ceilings(example: Run, tmp_path: Path) -> None:
    text = words(drawn(example, "roofline"))
    for roof in (
        "products, torch: 130 GFLOP/s",
        "products, onednn: 260 GFLOP/s",
        "copies, memory: 46.6 GiB/s",
    ):
        assert roof in text
    cells = [make_cell(seq=n) for n in (1024, 2048)]
    without = load_run(write_run(tmp_path, cells, [measured(c, [0.1]) for c in cells], ceilings={}))
    assert "roofline" not in [picture.name for picture in pictures(without)]


@pytest.mark.parametrize("sheet", [LIGHT, COLUMN], ids=["light", "column"])
def test_no_name_of_a_roofline_hides_another(example: Run, sheet: Sheet) -> None:
    figure = drawn(example, "roofline", sheet)
    figure.canvas.draw()
    names = [text for text in figure.texts if text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in names]
    for (one, here), (other, there) in combinations(boxes, 2):
        across = min(here.x1, there.x1) - max(here.x0, there.x0)
        along = min(here.y1, there.y1) - max(here.y0, there.y0)
        assert min(across, along) <= 0.25 * min(here.height, there.height), (one, other)


def test_the_map_names_the_fastest_and_marks_ties(tmp_path: Path) -> None:
    paces = {"one": lambda n, d: n * d, "two": lambda n, d: 256 * n, "three": lambda n, d: 9 * n * d}
    cells = [
        (make_cell(name, seq=n, dim=d), 1e-7 * pace(n, d))
        for name, pace in paces.items()
        for n in (1024, 2048)
        for d in (64, 256, 1024)
    ]
    run = run_of(tmp_path, cells)
    squares = {one.dim: one for one in squares_of(run.frame.assign(series=run.series, product=""))}
    assert {dim: one.label for dim, one in squares.items() if dim != 256} == {64: "one", 1024: "two"}
    assert len(squares[256].ties) == 1
    figure = drawn(run, "fastest")
    inside(figure)
    assert len([patch for patch in figure.axes[0].patches if isinstance(patch, Rectangle)]) == 6
    assert (
        words(figure).count("tie: \n") + words(figure).count("tie: one") + words(figure).count("tie: two")
        >= 2
    )


def test_a_cross_of_lines_is_no_map(example: Run) -> None:
    assert not [picture for picture in pictures(example) if picture.name.startswith(("fastest", "shares"))]


def test_shares_hold_mixing_against_the_whole_layer(tmp_path: Path) -> None:
    cells = [
        (make_cell(name, seq=n, level=level), n * pace * (0.25 if level == "op" else 1))
        for name, pace in PACES
        for n in (1024, 2048)
        for level in ("op", "layer")
    ]
    figure = drawn(run_of(tmp_path, cells), "shares")
    inside(figure)
    text = words(figure)
    assert text.count("25 % mixing") == 2
    assert "length 2K" in text
    assert [round(patch.get_width(), 6) for patch in figure.axes[0].patches] == [
        *(0.000512, 0.001536),
        *(0.002048, 0.006144),
    ]
    doubtful = words(drawn(run_of(tmp_path / "doubtful", cells, flags=["unsteady"]), "shares"))
    assert doubtful.count("25 % mixing †") == 2


def test_decoding_is_told_by_the_token_and_its_context(tmp_path: Path) -> None:
    cells = [(make_cell("toy", seq=n, mode="decode", causal=True), n * 1e-6) for n in (1024, 2048, 4096)]
    run = run_of(tmp_path, cells)
    text = words(drawn(run, "time-by-seq"))
    assert "Time per token by context length" in text
    assert "Context length" in text


def test_a_github_page_shows_dark_pictures_on_dark_pages(tmp_path: Path) -> None:
    hostile = '"><script>alert(1)</script>'
    cells = [(make_cell(name, seq=n), n * 1e-6) for name in (hostile, "toy") for n in (1024, 2048)]
    run = run_of(tmp_path / "run", cells)
    run = replace(run, info=run.info | {"baseline": hostile})
    github.render(run, tmp_path)
    page = (tmp_path / "README.md").read_text()
    shown = re.findall(
        r'<source media="\(prefers-color-scheme: dark\)" srcset="(.+)">\n<img src="(.+?)" ', page
    )
    assert shown == [(f"{picture.name}-dark.png", picture.file) for picture in pictures(run)]
    for dark, light in shown:
        grounds = [imread(tmp_path / name)[0, 0, :3].mean() for name in (dark, light)]
        assert grounds[0] < 0.1
        assert grounds[1] == 1
    assert 'alt="Speed-up over &#34;&gt;&lt;script&gt;' in page
    assert "<script" not in page


def test_generating_is_told_by_the_sequence(tmp_path: Path) -> None:
    cells = [(make_cell("toy", seq=n, mode="generate", causal=True), n * 1e-4) for n in (64, 128)]
    text = words(drawn(run_of(tmp_path, cells), "time-by-seq"))
    assert "Time per sequence by tokens generated" in text


def test_the_state_of_decoding_has_a_table_and_a_figure_of_its_own(tmp_path: Path) -> None:
    cells = [make_cell("toy", seq=n, mode="decode", causal=True) for n in (1024, 2048, 4096)]
    memory = [Memory(peak_bytes=5000, live_bytes=900_000, state_bytes=16 * cell.seq) for cell in cells]
    records = [measured(cell, [1e-4], memory=m) for cell, m in zip(cells, memory, strict=True)]
    run = load_run(write_run(tmp_path, cells, records))
    assert "State of decoding by context length" in words(drawn(run, "state-by-seq"))
    table = scaling_table(views(run)[0], "state_bytes")
    assert (list(table.header[1:]), list(table.rows[0][1:])) == (
        ["1K (KiB)", "2K (KiB)", "4K (KiB)"],
        ["16.0", "32.0", "64.0"],
    )
    whole = load_run(write_run(tmp_path / "whole", [make_cell()], [measured(make_cell(), [1e-4])]))
    assert ("state_bytes" in tabulated(run), "state_bytes" in tabulated(whole)) == (True, False)


def test_svg_comes_for_light_and_dark_pages_and_pdf_for_a_column(tmp_path: Path) -> None:
    cells = [(make_cell("toy", seq=n), n * 1e-6) for n in (1024, 2048)]
    run = run_of(tmp_path / "run", cells)
    svg.render(run, tmp_path)
    pdf.render(run, tmp_path)
    names = {picture.name for picture in pictures(run)}
    assert {path.name for path in tmp_path.glob("*.svg")} == {
        f"{n}{s}.svg" for n in names for s in ("", "-dark")
    }
    assert LIGHT.ground.lower() in (tmp_path / "time-by-seq.svg").read_text()
    assert DARK.ground.lower() in (tmp_path / "time-by-seq-dark.svg").read_text()
    for path in tmp_path.glob("*.pdf"):
        assert f"/MediaBox [ 0 0 {COLUMN.width * 72:g} ".encode() in path.read_bytes()
