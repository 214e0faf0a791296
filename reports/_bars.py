"""The answer at a point as bars: who is fastest there, with whom it ties, and what each holds.

The fastest stands first in its group: those that compute the baseline's function, then those that need
training. A bar twice as long costs twice as much; only where the longest would leave nothing to be seen of
the shortest is the axis logarithmic, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from effbench.bars import begin_of
from effbench.frame import Run
from effbench.metrics import METRICS
from effbench.plausibility import sound
from effbench.ranking import Place, Ranking, points, time_text

from ._annotations import SMALL, TEXT, text_size
from ._lines import variants_of
from ._panel import LEFT, name_axes, panel
from ._style import DPI, Look, Sheet, look
from ._tables import FAILURES
from ._ticks import value_ticks
from ._views import named_apart

#: Inches a bar at full size.
BAR = 0.27
#: Behind a text: a flag puts the number in doubt; another provider multiplied than for those that are ranked.
DOUBT, OTHER_PRODUCT = "†", "‡"

Drawing = tuple[str, str, Callable[[Sheet], Figure]]


@dataclass(frozen=True)
class Bar:
    """One row: the name with its rank, a number or why there is none, and the ends of its interval."""

    label: str
    text: str
    look: Look
    value: float  # nan without a number
    low: float = math.nan
    high: float = math.nan
    part: float = math.nan  # of the value, what is drawn full; the rest is hatched
    hollow: bool = False  # not ranked, or not within the limit


Group = tuple[str, Sequence[Bar]]


def bars(run: Run, most: int) -> Iterator[Drawing]:
    """Name, title and drawing of the first ``most`` points; memory too where a limit was asked for."""
    ranked = points(run)[:most]
    limit = run.info.get("memory_limit")
    for ranking, suffix in zip(ranked, named_apart([one.setting for one in ranked]), strict=True):
        setting = ranking.title
        if sum(place.row["time_s"] > 0 for place in ranking.places) > 1:
            yield _drawing(
                run, f"ranking{suffix}", "Time, fastest first", setting, "time_s", timed(run, ranking)
            )
        if limit is not None and sum(_held(place) > 0 for place in ranking.places) > 1:
            title = f"Memory, fastest first, with the limit of {METRICS['total_bytes'].text(limit)}"
            found = holding(run, ranking, limit)
            yield _drawing(run, f"ranking-memory{suffix}", title, setting, "total_bytes", found, limit)


def _drawing(
    run: Run, name: str, title: str, setting: str, metric: str, groups: list[Group], limit: float = math.nan
) -> Drawing:
    return name, f"{title} ({setting})", partial(draw, groups, title, setting, metric, limit)


def timed(run: Run, ranking: Ranking) -> list[Group]:
    """A bar of time for every mechanism of a point."""

    def bar(place: Place) -> Bar:
        row, ranked = place.row, place.rank is not None
        marks = "" if sound(row, "time_s") else f" {DOUBT}"
        marks += f" {OTHER_PRODUCT}" if not ranked and sound(row, "time_s") else ""
        ends = (row["time_low_s"], row["time_high_s"])
        text = time_text(row) + marks if row["status"] == "ok" else _failure(place)
        return Bar(_named(place), text, _look(run, place), row["time_s"], *ends, hollow=not ranked)

    return [(name, [bar(place) for place in places]) for name, places in ranking.groups]


def holding(run: Run, ranking: Ranking, limit: float) -> list[Group]:
    """A bar of memory for every mechanism of a point, in the order of its time; hollow beyond the limit."""

    def bar(place: Place) -> Bar:
        row, held = place.row, _held(place)
        text = METRICS["total_bytes"].text(held) if held > 0 else "n/a"
        text = (
            text + ("" if sound(row, "total_bytes") else f" {DOUBT}")
            if row["status"] == "ok"
            else _failure(place)
        )
        return Bar(_named(place), text, _look(run, place), held, part=row["live_bytes"], hollow=held > limit)

    return [(name, [bar(place) for place in places]) for name, places in ranking.groups]


def _held(place: Place) -> float:
    return float(place.row["total_bytes"])


def _named(place: Place) -> str:
    return f"{place.row['series']}  {place.rank_text}".rstrip()


def _failure(place: Place) -> str:
    status = str(place.row["status"])
    return FAILURES.get(status, status.upper())


def _look(run: Run, place: Place) -> Look:
    return look(place.row["mechanism"], variants_of(run)[place.row["series"]])


def draw(
    groups: Sequence[Group], title: str, setting: str, metric: str, limit: float, sheet: Sheet
) -> Figure:
    """One figure; its height grows with the bars."""
    rows = [bar for _, bars in groups for bar in bars]
    headed = [name for name, _ in groups if name]
    inch = DPI * sheet.scale
    texts = max(text_size(bar.text, sheet)[0] for bar in rows) / inch
    labels = max(text_size(bar.label, sheet)[0] for bar in rows) / inch
    begin, reach = _reach(rows, limit)
    remark = "; ".join(_remarks(rows, metric, begin > 0))
    figure, axes = panel(
        title,
        setting,
        sheet,
        height=BAR * (len(rows) + len(headed) + 0.3),
        left=max(LEFT, labels + 0.2),
        right=texts + 0.2,
        remark=remark,
    )
    axes.set_xscale("log" if begin else "linear")
    axes.set_xlim(begin, reach)
    at, places = 0.0, []
    for name, bars in groups:
        if name:
            _heading(axes, at, name, sheet)
            at -= 1
        for bar in bars:
            _bar(axes, at, bar, begin, sheet)
            places.append(at)
            at -= 1
    axes.set_ylim(at + 0.4, 0.6)
    axes.set_yticks(places, [bar.label for bar in rows], size=TEXT * sheet.scale, parse_math=False)
    axes.tick_params(axis="y", length=0, pad=5 * sheet.scale)
    _ticks(axes, metric, begin > 0, sheet)
    if not math.isnan(limit):
        axes.axvline(limit, color=sheet.ink, linewidth=1.2 * sheet.scale, zorder=2.5, gid="limit")
    name_axes(figure, axes, sheet, METRICS[metric].title, remark)
    return figure


def _reach(rows: Sequence[Bar], limit: float) -> tuple[float, float]:
    """Where the bars begin, at zero or left of all where the axis is logarithmic, and where the axis ends."""
    ends = [value for bar in rows for value in (bar.value, bar.low, bar.high, bar.part) if value > 0]
    high = max(*ends, 1.02 * limit) if limit > 0 else max(ends)
    return begin_of([*ends, high]), high


def _heading(axes: Axes, at: float, name: str, sheet: Sheet) -> None:
    written = axes.annotate(
        name,
        (axes.get_xlim()[0], at - 0.1),
        xytext=(3 * sheet.scale, 0),
        textcoords="offset points",
        va="center",
        size=SMALL * sheet.scale,
        color=sheet.faint,
        style="italic",
        parse_math=False,
        annotation_clip=False,
    )
    written.set_path_effects([withStroke(linewidth=2.5, foreground=sheet.ground)])


def _bar(axes: Axes, at: float, bar: Bar, begin: float, sheet: Sheet) -> None:
    """The bar, its marker and interval, and the text behind it."""
    colour = sheet.colour(bar.look)
    end = begin
    if not math.isnan(bar.value):
        full = bar.value if math.isnan(bar.part) or bar.hollow else bar.part
        style: dict[str, Any] = {"height": 0.6, "edgecolor": colour, "linewidth": 0.8 * sheet.scale}
        axes.barh(at, full - begin, left=begin, facecolor=sheet.ground if bar.hollow else colour, **style)
        if bar.value > full:
            axes.barh(at, bar.value - full, left=full, facecolor=sheet.ground, hatch="////", **style)
        _interval(axes, at, bar, sheet)
        end = bar.value if math.isnan(bar.high) else bar.high
        axes.plot(
            [bar.value],
            [at],
            marker=bar.look.marker,
            markersize=6.5 * sheet.scale,
            markerfacecolor=sheet.ground if bar.look.hollow else colour,
            markeredgecolor=colour if bar.look.hollow else sheet.ground,
            markeredgewidth=0.8 * sheet.scale,
            clip_on=False,
            zorder=4,
        )
    written = axes.annotate(
        bar.text,
        (end, at),
        xytext=(7 * sheet.scale, 0),
        textcoords="offset points",
        va="center",
        size=SMALL * sheet.scale,
        color=sheet.faint if math.isnan(bar.value) else sheet.ink,
        annotation_clip=False,
        parse_math=False,
        zorder=5,
    )
    written.set_path_effects([withStroke(linewidth=2.5, foreground=sheet.ground)])


def _interval(axes: Axes, at: float, bar: Bar, sheet: Sheet) -> None:
    """The 95 % interval as a whisker, on a rim of the ground's colour: it crosses bars of every colour."""
    if math.isnan(bar.low):
        return
    thick = 1.2 * sheet.scale
    rim = [withStroke(linewidth=2.6 * thick, foreground=sheet.ground)]
    for xs, ys in (
        ((bar.low, bar.high), (at, at)),
        ((bar.low, bar.low), (at - 0.15, at + 0.15)),
        ((bar.high, bar.high), (at - 0.15, at + 0.15)),
    ):
        axes.plot(
            xs,
            ys,
            color=sheet.ink,
            linewidth=thick,
            zorder=3,
            path_effects=rim,
            clip_on=False,
            gid="interval",
        )


