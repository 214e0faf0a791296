"""The roofline: FLOPs a byte against FLOP/s achieved, under what this machine was measured to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from effbench.frame import Run
from effbench.metrics import METRICS
from effbench.roofline import at

from ._annotations import SMALL, TEXT, label_lines
from ._lines import Line, lines_of
from ._panel import name_axes, panel
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
    intensity = (run.frame["flops"] / run.frame["bytes_moved"]).rename("intensity")
    found = []
    for line in lines_of(run, view, "flops_per_s"):
        at_step = view.rows[view.rows["series"] == line.label].set_index("seq").index
        rows = view.rows[view.rows["series"] == line.label].index
        by_step = pd.Series(intensity[rows].to_numpy(), index=at_step)
        points = line.points.assign(step=line.points["step"].map(by_step))
        found.append(Line(line.label, line.look, points[points["step"] > 0].dropna(subset=["step"])))
    return found


def draw(
    lines: list[Line], roofs: Mapping[str, tuple[str, float]], view: View, title: str, sheet: Sheet
) -> Figure:
    """Points of one mechanism are joined from short to long; roofs are named where they are highest."""
    figure, axes = panel(title, view.title, sheet, right=1.5)
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
    _draw_roofs(axes, roofs, sheet)
    powers = [10.0**power for power in range(-6, 7) if left <= 10.0**power <= right]
    axes.xaxis.set_ticks([], minor=True)
    axes.xaxis.set_ticks(powers, labels=[f"{power:g}" for power in powers], size=TEXT * sheet.scale)
    ticks, labels = value_ticks("flops_per_s", low, high)
    axes.yaxis.set_ticks([], minor=True)
    axes.yaxis.set_ticks(ticks, labels=labels, size=TEXT * sheet.scale)
    axes.grid(color=sheet.grid, linewidth=0.6 * sheet.scale)
    name_axes(axes, sheet, "FLOPs a byte moved", "log-log axes; joined from short to long")
    label_lines(figure, axes, lines, -1, sheet)
    return figure


def _draw_roofs(axes: Any, roofs: Mapping[str, tuple[str, float]], sheet: Sheet) -> None:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    ceiling = max((rate for kind, rate in roofs.values() if kind == "flops"), default=high)
    for name, (kind, rate) in roofs.items():
        x = [left, right] if kind == "flops" else [left, ceiling / rate]
        y = [rate, rate] if kind == "flops" else [left * rate, ceiling]
        axes.plot(x, y, color=sheet.faint, linewidth=1.3 * sheet.scale, zorder=1, gid=f"roof {name}")
        if kind == "flops":
            text = f" {name}\n {METRICS['flops_per_s'].text(rate)}"
            place, shift, rises = (right, rate), (2.0, 0.0), "center"
        else:
            text = f"{name}: {METRICS['bytes_moved'].text(rate)}/s"
            begin = max(left, 1.3 * low / rate)
            place, shift, rises = (begin, begin * rate), (8.0, -1.0), "top"
        written = axes.annotate(
            text,
            place,
            xytext=(shift[0] * sheet.scale, shift[1] * sheet.scale),
            textcoords="offset points",
            size=SMALL * sheet.scale,
            color=sheet.faint,
            va=rises,
            annotation_clip=False,
            zorder=1.5,
        )
        written.set_path_effects([withStroke(linewidth=2.5 * sheet.scale, foreground=sheet.ground)])


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
