"""The answer at a point: which mechanism is fastest at a length and width, what it holds, and which tie.

A mechanism's rank is one more than the number of those that are decidedly faster: those whose ratio to it has
an interval that leaves out 1. So mechanisms that cannot be told apart share a rank. Rows in doubt, rows whose
time has no interval, and rows whose matrix products came from another provider than the baseline's, are shown
without a rank.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from effbench.against import TILED, default_baseline, product_of, ratio_of, same_function, same_product
from effbench.errors import BadInput
from effbench.frame import AXES, Run
from effbench.grammar import parse_axis
from effbench.lines import ALONG, Row, once_a_run, rows_of, settings
from effbench.metrics import METRICS, three_digits
from effbench.plausibility import by_one_pass, sound
from effbench.words import setting_title

#: What may be named in ``--at``: the axes of a cell but those that make a series.
AT = tuple(dict.fromkeys(("seq", "dim", *(a for a in AXES if a not in ("mechanism", "options", "stack")))))


@dataclass(frozen=True)
class Place:
    """One row of a ranking; ``rank`` is None where it has none, and ``note`` says why."""

    row: Row
    rank: int | None
    ratio: float  # time / the baseline's; nan where there is none
    interval: tuple[float, float]
    same_function: bool  # as the baseline
    note: str = ""
    tied: bool = False  # others have the same rank

    @property
    def rank_text(self) -> str:
        """``2``, ``2=`` where it shares that rank, ``–`` where a number has none, empty without any."""
        if self.row["status"] != "ok":
            return ""
        return f"{self.rank}{'=' * self.tied}" if self.rank else "–"


@dataclass(frozen=True)
class Ranking:
    """All mechanisms of one setting at one length and width, fastest first, those without a time last."""

    setting: dict[str, Any]
    baseline: str  # its series; empty where the point has none
    places: tuple[Place, ...]

    @property
    def title(self) -> str:
        """Where it is, in words."""
        return setting_title(self.setting)

    @property
    def groups(self) -> list[tuple[str, tuple[Place, ...]]]:
        """Those that compute the baseline's function, and those that do not; ranks are joint.

        Each group with its name; all in one, without a name, where there is no baseline.
        """
        if not self.baseline:
            return [("", self.places)]
        named = (
            ("the same function as " + self.baseline, True),
            ("other functions, which need training", False),
        )
        groups = [(name, tuple(p for p in self.places if p.same_function == same)) for name, same in named]
        return [(name, places) for name, places in groups if places]

    def cheapest_within(self, memory: float) -> tuple[Place, ...]:
        """The fastest of those that hold no more than so many bytes (live + peak), with what ties with it."""
        fitting = [place for place in self._with_memory if place.row["total_bytes"] <= memory]
        best = min((place.rank for place in fitting if place.rank), default=None)
        return tuple(place for place in fitting if place.rank == best)

    @property
    def _with_memory(self) -> list[Place]:
        """The ranked ones whose memory is known and not in doubt."""
        return [
            place
            for place in self.places
            if place.rank and pd.notna(place.row["total_bytes"]) and sound(place.row, "total_bytes")
        ]

    @property
    def frontier(self) -> tuple[Place, ...]:
        """The fastest within each memory limit: from the smallest up, each faster than all that hold less."""
        found: list[Place] = []
        for place in sorted(self._with_memory, key=lambda p: (p.row["total_bytes"], p.row["time_s"])):
            assert place.rank is not None
            if not found or place.rank < (found[-1].rank or 0):
                found.append(place)
        return tuple(found)


def parse_point(text: str) -> dict[str, Any]:
    """``seq=8192,dim=512`` as a mapping from axis to value.

    Raises:
        BadInput: not of that form, or no axis of that name.
    """
    point: dict[str, Any] = {}
    for part in text.split(","):
        axis, equals, value = (piece.strip() for piece in part.partition("="))
        if not (equals and axis and value):
            raise BadInput(f"--at: {part.strip()!r} is not of the form axis=value, such as seq=8192,dim=512")
        if axis not in AT:
            raise BadInput(f"--at: no axis {axis!r}; expected one of {', '.join(AT)}")
        point[axis] = _value(axis, value)
    return point


def _value(axis: str, text: str) -> Any:
    if axis in ("causal", "compile"):
        if text.lower() not in ("true", "false"):
            raise BadInput(f"--at: {axis}={text} is neither true nor false")
        return text.lower() == "true"
    if axis in ("batch", "seq", "dim", "heads", "threads"):
        values = parse_axis(text, where=f"--at: {axis}")
        if len(values) > 1:
            raise BadInput(f"--at: {axis}={text} is {len(values)} values; a point has one")
        return values[0]
    return text


def rankings(run: Run, point: Mapping[str, Any]) -> list[Ranking]:
    """One ranking for every setting of the run at a point; axes that the point leaves out may have any value.

    Raises:
        BadInput: the run has no cell there; the message names the values that it has.
    """
    rows = rows_of(run)
    for axis, value in point.items():
        there = [row for row in rows if row[axis] == value]
        if not there:
            known = ", ".join(map(str, sorted({row[axis] for row in rows})))
            others = " ".join(f"{a}={v}" for a, v in point.items() if a != axis)
            where = f" at {others}" if others else ""
            raise BadInput(f"--at: no cell with {axis}={value}{where}; there are {known}")
        rows = there
    fixed = [axis for axis in (*AT, "stack") if axis != "heads" or "heads" in run.varying]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[axis] for axis in fixed), []).append(row)
    return [
        _ranking(run, dict(zip(fixed, key, strict=True)), own)
        for key, own in sorted(groups.items(), key=lambda group: group[0])
    ]


#: Points at which a run is ranked where none was asked for.
POINTS = 8


@once_a_run
def points(run: Run) -> list[Ranking]:
    """The rankings of a run: at the point that was asked for, else at one length of each line.

    That is the largest at which the time of most mechanisms is known and not in doubt. A run without a line
    along the length is ranked at one width of each line; one without any line, at every point, up to
    ``POINTS``.
    """
    if asked := run.info.get("at"):
        return rankings(run, asked)
    found = next(filter(None, (_along(run, along) for along in ALONG)), [])
    return (found or (rankings(run, {}) if len(run.frame) else []))[:POINTS]


def _along(run: Run, along: str) -> list[Ranking]:
    """A ranking for each setting with lines along the length or width."""
    found: list[Ranking] = []
    for setting in settings(run, along):
        counts = Counter(row[along] for line in setting.lines for row in line.rows if sound(row, "time_s"))
        if counts:
            most = max(counts, key=lambda step: (counts[step], step))
            at = {axis: value for axis, value in setting.values.items() if axis in AT}
            there = rankings(run, {along: most, **at})
            found += [one for one in there if one.setting["stack"] == setting.values["stack"]]
    return found


def answers_by_itself(run: Run) -> bool:
    """Whether a run asked one length only, or one width, so that nobody needs to name a point."""
    return bool(run.frame["seq"].nunique() == 1 or run.frame["dim"].nunique() == 1)


def _ranking(run: Run, setting: dict[str, Any], rows: Sequence[Row]) -> Ranking:
    name = default_baseline(run)
    base = next((row for row in rows if row["mechanism"] == name and row["status"] == "ok"), None)
    timed = [row for row in rows if row["status"] == "ok" and pd.notna(row["time_s"])]
    fit = [row for row in timed if sound(row, "time_s") and pd.notna(row["time_low_s"])]
    product = _usual_product(run, fit, base)
    ranked = [row for row in fit if product_of(run, row["id"]) in ("", product)]
    ids = {row["id"] for row in ranked}
    places = [
        _place(run, row, base, rows, _rank(run, row, ranked) if row["id"] in ids else None, name)
        for row in rows
    ]
    shared = Counter(place.rank for place in places if place.rank)
    places = [replace(place, tied=shared[place.rank] > 1) if place.rank else place for place in places]
    places.sort(key=lambda place: (place.rank is None, math.isnan(place.row["time_s"]), place.row["time_s"]))
    return Ranking(setting, base["series"] if base else "", tuple(places))


def _usual_product(run: Run, rows: Sequence[Row], base: Row | None) -> str:
    """Who multiplied matrices for most of them; of two for as many, who did for the baseline."""
    found = Counter(product_of(run, row["id"]) for row in rows)
    own = product_of(run, base["id"]) if base is not None else ""
    return max(found, key=lambda name: (name != "", found[name], name == own), default="")


def _rank(run: Run, row: Row, ranked: Sequence[Row]) -> int:
    faster = [other for other in ranked if other["time_s"] < row["time_s"]]
    return 1 + sum(ratio_of(run, row, other, "time_s")[0] > 1 for other in faster)


def _place(
    run: Run, row: Row, base: Row | None, rows: Sequence[Row], rank: int | None, baseline: str
) -> Place:
    exchangeable = bool(baseline) and same_function(run, row["mechanism"], baseline)
    ratio, interval = math.nan, (math.nan, math.nan)
    comparable = base is not None and pd.notna(row["time_s"]) and row["status"] == "ok"
    if base is not None and comparable and base["id"] != row["id"]:
        ratio, interval = row["time_s"] / base["time_s"], ratio_of(run, row, base, "time_s")
    note = ""
    if comparable and base is not None and not same_product(run, row, base):
        note = _other_product(run, row, rows)
    elif row["status"] == "ok" and not sound(row, "time_s"):
        note = f"not ranked: {row['flags'].replace(';', ', ')}"
    elif row["status"] == "ok" and pd.notna(row["time_s"]) and pd.isna(row["time_low_s"]):
        note = "not ranked: its time has no interval"
    elif rank is None and row["status"] == "ok" and pd.notna(row["time_s"]):
        note = f"not ranked: other matrix product ({product_of(run, row['id'])})"
    return Place(row, rank, ratio, interval, exchangeable, note)


def _other_product(run: Run, row: Row, rows: Sequence[Row]) -> str:
    """What is said of a row whose products another provider multiplied than the baseline's."""
    note = f"other matrix product ({product_of(run, row['id'])})"
    exact = next((other for other in rows if other["mechanism"] == TILED and other["status"] == "ok"), None)
    if exact is None or exact["id"] == row["id"] or not same_product(run, row, exact):
        return note
    low, high = ratio_of(run, row, exact, "time_s")
    return f"{note}; {_share(row['time_s'] / exact['time_s'], low, high)} of the time of {TILED} on the same"


