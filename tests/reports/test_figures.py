"""The plots: nothing cut off, every line labelled, one look a mechanism, failures marked."""

from __future__ import annotations

import tomllib
from io import BytesIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text

from effbench.frame import Run, load_run
from effbench.reports import _figures
from effbench.reports._document import document
from effbench.reports._figures import pictures
from effbench.reports._labels import Box, quietest, spread_out
from effbench.reports._lines import lines_of
from effbench.reports._scaling import draw, quantity
from effbench.reports._style import COLOURS, COLUMN, DARK, DARK_COLOURS, LIGHT, Sheet, look
from effbench.reports._ticks import step_ticks, value_ticks
from effbench.reports._views import views
from tests.synthetic import make_cell, measured, sweep, write_example, write_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_example(tmp_path_factory.mktemp("example")))


def figure_of(run: Run, metric: str = "time_s", number: int = 0, sheet: Sheet = LIGHT) -> tuple[Figure, list]:
    view = views(run)[number]
    lines = lines_of(run, view, metric)
    return draw(lines, view, quantity(metric, view), sheet), lines


def texts(figure: Figure) -> list[Text]:
    return [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


def inside(figure: Figure) -> None:
    """No text reaches over the edge."""
    figure.canvas.draw()
    width, height = figure.get_size_inches() * figure.dpi
    for text in texts(figure):
        box = text.get_window_extent()
        assert box.x0 >= 0, text
        assert box.y0 >= 0, text
        assert box.x1 <= width, text
        assert box.y1 <= height, text


@pytest.mark.parametrize("metric", ["time_s", "total_bytes", "flops", "tokens_per_s"])
@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize("sheet", [LIGHT, COLUMN], ids=["page", "column"])
def test_nothing_is_cut_off_and_every_mechanism_has_its_label(
    example: Run, metric: str, number: int, sheet: Sheet
) -> None:
    figure, lines = figure_of(example, metric, number, sheet)
    inside(figure)
    written = [text.get_text().strip() for text in texts(figure)]
    assert {line.label for line in lines} <= set(written)


def test_the_outermost_pixels_are_blank(example: Run) -> None:
    for picture in pictures(example):
        image = imread(BytesIO(picture.png))[:, :, :3]
        assert image.shape[1] == 1600
        for edge in (image[:4], image[-4:], image[:, :4], image[:, -4:]):
            assert np.all(edge == 1.0), picture.file


def test_labels_do_not_hide_each_other(example: Run) -> None:
    for metric in ("time_s", "total_bytes", "flops"):
        figure, lines = figure_of(example, metric)
        names = {line.label for line in lines}
        boxes = [text.get_window_extent() for text in texts(figure) if text.get_text().strip() in names]
        for one, other in combinations(boxes, 2):
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            along = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert min(across, along) <= 0.25 * min(one.height, other.height)


def test_a_line_that_breaks_off_says_where_and_why(example: Run) -> None:
    written = [text.get_text() for text in texts(figure_of(example)[0])]
    assert "mha: OOM at 16K" in written
    assert "aft-full: TIMEOUT at 32K" in written
    by_width = [text.get_text() for text in texts(figure_of(example, number=1)[0])]
    assert "linear: UNSUPPORTED at 64" in by_width


def test_a_gap_is_not_bridged(tmp_path: Path) -> None:
    cells = sweep("toy")
    records = [measured(cell, [0.1]) for cell in cells if cell.seq != 8192]
    run = load_run(write_run(tmp_path, cells, records))
    figure, lines = figure_of(run)
    assert lines[0].breaks == [(8192, "SKIPPED")]
    course = figure.axes[0].lines[0].get_ydata()
    assert [bool(np.isnan(value)) for value in course] == [False, False, False, True, False, False, False]


def test_too_many_settings_are_said_and_not_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_figures, "MOST_SETTINGS", 1)
    cells = sweep("toy")
    run = load_run(write_run(tmp_path, cells, [measured(cell, [0.1]) for cell in cells]))
    assert [picture.file for picture in pictures(run)] == [
        "time-by-seq.png",
        "memory-by-seq.png",
        "flops-by-seq.png",
        "throughput-by-seq.png",
        "roofline.png",
    ]
    plots = next(section for section in document(run).sections if section.title == "Plots")
    assert plots.blocks[-1] == "1 more setting stands in the tables only: too many to draw."


def test_the_settings_drawn_are_by_length_and_by_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_figures, "MOST_SETTINGS", 2)
    cells = [make_cell("toy", seq=n, dim=64, batch=batch) for batch in (1, 2, 3) for n in (256, 512)]
    cells += [make_cell("toy", seq=256, dim=128, batch=batch) for batch in (1, 2)]
    run = load_run(write_run(tmp_path, cells, [measured(cell, [0.1]) for cell in cells]))
    files = [picture.file for picture in pictures(run)]
    assert [file for file in files if file.startswith("time-")] == [
        "time-by-seq-batch-1.png",
        "time-by-dim-batch-1.png",
    ]


