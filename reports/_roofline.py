"""The roofline: FLOPs a byte against FLOP/s achieved, under what this machine was measured to do."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from effbench.frame import Run
from effbench.metrics import METRICS
from effbench.roofline import at

from ._annotations import ROW, SMALL, TEXT, label_lines, stroke, text_size, write
from ._labels import Box, spread_out
from ._lines import Line, line_points, lines_of
from ._panel import DPI, name_axes, panel
from ._style import Sheet
from ._ticks import value_ticks
from ._views import View


def roofline(run: Run, view: View) -> tuple[str, str, Callable[[Sheet], Figure]] | None:
    """Name, title and drawing along the length; None without ceilings, counted bytes or rates."""
    setting = view.setting
    roofs = _roofs(at(run.ceilings, setting["device"], setting["threads"]), setting["dtype"])
    lines = points_of(run, view) if view.along == "seq" and roofs else []
    if not any(len(line.points) > 1 for line in lines):
        return None
    title = "Roofline: how near each comes to what the machine can do"
    return (
        f"roofline{view.suffix}",
        f"{title} ({view.title})",
        lambda sheet: draw(lines, roofs, view, title, sheet),
    )


def points_of(run: Run, view: View) -> list[Line]:
    """FLOPs a byte (``step``) and FLOP/s of each cell of a line, from short to long."""
    found = []
    for line in lines_of(run, view, "flops_per_s"):
        points = [
            (row["flops"] / row["bytes_moved"], *[row["flops_per_s"]] * 3)
            for row in view.by_series[line.label]
            if row["flops_per_s"] > 0 and row["bytes_moved"] > 0
        ]
        found.append(Line(line.label, line.look, line_points(points)))
    return found


def draw(
    lines: list[Line], roofs: Mapping[str, tuple[str, float]], view: View, title: str, sheet: Sheet
) -> Figure:
    """Points of one mechanism are joined from short to long; roofs are named where they are highest."""
    copies = [name for name, (kind, _) in roofs.items() if kind == "bytes"]
    figure, axes = panel(title, view.title, sheet, right=1.5, above=len(copies) * ROW)
    axes.set_xscale("log")
    axes.set_yscale("log")
    everything = pd.concat([line.points for line in lines])
    tops = [rate for kind, rate in roofs.values() if kind == "flops"]
    left, right = everything["step"].min() / 2, everything["step"].max() * 15
    low, high = everything["value"].min() / 2, max(everything["value"].max(), *tops) * 2.2
    axes.set_xlim(left, right)
    axes.set_ylim(low, high)
    for line in lines:
        colour = sheet.colour(line.look)
        axes.plot(
            line.points["step"],
            line.points["value"],
            color=colour,
            linestyle=line.look.dash,
            linewidth=0.9 * sheet.scale,
            marker=line.look.marker,
            markersize=5.5 * sheet.scale,
            markerfacecolor=sheet.ground if line.look.hollow else colour,
        )
    taken = _name_products(figure, axes, roofs, sheet)
    _name_copies(figure, axes, roofs, sheet)
    powers = [10.0**power for power in range(-6, 7) if left <= 10.0**power <= right]
    powers = powers[:: math.ceil(0.6 * len(powers) * DPI * sheet.scale / axes.bbox.width)]
    axes.xaxis.set_ticks([], minor=True)
    axes.xaxis.set_ticks(powers, labels=[f"{power:g}" for power in powers], size=TEXT * sheet.scale)
    ticks, labels = value_ticks("flops_per_s", low, high)
    axes.yaxis.set_ticks([], minor=True)
    axes.yaxis.set_ticks(ticks, labels=labels, size=TEXT * sheet.scale)
    axes.grid(color=sheet.grid, linewidth=0.6 * sheet.scale)
    name_axes(figure, axes, sheet, "FLOPs a byte moved", "log-log axes; joined from short to long")
    label_lines(figure, axes, lines, -1, sheet, taken)
    return figure


def _name_products(
    figure: Figure, axes: Axes, roofs: Mapping[str, tuple[str, float]], sheet: Sheet
) -> list[Box]:
    """The level roofs, named right of the axes; where the names stand, in pixels."""
    level = [(name, rate) for name, (kind, rate) in roofs.items() if kind == "flops"]
    (left, right), point = axes.get_xlim(), DPI / 72 * sheet.scale
    wanted = [float(axes.transData.transform((right, rate))[1]) for _, rate in level]
    gap = 2.5 * SMALL * point
    boxes = []
    for (name, rate), y in zip(
        level, spread_out(wanted, gap, axes.bbox.y0, axes.bbox.y1 - gap / 2), strict=True
    ):
        axes.plot([left, right], [rate, rate], gid=f"roof {name}", **_roof_style(sheet))
        text = f"{name}\n{METRICS['flops_per_s'].text(rate)}"
        write(figure, (axes.bbox.x1 + 4 * point, y), text, sheet.faint, SMALL * sheet.scale)
        boxes.append(Box(axes.bbox.x1, y - gap / 2, figure.bbox.x1, y + gap / 2))
    return boxes


def _name_copies(figure: Figure, axes: Axes, roofs: Mapping[str, tuple[str, float]], sheet: Sheet) -> None:
    """The slanted roofs, each named in a row above the axes and joined to where it meets the highest."""
    (left, right), (low, _) = axes.get_xlim(), axes.get_ylim()
    ceiling = max(rate for kind, rate in roofs.values() if kind == "flops")
    slanted = sorted((ceiling / rate, name, rate) for name, (kind, rate) in roofs.items() if kind == "bytes")
    for row, (corner, name, rate) in enumerate(reversed(slanted)):
        begin = max(left, low / rate)
        if begin < corner:
            axes.plot([begin, corner], [begin * rate, ceiling], gid=f"roof {name}", **_roof_style(sheet))
        x, y = axes.transData.transform((min(max(corner, left), right), ceiling))
        above = axes.bbox.y1 + (row + 0.5) * ROW * sheet.scale * DPI
        stroke(figure, (x, y), (x, above), sheet.faint, linewidth=0.9 * sheet.scale, linestyle=":")
        text = f"{name}: {METRICS['bytes_moved'].text(rate)}/s"
        fits = x + text_size(figure, text, sheet)[0] < figure.bbox.x1
        beside = (4 if fits else -4) * DPI / 72 * sheet.scale
        write(
            figure, (x + beside, above), text, sheet.faint, SMALL * sheet.scale, "left" if fits else "right"
        )


def _roof_style(sheet: Sheet) -> dict[str, Any]:
    return {"color": sheet.faint, "linewidth": 1.3 * sheet.scale, "zorder": 1}


def _roofs(rates: Mapping[str, Any], dtype: str) -> dict[str, tuple[str, float]]:
    """Name -> (flops or bytes, rate) of everything that bounds a cell of this dtype."""
    found = {
        f"products, {provider}": ("flops", float(rate["flops_per_s"]))
        for provider, rate in rates.get("matmul", {}).get(dtype, {}).items()
    }
    if not found:
        return {}
    copies = rates.get("copy", {})
    return found | {f"copies, {name}": ("bytes", float(rate["bytes_per_s"])) for name, rate in copies.items()}
