"""The series of a figure: their values, and where and why they break off."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from effbench.frame import Run
from effbench.lines import Row, once_a_run

from ._style import Look, look
from ._tables import FAILURES
from ._views import View

#: Of a point: its place, its value with the ends of the interval, and that part of it that is shown apart.
POINT = ("step", "value", "low", "high", "part")


@dataclass(frozen=True)
class Line:
    """One series: values at the steps where there are some, and where it broke off."""

    label: str
    look: Look
    points: pd.DataFrame  # ascending, with the columns of ``POINT``, of which the last three may be missing
    breaks: list[tuple[int, str]] = field(default_factory=list)  # first step of each gap, and what happened

    @property
    def end(self) -> tuple[float, float]:
        """Step and value of the last point."""
        last = self.points.iloc[-1]
        return float(last["step"]), float(last["value"])


def lines_of(run: Run, view: View, name: str) -> list[Line]:
    """The series of a view with their values of one metric."""
    low, high = ("time_low_s", "time_high_s") if name == "time_s" else (name, name)
    part = ("live_bytes",) if name == "total_bytes" else ()
    columns = (view.along, name, low, high, *part)
    variants = variants_of(run)
    return [
        Line(
            label,
            look(rows[0]["mechanism"], variants[label]),
            line_points([tuple(row[column] for column in columns) for row in rows if row[name] > 0]),
            _breaks(rows, view.along),
        )
        for label, rows in view.by_series.items()
    ]


def line_points(points: Sequence[tuple[float, ...]]) -> pd.DataFrame:
    """Points of a line: the columns of ``POINT``, the last one left out where no value has a part."""
    padded = [(*point, math.nan)[: len(POINT)] for point in points]
    return pd.DataFrame(padded, columns=POINT, dtype=float)


def _breaks(rows: Sequence[Row], along: str) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    before = "ok"
    for row in rows:
        status = row["status"]
        if status != "ok" and before == "ok":
            found.append((int(row[along]), FAILURES.get(status, status.upper())))
        before = status
    return found


@once_a_run
def variants_of(run: Run) -> dict[str, int]:
    """Each series' place among the series of its mechanism."""
    order: dict[str, dict[str, int]] = {}
    for mechanism, label in zip(run.frame["mechanism"], run.series, strict=True):
        labels = order.setdefault(mechanism, {})
        labels.setdefault(label, len(labels))
    return {label: number for labels in order.values() for label, number in labels.items()}
