"""Lines of a run: the cells of one mechanism that differ only in their length, or only in their width."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from effbench.frame import AXES, Run

Row = dict[str, Any]
Answer = TypeVar("Answer")
#: The axes that lines run along.
ALONG = ("seq", "dim")


@dataclass(frozen=True, eq=False)
class Line:
    """Rows of one series in the order of their size, as ``rows_of`` gives them."""

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


def once_a_run(answer: Callable[[Run], Answer]) -> Callable[[Run], Answer]:
    """Remembers what a function says of a run for as long as the run lives: every report asks the same."""
    known: WeakKeyDictionary[Run, Answer] = WeakKeyDictionary()

    @wraps(answer)
    def remembered(run: Run) -> Answer:
        if run not in known:
            known[run] = answer(run)
        return known[run]

    return remembered


def settings(run: Run, along: str) -> list[Setting]:
    """Every setting of a run in which some series has several lengths (``seq``) or widths (``dim``)."""
    fixed = [axis for axis in dict.fromkeys(("seq", "dim", *AXES[2:])) if axis != along]
    fixed = [axis for axis in fixed if axis != "heads" or "heads" in run.varying]
    groups: dict[tuple[Any, ...], dict[str, list[Row]]] = {}
    for row in rows_of(run):
        series = groups.setdefault(tuple(row[axis] for axis in fixed), {})
        series.setdefault(row["series"], []).append(row)
    return [
        Setting(along, dict(zip(fixed, key, strict=True)), tuple(_lines(along, series)))
        for key, series in sorted(groups.items(), key=lambda group: group[0])
        if len({row[along] for rows in series.values() for row in rows}) > 1
    ]


def _lines(along: str, series: dict[str, list[Row]]) -> Iterator[Line]:
    for label, rows in series.items():
        yield Line(label, along, tuple(sorted(rows, key=lambda row: int(row[along]))))


@once_a_run
def rows_of(run: Run) -> list[Row]:
    """The rows of a run as dictionaries: the frame's columns, ``series`` and what ``Run.values`` derives."""
    derived = {name: run.values(name) for name in ("total_bytes", "state_bytes", "flops_needed")}
    frame = run.frame.assign(series=run.series, **derived)
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