def test_a_name_with_dollars_is_not_taken_for_mathematics(tmp_path: Path) -> None:
    cells = sweep("$broken_{")
    run = load_run(write_run(tmp_path, cells, [measured(cell, [0.1]) for cell in cells]))
    assert len([picture.png for picture in pictures(run)]) == 9


def test_a_single_point_is_no_scaling_plot(tmp_path: Path) -> None:
    cells = sweep("toy")
    run = load_run(write_run(tmp_path, cells, [measured(cells[0], [0.1])]))
    assert pictures(run) == []


def test_pictures_do_not_depend_on_when_they_were_drawn(tmp_path: Path) -> None:
    cells = sweep("toy")
    folder = write_run(tmp_path, cells, [measured(cell, [0.1]) for cell in cells])
    one, other = (pictures(load_run(folder))[0] for _ in range(2))
    assert [one.saved(form) for form in ("png", "pdf")] == [other.saved(form) for form in ("png", "pdf")]


def test_a_mechanism_looks_the_same_whoever_is_there(tmp_path: Path) -> None:
    alone, among = [sweep("toy")], [sweep(name) for name in ("first", "toy", "last")]
    looks = []
    for number, sweeps in enumerate((alone, among)):
        cells = [cell for one in sweeps for cell in one]
        run = load_run(write_run(tmp_path / str(number), cells, [measured(cell, [0.1]) for cell in cells]))
        looks.append({line.label: line.look for line in lines_of(run, views(run)[0], "time_s")}["toy"])
    assert looks[0] == looks[1] == look("toy")


def test_the_mechanisms_that_ship_are_told_apart() -> None:
    """Ten names get ten colours (SALT was chosen for it); more differ at least in marker or dash."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    names = list(project["project"]["entry-points"]["effbench.mechanisms"])
    looks = [look(name) for name in names]
    assert len({one.colour for one in looks}) >= min(len(names), 10)
    assert len({(one.colour, one.marker, one.dash) for one in looks}) == len(names)


def test_option_values_share_a_colour_and_differ() -> None:
    one, two = look("toy", 0), look("toy", 1)
    assert (one.colour, one.marker) == (two.colour, two.marker)
    assert (one.dash, one.hollow) != (two.dash, two.hollow)


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def test_colours_stand_out_on_both_grounds() -> None:
    for colour in COLOURS:
        assert 1.05 / (luminance(colour) + 0.05) > 2.1, colour
    for colour in DARK_COLOURS:
        assert (luminance(colour) + 0.05) / (luminance(DARK.ground) + 0.05) > 4.5, colour
    assert len(set(DARK_COLOURS)) == len(COLOURS)


def test_labels_move_apart_and_keep_their_order() -> None:
    placed = spread_out([5.0, 5.1, 5.2, 50.0], 10.0, 0.0, 100.0)
    assert placed == sorted(placed)
    assert np.diff(placed).min() >= 10 - 1e-9
    assert placed[3] == 50.0
    assert spread_out([99.0, 100.0], 10.0, 0.0, 100.0) == [90.0, 100.0]
    assert spread_out([30.0, 10.0], 5.0, 0.0, 100.0) == [30.0, 10.0]


def test_a_label_prefers_a_place_that_hides_nothing() -> None:
    one, two, three = Box(0, 0, 10, 10), Box(20, 0, 30, 10), Box(40, 0, 50, 10)
    assert quietest([one, two, three], [Box(5, 5, 8, 8)], [(25, 5)]) is three


@pytest.mark.parametrize(
    ("metric", "low", "high", "labels"),
    [
        ("time_s", 0.0005, 20.0, ["1 ms", "10 ms", "100 ms", "1 s", "10 s"]),
        ("time_s", 0.0011, 0.0065, ["2 ms", "5 ms"]),
        ("total_bytes", 2**23, 2**27, ["8 MiB", "16 MiB", "32 MiB", "64 MiB", "128 MiB"]),
        ("flops", 5e6, 2e9, ["10 MFLOP", "100 MFLOP", "1 GFLOP"]),
    ],
)
def test_ticks_are_numbers_that_people_use(metric: str, low: float, high: float, labels: list[str]) -> None:
    assert value_ticks(metric, low, high)[1] == labels


def test_lengths_are_ticked_as_measured() -> None:
    assert step_ticks("seq", [1024, 1536, 65536])[1] == ["1K", "1536", "64K"]
    assert step_ticks("dim", [512, 1024])[1] == ["512", "1024"]
    assert len(step_ticks("seq", list(range(1024, 1024 * 40, 1024)))[0]) <= 12


def test_a_view_holds_one_setting(tmp_path: Path) -> None:
    cells = [make_cell(seq=n, dim=d, batch=b) for n in (1024, 2048) for d in (64, 128) for b in (1, 2)]
    run = load_run(write_run(tmp_path, cells, []))
    for view in views(run):
        for axis, value in view.setting.items():
            assert {row[axis] for row in view.rows} == {value}
    assert sorted(view.suffix for view in views(run) if view.along == "seq") == [
        "-dim-128-batch-1",
        "-dim-128-batch-2",
        "-dim-64-batch-1",
        "-dim-64-batch-2",
    ]