def _ticks(axes: Axes, metric: str, logarithmic: bool, sheet: Sheet) -> None:
    low, high = axes.get_xlim()
    if logarithmic:
        ticks, labels = value_ticks(metric, low, high)
    else:
        scale = METRICS[metric].format([high])
        step = next(step for step in _steps() if high / scale.factor / step <= 5)
        whole = [number * step for number in range(int(high / scale.factor / step) + 1)]
        ticks, labels = [tick * scale.factor for tick in whole], [f"{tick:g} {scale.unit}" for tick in whole]
    most = axes.bbox.width / (0.75 * DPI * sheet.scale)
    kept = slice(None, None, max(1, math.ceil(len(ticks) / most)))
    axes.xaxis.set_ticks([], minor=True)
    axes.xaxis.set_ticks(ticks[kept], labels=labels[kept], size=TEXT * sheet.scale, color=sheet.ink)
    axes.grid(axis="x", color=sheet.grid, linewidth=0.6 * sheet.scale)


def _steps() -> Iterator[float]:
    """0.001, 0.002, 0.005, 0.01 and so on."""
    yield from (round(part * 10.0**power, 4) for power in range(-3, 5) for part in (1, 2, 5))


def _remarks(rows: Sequence[Bar], metric: str, logarithmic: bool) -> Iterator[str]:
    """What a reader must know of the marks that are there."""
    said = "".join(bar.text for bar in rows)
    if logarithmic:
        yield "log axis"
    if metric == "time_s":
        yield "whisker: 95 % interval"
    else:
        yield "full: in place; hatched: the peak above it"
    if any(bar.hollow for bar in rows):
        yield "hollow: not ranked" if metric == "time_s" else "hollow: over the limit"
    if any(bar.label.endswith("=") for bar in rows):
        yield "= tie"
    if OTHER_PRODUCT in said:
        yield f"{OTHER_PRODUCT} other matrix product"
    if DOUBT in said:
        yield f"{DOUBT} flagged"
