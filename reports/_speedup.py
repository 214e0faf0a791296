"""How much faster than the baseline each mechanism is, against length or width."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from effbench.against import ratio_of, same_product
from effbench.frame import Run
from effbench.lines import Row

from ._lines import Line, line_points, lines_of
from ._scaling import Quantity, draw, x_title
from ._style import Sheet
from ._views import View

OTHER_PRODUCT = "other matrix product"


def speedup(run: Run, view: View) -> tuple[str, str, Callable[[Sheet], Figure]] | None:
    """Name, title and drawing; None where the view lacks the baseline or others to hold against it."""
    baseline = str(run.info.get("baseline") or "")
    lines = ratios(run, view, baseline)
    if not any(len(line.points) > 1 for line in lines):
        return None
    title = f"Speed-up over {baseline} by {x_title(view)}"
    what = Quantity(title, _ticks, level=1.0, remark="band: 95 % interval of the ratio")
    return (
        f"speedup-by-{view.along}{view.suffix}",
        f"{title} ({view.title})",
        lambda sheet: draw(lines, view, what, sheet),
    )


def ratios(run: Run, view: View, baseline: str) -> list[Line]:
    """The baseline's time over each other's, with the interval of the ratio.

    A line breaks where other code multiplied its matrices.
    """
    lines = {line.label: line for line in lines_of(run, view, "time_s")}
    base = {row[view.along]: row for row in view.by_series.get(baseline, ()) if row["time_s"] > 0}
    found = []
    for label, line in lines.items():
        if not base or label == baseline:
            continue
        timed = [row for row in view.by_series[label] if row["time_s"] > 0 and row[view.along] in base]
        both = [(row, base[row[view.along]]) for row in timed]
        points = [_ratio(run, view.along, *pair) for pair in both if same_product(run, *pair)]
        others = [int(row[view.along]) for row, other in both if not same_product(run, row, other)]
        breaks = [(step, OTHER_PRODUCT) for step in others[:1]]
        found.append(Line(label, line.look, line_points(points), sorted([*line.breaks, *breaks])))
    return found


def _ratio(run: Run, along: str, row: Row, base: Row) -> tuple[float, ...]:
    low, high = ratio_of(run, row, base, "time_s")
    return row[along], base["time_s"] / row["time_s"], 1 / high, 1 / low


def _ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Powers of ten with 2 and 5 between them, or halves and doubles where the range is small."""
    parts = (1, 2, 5) if high / low < 200 else (1,)
    ticks = [part * 10.0**power for power in range(-6, 7) for part in parts]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks, [f"{tick:g}×" for tick in ticks]
