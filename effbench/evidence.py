"""What a run has to say to a claim: the row that is meant, if it may support a finding, and ratios of two.

``params-differ`` is no doubt here: papers compare their own shapes, and the parameters are said beside. Nor
are the flags that say growth is not as declared.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pandas as pd

from effbench.against import ratio_of, same_product
from effbench.claims import TIMED, Where
from effbench.frame import Run
from effbench.lines import Row, once_a_run, rows_of
from effbench.metrics import METRICS
from effbench.plausibility import flags_of, legend, sound

_NO_DOUBT_HERE = ("params-differ", "off-declared", "memory-off-declared")


@dataclass(frozen=True)
class Measured:
    """A ratio with its 95 % interval; nan where nothing is known of how processes differ."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if math.isnan(self.low) or self.low == self.high:
            return number(self.value)
        return f"{number(self.value)} [{number(self.low)}, {number(self.high)}]"


class Missing(Exception):
    """A number that a claim needs and the run has not, or not without doubt."""


def matching(run: Run, where: Where) -> list[Row]:
    """The rows of a run that have all the values given."""
    asked = where.given.items()
    return [row for row, axes in _axes(run) if all(axis in axes and axes[axis] == v for axis, v in asked)]


def sound_row(run: Run, where: Where, metric: str) -> Row:
    """The one row that is meant, with a number that may support a finding.

    Raises:
        Missing: no row or several, no number, or one in doubt.
    """
    rows = matching(run, where)
    if len(rows) != 1:
        raise Missing(f"{len(rows)} cells of this run are {where}" if rows else not_asked(where))
    (row,) = rows
    if row["status"] != "ok":
        raise Missing(f"{where}: {row['status']}" + (f" ({row['reason']})" if row["reason"] else ""))
    column = "time_s" if metric in TIMED else metric
    if pd.isna(row[column]):
        raise Missing(f"{where}: {METRICS[column].title} was not measured")
    flags = [flag for flag in flags_of(row) if flag not in _NO_DOUBT_HERE]
    if column != "params" and not sound({"status": "ok", "flags": ";".join(flags)}, column):
        doubtful = [flag for flag in flags if not sound({"status": "ok", "flags": flag}, column)]
        meanings = legend(doubtful)
        raise Missing(f"{where}: " + "; ".join(f"{flag}: {meanings[flag]}" for flag in doubtful))
    return row


def not_asked(where: Where) -> str:
    return f"no cell of this run is {where}"


def ratio(run: Run, of: Row, to: Row, metric: str) -> Measured:
    """One number of a row over that of another, with the interval that the run's processes give it.

    Raises:
        Missing: different providers multiplied the matrices of the two, or there is nothing to divide by.
    """
    if metric in ("params", "flops"):
        exact = of[metric] / to[metric]
        return Measured(exact, exact, exact)
    if metric not in TIMED:
        if not to[metric]:
            raise Missing(f"{METRICS[metric].title} of the second is too little to be seen")
        return Measured(of[metric] / to[metric], *ratio_of(run, of, to, metric))
    if not same_product(run, of, to):
        raise Missing("the matrix products of the two came from different providers")
    value, (low, high) = of["time_s"] / to["time_s"], ratio_of(run, of, to, "time_s")
    if metric == "time_s":
        return Measured(value, low, high)
    done = of["batch"] / to["batch"]
    if metric == "tokens_per_s":
        done = (of["tokens_per_s"] * of["time_s"]) / (to["tokens_per_s"] * to["time_s"])
    return Measured(done / value, done / high, done / low)


def number(value: float) -> str:
    """Three digits, as people write them."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


@once_a_run
def _axes(run: Run) -> list[tuple[Row, Row]]:
    """Every row with its axes, each option and each part of the stack as one of its own."""
    found = []
    for row in rows_of(run):
        inner = {axis: json.loads(row[axis]) for axis in ("options", "stack")}
        whole = {f"{axis}.{key}": value for axis, table in inner.items() for key, value in table.items()}
        found.append((row, {**row, **whole}))
    return found
