"""How much faster than the baseline each mechanism is, against length or width."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.figure import Figure

from effbench.against import same_product
from effbench.frame import Run

from ._lines import Line, lines_of
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
    what = Quantity(title, _ticks, level=1.0, remark="band: from both 95 % intervals")
    return (
        f"speedup-by-{view.along}{view.suffix}",
        f"{title} ({view.title})",
        lambda sheet: draw(lines, view, what, sheet),
    )


def ratios(run: Run, view: View, baseline: str) -> list[Line]:
    """The baseline's time over each other's; a line breaks where other code multiplied its matrices."""
    lines = {line.label: line for line in lines_of(run, view, "time_s")}
    if baseline not in lines:
        return []
    reference = lines[baseline].points.set_index("step")
    rows = {(row["series"], row[view.along]): row for row in view.records}
    found = []
    for label, line in lines.items():
        if label == baseline:
            continue
        points = line.points[line.points["step"].isin(reference.index)]
        same = [same_product(run, rows[label, step], rows[baseline, step]) for step in points["step"]]
        breaks = [
            (int(step), OTHER_PRODUCT) for step, kept in zip(points["step"], same, strict=True) if not kept
        ]
        points = points[pd.Series(same, index=points.index, dtype=bool)]
        base = reference.loc[points["step"]]
        ratio = pd.DataFrame(
            {
                "step": points["step"].to_numpy(),
                "value": base["value"].to_numpy() / points["value"].to_numpy(),
                "low": base["low"].to_numpy() / points["high"].to_numpy(),
                "high": base["high"].to_numpy() / points["low"].to_numpy(),
            }
        )
        found.append(Line(label, line.look, ratio, sorted([*line.breaks, *breaks[:1]])))
    return found


def _ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Powers of ten with 2 and 5 between them, or halves and doubles where the range is small."""
    parts = (1, 2, 5) if high / low < 200 else (1,)
    ticks = [part * 10.0**power for power in range(-6, 7) for part in parts]
    ticks = [tick for tick in ticks if low <= tick <= high]
    return ticks, [f"{tick:g}×" for tick in ticks]
