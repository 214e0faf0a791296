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
from ._lines import Line, line_points, lines_of
from ._panel import HEIGHT, name_axes, panel
from ._style import DPI, LIGHT, Sheet
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
    """Points of one mechanism are joined from short to long; a row above the axes names each roof."""
    narrow = LIGHT.width * sheet.scale / sheet.width  # labels need room, if not aside then above each other
    height = HEIGHT * max(1.0, 0.85 * narrow)
    figure, axes = panel(title, view.title, sheet, height=height, above=len(roofs) * ROW)
    axes.set_xscale("log")
    axes.set_yscale("log")
    everything = pd.concat([line.points for line in lines])
    tops = [rate for kind, rate in roofs.values() if kind == "flops"]
    left, right = everything["step"].min() / 2, everything["step"].max() * 8
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
    _draw_roofs(figure, axes, roofs, sheet)
    powers = [10.0**power for power in range(-6, 7) if left <= 10.0**power <= right]
    powers = powers[:: math.ceil(0.6 * len(powers) * DPI * sheet.scale / axes.bbox.width)]
    axes.xaxis.set_ticks([], minor=True)
    axes.xaxis.set_ticks(powers, labels=[f"{power:g}" for power in powers], size=TEXT * sheet.scale)
    ticks, labels = value_ticks("flops_per_s", low, high)
    axes.yaxis.set_ticks([], minor=True)
    axes.yaxis.set_ticks(ticks, labels=labels, size=TEXT * sheet.scale)
    axes.grid(color=sheet.grid, linewidth=0.6 * sheet.scale)
    name_axes(figure, axes, sheet, "FLOPs a byte moved", "log-log axes; joined from short to long")
    roof = [
        axes.transData.transform((left * (right / left) ** (n / 150), rate))
        for rate in tops
        for n in range(151)
    ]
    label_lines(figure, axes, lines, -1, sheet, avoid=[(float(x), float(y)) for x, y in roof])
    return figure


def _draw_roofs(figure: Figure, axes: Axes, roofs: Mapping[str, tuple[str, float]], sheet: Sheet) -> None:
    """Level roofs of products and slanted ones of copies, each named in a row above the axes.

    A dotted stroke joins the name to its roof: where a slanted one meets the highest, and near the right end
    of a level one. Names of level ones stand to the left of their strokes, the leftmost lowest, and those of
    slanted ones to the right, the rightmost lowest: no stroke crosses a name.
    """
    (left, right), (low, _) = axes.get_xlim(), axes.get_ylim()
    ceiling = max(rate for kind, rate in roofs.values() if kind == "flops")
    level = sorted((rate, name) for name, (kind, rate) in roofs.items() if kind == "flops")
    named, slanted = [], []
    for place, (rate, name) in reversed(list(enumerate(level))):
        axes.plot([left, right], [rate, rate], gid=f"roof {name}", **_roof_style(sheet))
        end = right * (left / right) ** (0.015 + 0.045 * place)
        named.append((end, rate, f"{name}: {METRICS['flops_per_s'].text(rate)}"))
    for name, (kind, rate) in roofs.items():
        corner, begin = ceiling / rate, max(left, low / rate)
        if kind == "bytes" and begin < corner:
            axes.plot([begin, corner], [begin * rate, ceiling], gid=f"roof {name}", **_roof_style(sheet))
        if kind == "bytes":
            end = min(max(corner, left), right)
            slanted.append((end, ceiling, f"{name}: {METRICS['bytes_moved'].text(rate)}/s"))
    for row, (end, rate, text) in enumerate([*named, *sorted(slanted, reverse=True)]):
        x, y = axes.transData.transform((end, rate))
        above = axes.bbox.y1 + (row + 0.5) * ROW * sheet.scale * DPI
        stroke(figure, (x, y), (x, above), sheet.faint, linewidth=0.9 * sheet.scale, linestyle=":")
        fits = x + text_size(text, sheet)[0] < figure.bbox.x1
        beside = (4 if fits else -4) * DPI / 72 * sheet.scale
        align = "left" if fits else "right"
        write(figure, (x + beside, above), text, sheet.faint, SMALL * sheet.scale, align)


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
