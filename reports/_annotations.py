"""What is written into a scaling plot: the name at each line's end, and where a line broke off.

Above the axes stands one row for every line that ends or breaks: a cross at the first length without a
number and what happened there, joined to the line's last point by a dotted stroke.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from effbench.metrics import step_label

from ._labels import Box, quietest, spread_out
from ._lines import Line
from ._style import DPI, Sheet

#: Points at full size.
SMALL, TEXT, LABEL_GAP = 8.5, 9.5, 11.5
#: Inches a row above the axes, at full size.
ROW = 0.19


@lru_cache(maxsize=1024)  # the same names stand in every figure
def text_size(text: str, sheet: Sheet) -> tuple[float, float]:
    """Width and height in pixels of a label."""
    written = Text(0, 0, f" {text} ", size=TEXT * sheet.scale, figure=_ruler(), parse_math=False)
    extent = written.get_window_extent()
    return float(extent.width), float(extent.height)


@lru_cache(maxsize=1)
def _ruler() -> Figure:
    """An empty figure that texts are measured on."""
    figure = Figure(dpi=DPI)
    FigureCanvasAgg(figure)
    return figure


def label_lines(
    figure: Figure,
    axes: Axes,
    lines: Sequence[Line],
    last_step: int,
    sheet: Sheet,
    avoid: Sequence[tuple[float, float]] = (),
) -> None:
    """Names right of the axes for lines that reach the last step, beside their last point for the others.

    ``avoid`` are pixels that no name should hide, besides those of the lines.
    """
    taken: list[Box] = []
    drawn = [line for line in lines if len(line.points)]
    outside = [line for line in drawn if line.end[0] == last_step]
    point = figure.dpi / 72 * sheet.scale
    wanted = [_pixel(axes, line.end) for line in outside]
    heights = spread_out([y for _, y in wanted], LABEL_GAP * point, axes.bbox.y0, axes.bbox.y1)
    for line, (x, y), height in zip(outside, wanted, heights, strict=True):
        stroke(figure, (x + 5 * point, y), (x + 15 * point, height), sheet.colour(line.look), linewidth=0.8)
        write(figure, (x + 15 * point, height), f" {line.label}", sheet.colour(line.look), TEXT * sheet.scale)
        wide, high = text_size(line.label, sheet)
        left = x + 15 * point
        taken.append(Box(left, height - high / 2, left + wide, height + high / 2))
    obstacles = [*avoid, *(spot for line in drawn for spot in _spots(axes, line))]
    for line in drawn:
        if line.end[0] != last_step:
            box = quietest(_places(figure, axes, line, sheet), taken, obstacles)
            taken.append(box)
            start = _pixel(axes, line.end)
            end = box.nearest(*start)
            if math.dist(start, end) > 9 * point:
                stroke(figure, start, end, sheet.colour(line.look), linewidth=0.8)
            write(
                figure,
                (box.left, (box.bottom + box.top) / 2),
                f" {line.label}",
                sheet.colour(line.look),
                TEXT * sheet.scale,
            )


def mark_breaks(
    figure: Figure, axes: Axes, lines: Sequence[Line], along: str, sheet: Sheet, joined: bool = True
) -> None:
    """The rows above the axes, the smallest step lowest, so that no stroke crosses a text.

    ``joined`` is left out where up is better: a stroke to the top would look as if a failure were that.
    """
    gaps = sorted(
        ((step, what, line) for line in lines for step, what in line.breaks), key=lambda gap: gap[0]
    )
    top = axes.bbox.y1
    for row, (step, what, line) in enumerate(gaps):
        x, y = _pixel(axes, (step, 1.0))[0], top + (row + 0.65) * ROW * sheet.scale * figure.dpi
        colour = sheet.colour(line.look)
        before = line.points[line.points["step"] < step]
        if len(before) and joined:
            start = _pixel(axes, (before["step"].iloc[-1], before["value"].iloc[-1]))
            stroke(figure, start, (x, top), colour, linewidth=0.9, linestyle=":")
            stroke(figure, (x, top), (x, y), colour, linewidth=0.9, linestyle=":")
        stroke(
            figure,
            (x, y),
            (x, y),
            colour,
            marker="x",
            markersize=6.5 * sheet.scale,
            markeredgewidth=2 * sheet.scale,
            linewidth=0,
        )
        text = f"{line.label}: {what} at {step_label(along, step)}"
        wide = text_size(text, sheet)[0]
        fits = wide < x - axes.bbox.x0 or wide > figure.bbox.x1 - x
        beside = sheet.scale * figure.dpi * (-0.09 if fits else 0.09)
        write(figure, (x + beside, y), text, colour, SMALL * sheet.scale, "right" if fits else "left")


def _places(figure: Figure, axes: Axes, line: Line, sheet: Sheet) -> list[Box]:
    """Where a label may stand around the last point: to the right, above, below and to the left of it."""
    (x, y), (width, height) = _pixel(axes, line.end), text_size(line.label, sheet)
    away = 6 * figure.dpi / 72 * sheet.scale
    corners = [
        (x + away, y - height / 2),
        (x - width - away / 2, y + away / 2),
        (x + away / 2, y - height - away / 2),
        (x - width / 2, y + away),
        (x - width / 2, y - height - away),
        (x - width - away / 2, y - height - away / 2),
        (x + away, y + away / 2),
        (x + 3 * away, y - 2 * height),
        (x - width - 2 * away, y + height),
        (x + 2 * away, y - 3 * height),
        (x + 2 * away, y - 4 * height),
        (x - width - 4 * away, y - height / 2),
        (x - width - 2 * away, y - 2 * height),
        (x + 2 * away, y + 2 * height),
        *((x + 4 * away, y + rows * height) for rows in (-5, -6, 3, -8)),
        *((x - width - 4 * away, y + rows * height) for rows in (-4, 3, -6, 5)),
    ]
    boxes = [Box(left, bottom, left + width, bottom + height) for left, bottom in corners]
    frame, edge = axes.bbox, figure.bbox.x1
    inside = [
        box
        for box in boxes
        if box.left > frame.x0 and box.right < edge and box.bottom > frame.y0 and box.top < frame.y1
    ]
    return inside or boxes


def _spots(axes: Axes, line: Line) -> list[tuple[float, float]]:
    """Pixels along a line, and on to where it broke off, that a label should not hide."""
    corners = [_pixel(axes, (step, value)) for step, value in line.points[["step", "value"]].to_numpy()]
    later = [step for step, _ in line.breaks if step > line.end[0]]
    if later:
        corners.append((_pixel(axes, (later[0], 1.0))[0], axes.bbox.y1))
    shares = np.linspace(0, 1, 40)
    return [
        (float(x0 + share * (x1 - x0)), float(y0 + share * (y1 - y0)))
        for (x0, y0), (x1, y1) in pairwise(corners)
        for share in shares
    ]


def _pixel(axes: Axes, point: tuple[float, float]) -> tuple[float, float]:
    x, y = axes.transData.transform(point)
    return float(x), float(y)


def stroke(
    figure: Figure, start: tuple[float, float], end: tuple[float, float], colour: str, **style: Any
) -> None:
    """A line between two pixels, over the axes and beyond them."""
    (x0, y0), (x1, y1) = figure.transFigure.inverted().transform([start, end])
    figure.add_artist(Line2D([x0, x1], [y0, y1], color=colour, **style))


def write(
    figure: Figure, place: tuple[float, float], text: str, colour: str, size: float, align: str = "left"
) -> None:
    """Text at a pixel, on a rim of the ground's colour."""
    x, y = figure.transFigure.inverted().transform(place)
    written = figure.text(x, y, text, size=size, color=colour, ha=align, va="center", parse_math=False)
    written.set_path_effects([withStroke(linewidth=2.5, foreground=figure.get_facecolor())])
