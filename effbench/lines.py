"""Lines of a run: the cells of one mechanism that differ only in their length, or only in their width."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

from effbench.frame import AXES, Run

Row = dict[str, Any]
#: The axes that lines run along.
ALONG = ("seq", "dim")


@dataclass(frozen=True, eq=False)
class Line:
    """Rows of one series in the order of their size: the frame's columns, ``series`` and ``total_bytes``."""

    series: str
    along: str
    rows: tuple[Row, ...]

    @property
    def mechanism(self) -> str:
        return str(self.rows[0]["mechanism"])


@dataclass(frozen=True, eq=False)
class Setting:
    """Cells that agree in every axis of ``values``, and the lines that they make up."""

    along: str
    values: dict[str, Any]
    lines: tuple[Line, ...]


def settings(run: Run, along: str) -> list[Setting]:
    """Every setting of a run in which some series has several lengths (``seq``) or widths (``dim``)."""
    found = []
    for values, rows in _groups(table(run), along, run.varying):
        lines = [
            Line(str(series), along, tuple(as_rows(own.sort_values(along))))
            for series, own in rows.groupby("series", sort=False)
        ]
        if rows[along].nunique() > 1:
            found.append(Setting(along, values, tuple(lines)))
    return found


def table(run: Run) -> pd.DataFrame:
    """The frame with the columns ``series`` and ``total_bytes``."""
    return run.frame.assign(series=run.series, total_bytes=run.values("total_bytes"))


def as_rows(frame: pd.DataFrame) -> list[Row]:
    """Rows as dictionaries, which are much faster to walk through."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def _groups(
    frame: pd.DataFrame, along: str, varying: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    fixed = [axis for axis in dict.fromkeys(("seq", "dim", *AXES[2:])) if axis != along]
    fixed = [axis for axis in fixed if axis != "heads" or "heads" in varying]
    if not frame.empty:
        for values, rows in frame.groupby(fixed, sort=True):
            yield dict(zip(fixed, values, strict=True)), rows
