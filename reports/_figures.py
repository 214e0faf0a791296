"""Scaling plots: one metric against length or width, on log-log axes, every line labelled at its end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap
from weakref import WeakKeyDictionary

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from effbench.frame import Run
from effbench.metrics import METRICS

from ._annotations import LABEL_GAP, ROW, SMALL, TEXT, label_lines, mark_breaks, text_size
from ._lines import Line, lines_of
from ._style import FAINT, INK
from ._ticks import step_ticks, value_ticks
from ._views import ALONG, View, views

#: Metric -> how its files are called.
PLOTTED = {"time_s": "time", "total_bytes": "memory", "flops": "flops"}
#: Inches; 1600 pixels across, legible when shown at 800.
WIDTH, AXES_HEIGHT, DPI = 8.0, 4.1, 200
LEFT, BOTTOM, TOP = 0.98, 0.72, 0.78
#: Points.
LARGE = 12.0
#: A report shows the pictures of so many settings; more would be neither looked at nor drawn in time.
MOST_SETTINGS = 20


@dataclass(frozen=True)
class Picture:
    """A finished figure."""

    file: str
    title: str
    png: bytes


_CACHE: WeakKeyDictionary[Run, list[Picture]] = WeakKeyDictionary()


def pictures(run: Run) -> list[Picture]:
    """The scaling plots of the first ``MOST_SETTINGS`` settings, drawn once a run."""
    if run not in _CACHE:
        shown = [view for view in views(run) if view.along][:MOST_SETTINGS]
        drawn = [_picture(run, view, name) for view in shown for name in PLOTTED]
        _CACHE[run] = [picture for picture in drawn if picture]
    return _CACHE[run]


def settings_left_out(run: Run) -> int:
    """How many settings ``pictures`` does not draw."""
    return max(0, sum(bool(view.along) for view in views(run)) - MOST_SETTINGS)


def _picture(run: Run, view: View, name: str) -> Picture | None:
    lines = lines_of(run, view, name)
    if not any(len(line.points) > 1 for line in lines):
        return None
    title = f"{METRICS[name].title} by {ALONG[view.along]}"
    buffer = BytesIO()
    draw(lines, view, name, title).savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Picture(
        f"{PLOTTED[name]}-by-{view.along}{view.suffix}.png", f"{title} ({view.title})", buffer.getvalue()
    )


def draw(lines: list[Line], view: View, name: str, title: str) -> Figure:
    """One figure; its height grows with the rows for broken lines."""
    subtitle = wrap(view.title, 100)
    head = TOP + 0.16 * (len(subtitle) - 1)
    axes_height = max(AXES_HEIGHT, len(lines) * LABEL_GAP / 72)
    height = BOTTOM + axes_height + sum(len(line.breaks) for line in lines) * ROW + head
    figure = Figure(figsize=(WIDTH, height), dpi=DPI)
    FigureCanvasAgg(figure)
    at_the_edge = [line.label for line in lines if len(line.points) and line.end[0] == view.steps[-1]]
    right = 0.3 + max((text_size(figure, label)[0] for label in at_the_edge), default=0.0) / DPI
    axes = figure.add_axes((LEFT / WIDTH, BOTTOM / height, 1 - (LEFT + right) / WIDTH, axes_height / height))
    figure.text(LEFT / WIDTH, 1 - 0.3 / height, title, size=LARGE, weight="bold", color=INK)
    for number, text in enumerate(subtitle):
        figure.text(LEFT / WIDTH, 1 - (0.52 + 0.16 * number) / height, text, size=SMALL, color=FAINT)
    for line in lines:
        if len(line.points):
            _plot(axes, line)
    _frame(axes, lines, view, name)
    mark_breaks(figure, axes, lines, view.along)
    label_lines(figure, axes, lines, view.steps[-1])
    return figure


def _plot(axes: Axes, line: Line) -> None:
    gaps = pd.DataFrame({"step": [step for step, _ in line.breaks], "value": math.nan})
    course = pd.concat([part for part in (line.points, gaps) if len(part)]).sort_values("step")
    axes.plot(
        course["step"],
        course["value"],
        color=line.look.colour,
        linestyle=line.look.dash,
        linewidth=1.6,
        marker=line.look.marker,
        markersize=5.5,
        markerfacecolor="white" if line.look.hollow else line.look.colour,
        markeredgewidth=1,
    )
    known = line.points.dropna()
    known = known[known["high"] > known["low"]]
    if len(known):
        reach = [known["value"] - known["low"], known["high"] - known["value"]]
        axes.errorbar(
            known["step"],
            known["value"],
            yerr=reach,
            fmt="none",
            ecolor=line.look.colour,
            elinewidth=1,
            capsize=2.5,
        )


def _frame(axes: Axes, lines: list[Line], view: View, name: str) -> None:
    """Scales, limits, ticks and what stands beside the axes."""
    axes.set_xscale("log")
    axes.set_yscale("log")
    values = pd.concat([line.points for line in lines if len(line.points)])
    low = min(values["value"].min(), values["low"].min())
    high = max(values["value"].max(), values["high"].max())
    room = max((high / low) ** 0.04, 1.15)
    axes.set_ylim(low / room, high * room**2)  # labels stand above the highest points
    edge = (view.steps[-1] / view.steps[0]) ** 0.03
    axes.set_xlim(view.steps[0] / edge, view.steps[-1] * edge)
    for axis, (ticks, labels) in (
        (axes.xaxis, step_ticks(view.along, view.steps)),
        (axes.yaxis, value_ticks(name, *axes.get_ylim())),
    ):
        axis.set_ticks([], minor=True)
        axis.set_ticks(ticks, labels=labels, size=TEXT, color=INK)
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(ALONG[view.along].capitalize(), size=TEXT, color=INK)
    remark = "log-log axes"
    if name == "time_s" and values["low"].notna().any():
        remark += "; bars: 95 % interval"
    axes.text(
        1,
        -0.45 / AXES_HEIGHT,
        remark,
        transform=axes.transAxes,
        size=SMALL,
        color=FAINT,
        ha="right",
        va="center",
    )
