"""Scaling plots: one quantity against length or width, on log-log axes, every line labelled at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effbench.metrics import METRICS

from ._annotations import LABEL_GAP, ROW, SMALL, TEXT, label_lines, mark_breaks, text_size
from ._labels import spread_out
from ._lines import Line
from ._panel import HEIGHT, LEFT, name_axes, panel
from ._style import DPI, Sheet
from ._ticks import step_ticks, value_ticks
from ._views import ALONG, View

#: What must be said below a plot of a metric.
_REMARKS = {"time_s": "band: 95 % interval", "total_bytes": "dotted: what was in place; above it the peak"}

Ticks = Callable[[float, float], tuple[list[float], list[str]]]


@dataclass(frozen=True)
class Quantity:
    """What stands on the y axis; ``guides`` says whether slopes of growth are drawn beside the lines."""

    title: str
    ticks: Ticks
    guides: bool = False
    level: float | None = None  # a line of reference
    remark: str = ""


def quantity(name: str, view: View) -> Quantity:
    """A metric of the table as a quantity; what a decode cell costs, it costs a token."""
    title = METRICS[name].title
    if name in ("time_s", "flops"):
        title += {"decode": " per token", "generate": " per sequence"}.get(view.setting.get("mode", ""), "")
    return Quantity(
        f"{title} by {x_title(view)}",
        lambda low, high: value_ticks(name, low, high),
        guides=METRICS[name].better == "lower",
        remark=_REMARKS.get(name, ""),
    )


def x_title(view: View) -> str:
    """What the x axis is called."""
    lengths = {"decode": "context length", "generate": "tokens generated"}
    mode = view.setting.get("mode", "") if view.along == "seq" else ""
    return lengths.get(mode, ALONG[view.along])


def draw(lines: Sequence[Line], view: View, what: Quantity, sheet: Sheet) -> Figure:
    """One figure; its height grows with the rows for broken lines."""
    at_the_edge = [line.label for line in lines if len(line.points) and line.end[0] == view.steps[-1]]
    low, high = _reach(lines, what)
    ticks, labels = what.ticks(low, high)
    widths = [text_size(label, sheet)[0] / DPI / sheet.scale for label in at_the_edge]
    figure, axes = panel(
        what.title,
        view.title,
        sheet,
        height=max(HEIGHT, len(lines) * LABEL_GAP / 72),
        left=max([LEFT, *(0.2 + text_size(label, sheet)[0] / DPI / sheet.scale for label in labels)]),
        right=0.3 + max(widths, default=0.0),
        above=sum(len(line.breaks) for line in lines) * ROW,
    )
    axes.set_ylim(low, high)
    axes.set_yscale("log")
    axes.yaxis.set_ticks([], minor=True)
    axes.yaxis.set_ticks(ticks, labels=labels, size=TEXT * sheet.scale, color=sheet.ink)
    _frame(figure, axes, lines, view, what, sheet)
    for line in lines:
        if len(line.points):
            _plot(axes, line, sheet)
    if what.guides:
        _guide(axes, view, sheet)
    if what.level is not None:
        axes.axhline(what.level, color=sheet.faint, linewidth=1.2 * sheet.scale, zorder=1)
    mark_breaks(figure, axes, lines, view.along, sheet, joined=what.guides)
    label_lines(figure, axes, lines, view.steps[-1], sheet)
    return figure


def _plot(axes: Axes, line: Line, sheet: Sheet) -> None:
    gaps = pd.DataFrame({"step": [step for step, _ in line.breaks], "value": math.nan})
    course = pd.concat([part for part in (line.points, gaps) if len(part)]).sort_values("step")
    colour = sheet.colour(line.look)
    axes.plot(
        course["step"],
        course["value"],
        color=colour,
        linestyle=line.look.dash,
        linewidth=1.6 * sheet.scale,
        marker=line.look.marker,
        markersize=5.5 * sheet.scale,
        markerfacecolor=sheet.ground if line.look.hollow else colour,
        markeredgewidth=1 * sheet.scale,
    )
    if line.points["part"].notna().any():
        axes.plot(
            course["step"],
            course["part"],
            color=colour,
            linestyle=(0, (1, 2.5)),
            linewidth=1.2 * sheet.scale,
            zorder=1.5,
            gid=f"part {line.label}",
        )
    if (line.points["high"] > line.points["low"]).any():
        axes.fill_between(
            course["step"], course["low"], course["high"], color=colour, alpha=0.22, linewidth=0, zorder=1
        )


def _reach(lines: Sequence[Line], what: Quantity) -> tuple[float, float]:
    """From where to where the y axis goes."""
    values = pd.concat([line.points for line in lines if len(line.points)])
    low = min(values[["value", "low", "part"]].min().min(), what.level or math.inf)
    high = max(values["value"].max(), values["high"].max(), what.level or 0)
    room = max((high / low) ** 0.04, 1.15)
    return low / room, high * room**2  # labels stand above the highest points


def _frame(
    figure: Figure, axes: Axes, lines: Sequence[Line], view: View, what: Quantity, sheet: Sheet
) -> None:
    """The x axis, the grid and what stands below."""
    edge = (view.steps[-1] / view.steps[0]) ** 0.03
    axes.set_xlim(view.steps[0] / edge, view.steps[-1] * edge)
    axes.set_xscale("log")
    ticks, labels = step_ticks(view.along, view.steps)
    axes.xaxis.set_ticks([], minor=True)
    axes.xaxis.set_ticks(ticks, labels=labels, size=TEXT * sheet.scale, color=sheet.ink)
    axes.grid(color=sheet.grid, linewidth=0.6 * sheet.scale)
    banded = any(line.points["low"].notna().any() for line in lines)
    remark = "; ".join(filter(None, ["log-log axes", what.remark if banded else ""]))
    name_axes(figure, axes, sheet, x_title(view).capitalize(), remark)


def _guide(axes: Axes, view: View, sheet: Sheet) -> None:
    """A key of slopes in the corner that growing lines leave free: how n, n log n and n² rise here."""
    letter = "n" if view.along == "seq" else "d"
    first, reach = float(view.steps[0]), (view.steps[-1] / view.steps[0]) ** 0.16
    low, high = axes.get_ylim()
    if first <= 1 or reach**2 > (high / low) ** 0.8:
        return
    start = high * (low / high) ** 0.04 / reach**2
    logs = math.log(first * reach) / math.log(first)
    slopes = ((letter, reach), (f"{letter} log {letter}", reach * logs), (f"{letter}²", reach**2))
    ends = [axes.transData.transform((first * reach, start * ratio))[1] for _, ratio in slopes]
    point = DPI / 72 * sheet.scale
    heights = spread_out(ends, 1.1 * SMALL * point, axes.bbox.y0, axes.bbox.y1)
    for (name, ratio), end, written in zip(slopes, ends, heights, strict=True):
        axes.plot(
            [first, first * reach],
            [start, start * ratio],
            color=sheet.faint,
            linewidth=0.9 * sheet.scale,
            zorder=0.9,
            gid=f"slope {name}",
        )
        axes.annotate(
            name,
            (first * reach, start * ratio),
            xytext=(3 * sheet.scale, (written - end) / DPI * 72),
            textcoords="offset points",
            size=SMALL * sheet.scale,
            color=sheet.faint,
            style="italic",
            va="center",
        )