#: The columns of ``texts``.
HEADER = ("Rank", "Mechanism", "Time", "Time / baseline's", "Memory (live + peak)", "FLOPs", "Remark")


def texts(place: Place) -> tuple[str, ...]:
    """A row of a ranking in words, under ``HEADER``."""
    row = place.row
    if row["status"] != "ok":
        return "", row["series"], row["status"].upper(), "", "", "", row["reason"]
    return (
        place.rank_text,
        row["series"],
        time_text(row),
        ratio_text(place),
        _number("total_bytes", row),
        _number("flops", row),
        place.note,
    )


def ratio_text(place: Place) -> str:
    """Its time as a share of the baseline's, with the interval: ``0.3 [0.297, 0.304]``; empty without one."""
    if math.isnan(place.ratio):
        return ""
    return _share(place.ratio, *place.interval)


def _share(ratio: float, low: float, high: float) -> str:
    known = "" if math.isnan(low) else f" [{three_digits(low)}, {three_digits(high)}]"
    return three_digits(ratio) + known


def time_text(row: Mapping[str, Any]) -> str:
    """A time with its interval: ``30.3 ms ±3 %``, and ``one pass`` where that had to do."""
    if pd.isna(row["time_s"]):
        return "n/a"
    scale = METRICS["time_s"].format([row["time_s"]])
    interval = (
        ""
        if pd.isna(row["time_low_s"])
        else f" {scale.interval(row['time_low_s'], row['time_s'], row['time_high_s'])}"
    )
    return scale(row["time_s"]) + interval + (", one pass" if by_one_pass(row) else "")


def _number(metric: str, row: Mapping[str, Any]) -> str:
    if pd.isna(row[metric]):
        return "n/a"
    return METRICS[metric].text(row[metric]) + ("" if sound(row, metric) else " †")
