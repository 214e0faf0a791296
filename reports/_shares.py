"""Where the time goes: mixing against projections, from cells of the levels op and layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.figure import Figure

from effbench.frame import AXES, Run
from effbench.metrics import METRICS
from effbench.plausibility import sound
from effbench.words import setting_title

from ._annotations import SMALL, TEXT
from ._lines import variants_of
from ._panel import LEFT, name_axes, panel
from ._style import Sheet, look
from ._tables import MARK


@dataclass(frozen=True)
class Share:
    """Seconds of a whole layer and of its mixing alone."""

    mechanism: str
    label: str
    layer: float
    op: float
    doubt: bool = False  # a flag puts one of the two in doubt


def shares(run: Run) -> Iterator[tuple[str, str, Callable[[Sheet], Figure]]]:
    """Name, title and drawing for each setting, at the greatest size that most have at both levels."""
    frame = run.frame.assign(series=run.series)
    frame = frame[(frame["status"] == "ok") & frame["level"].isin(["op", "layer"])]
    if frame["level"].nunique() < 2:
        return
    fixed = [axis for axis in AXES[2:] if axis not in ("seq", "dim", "heads", "level")]
    groups = list(frame.groupby(fixed, sort=True))
    for number, (values, rows) in enumerate(groups):
        points = {key: shares_of(here) for key, here in rows.groupby(["seq", "dim"])}
        (seq, dim), found = max(points.items(), key=lambda point: (len(point[1]), point[0]))
        if not found:
            continue
        setting = setting_title({"seq": seq, "dim": dim, **dict(zip(fixed, values, strict=True))})
        title = "Where the time goes"
        yield (
            f"shares{f'-{number + 1}' * (len(groups) > 1)}",
            f"{title} ({setting})",
            partial(_draw, run, found, setting, title),
        )


def shares_of(rows: pd.DataFrame) -> list[Share]:
    """Every series that has both levels at one point, the fastest layer first."""
    times: dict[tuple[str, str], dict[str, float]] = {}
    doubted = set()
    columns = (rows[name] for name in ("mechanism", "series", "level", "time_s", "flags"))
    for mechanism, label, level, time, flags in zip(*columns, strict=True):
        times.setdefault((mechanism, label), {})[level] = time
        if not sound({"status": "ok", "flags": flags}, "time_s"):
            doubted.add(label)
    both = [
        Share(*names, own["layer"], own["op"], names[1] in doubted)
        for names, own in times.items()
        if len(own) == 2
    ]
    return sorted(both, key=lambda share: share.layer)


def _draw(run: Run, found: list[Share], setting: str, title: str, sheet: Sheet) -> Figure:
    left = max(LEFT, 0.25 + 0.075 * max(len(one.label) for one in found))
    figure, axes = panel(title, setting, sheet, height=max(1.0, 0.34 * len(found)), left=left, right=1.25)
    variants = variants_of(run)
    places = list(range(len(found)))[::-1]
    scale = METRICS["time_s"].format(one.layer for one in found)
    for place, one in zip(places, found, strict=True):
        colour = sheet.colour(look(one.mechanism, variants[one.label]))
        mixing = min(one.op, one.layer)
        axes.barh(place, mixing, color=colour, height=0.62)
        axes.barh(
            place,
            one.layer - mixing,
            left=mixing,
            height=0.62,
            facecolor=sheet.ground,
            edgecolor=colour,
            hatch="////",
            linewidth=0.8 * sheet.scale,
        )
        axes.annotate(
            f"{scale(one.layer)}, {100 * mixing / one.layer:.0f} % mixing{MARK * one.doubt}",
            (one.layer, place),
            xytext=(4 * sheet.scale, 0),
            textcoords="offset points",
            va="center",
            size=SMALL * sheet.scale,
            color=sheet.ink,
            annotation_clip=False,
        )
    axes.set_yticks(places, [one.label for one in found], size=TEXT * sheet.scale, parse_math=False)
    axes.tick_params(axis="y", length=0)
    ticks = [tick for tick in axes.get_xticks() if 0 <= tick <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick / scale.factor:.4g} {scale.unit}" for tick in ticks])
    axes.grid(axis="x", color=sheet.grid, linewidth=0.6 * sheet.scale)
    flagged = f"; {MARK.strip()} flagged" if any(one.doubt for one in found) else ""
    remark = f"full: mixing alone (level op); hatched: the rest{flagged}"
    name_axes(figure, axes, sheet, "Time of a layer", remark)
    return figure
