"""What a run has to say to a claim: the row that is meant, if it may support a finding, and ratios of two.

``params-differ`` is no doubt here: papers compare their own shapes, and the parameters are said beside. Nor
are the flags that say growth is not as declared.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

import pandas as pd

from effbench.against import brief, met, ratio_of, same_product
from effbench.claim import TIMED, Where
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
    if column != "params" and (doubtful := _doubtful(row, column)):
        meanings = legend(doubtful)
        raise Missing(f"{where}: " + "; ".join(f"{flag}: {meanings[flag]}" for flag in doubtful))
    return row


def _doubtful(row: Row, column: str) -> list[str]:
    """The flags that put a number in doubt, for what is asked here."""
    flags = [flag for flag in flags_of(row) if flag not in _NO_DOUBT_HERE]
    return [flag for flag in flags if not sound({"status": "ok", "flags": flag}, column)]


def by_length(run: Run, where: Where) -> dict[int, Row]:
    """The rows that have all the values given, by their lengths, ascending.

    Raises:
        Missing: there is none, or there are several of one length.
    """
    rows = sorted(matching(run, where), key=lambda row: int(row["seq"]))
    found = {int(row["seq"]): row for row in rows}
    if not rows:
        raise Missing(not_asked(where))
    if len(found) < len(rows):
        raise Missing(f"several cells of this run are {where} at one length")
    return found


def reached(run: Run, where: Where) -> tuple[int, str]:
    """The longest length that ran, and the status of the next one; nothing where no longer one was asked.

    Raises:
        Missing: there is no such cell, or none that ran.
    """
    rows = by_length(run, where)
    longest = max((length for length, row in rows.items() if row["status"] == "ok"), default=None)
    if longest is None:
        raise Missing(f"{where}: no length ran")
    beyond = next((row for length, row in rows.items() if length > longest), None)
    return longest, "" if beyond is None else str(beyond["status"])


@dataclass(frozen=True)
class Onset:
    """From which length on something costs less: an interval, 0 or infinite where it is open."""

    low: float
    high: float
    words: str


def onset(run: Run, of: Where, to: Where, metric: str) -> Onset:
    """The length from which on one costs less than the other.

    Raises:
        Missing: no length has a sound number on both sides, or they do not tell the two apart.
    """
    own, other = by_length(run, of), by_length(run, to)
    pairs = [
        (own[length], other[length])
        for length in own.keys() & other.keys()
        if all(_usable(row, metric) for row in (own[length], other[length]))
    ]
    pairs = sorted((pair for pair in pairs if same_product(run, *pair)), key=lambda pair: int(pair[0]["seq"]))
    if not pairs:
        raise Missing(f"at no length there is a sound number of both {of} and {to}")
    found = met(run, pairs, metric, "seq")
    words, turns = brief(found), {crossing.to for crossing in found.measured}
    if turns == {"cheaper"} and len(found.measured) == 1:
        return Onset(found.measured[0].low, found.measured[0].high, words)
    if not turns and set(found.signs) <= {-1, 0} and found.cheaper_from is not None:
        return Onset(0.0, found.cheaper_from, words)
    if not turns and set(found.signs) == {1}:
        return Onset(found.sizes[-1], math.inf, words)
    raise Missing(f"{of} and {to} cross more than once, or never for certain: {words}")


def _usable(row: Row, metric: str) -> bool:
    return bool(row["status"] == "ok" and pd.notna(row[metric]) and not _doubtful(row, metric))


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
