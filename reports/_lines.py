"""The series of a figure: their values, and where and why they break off."""

from __future__ import annotations

from dataclasses import dataclass, field

import pandas as pd

from effbench.frame import Run

from ._style import Look, look
from ._tables import FAILURES
from ._views import View


@dataclass(frozen=True)
class Line:
    """One series: values at the steps where there are some, and where it broke off."""

    label: str
    look: Look
    points: pd.DataFrame  # step, value, low, high; ascending; low and high may be missing
    breaks: list[tuple[int, str]] = field(default_factory=list)  # first step of each gap, and what happened

    @property
    def end(self) -> tuple[float, float]:
        """Step and value of the last point."""
        last = self.points.iloc[-1]
        return float(last["step"]), float(last["value"])


def lines_of(run: Run, view: View, name: str) -> list[Line]:
    """The series of a view with their values of one metric."""
    rows = view.rows.assign(value=run.values(name)[view.rows.index], step=view.rows[view.along])
    low, high = ("time_low_s", "time_high_s") if name == "time_s" else ("value", "value")
    rows = rows.assign(low=rows[low], high=rows[high])
    variants = variants_of(run)
    found = []
    for label in view.series:
        own = rows[rows["series"] == label].sort_values("step")
        points = own.loc[own["value"] > 0, ["step", "value", "low", "high"]]
        found.append(Line(label, look(own["mechanism"].iloc[0], variants[label]), points, _breaks(own)))
    return found


def _breaks(rows: pd.DataFrame) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    before = "ok"
    for step, status in zip(rows["step"], rows["status"], strict=True):
        if status != "ok" and before == "ok":
            found.append((int(step), FAILURES.get(status, status.upper())))
        before = status
    return found


def variants_of(run: Run) -> dict[str, int]:
    """Each series' place among the series of its mechanism."""
    order: dict[str, dict[str, int]] = {}
    for mechanism, label in zip(run.frame["mechanism"], run.series, strict=True):
        labels = order.setdefault(mechanism, {})
        labels.setdefault(label, len(labels))
    return {label: number for labels in order.values() for label, number in labels.items()}
