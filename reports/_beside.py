"""Another run beside this one: machines, times at the cells that both have, exponents; nothing is mixed.

Each run has fits of its own. A ratio of times is shown only where both ran in one environment.
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from effbench.frame import Run
from effbench.lines import Row, rows_of
from effbench.metrics import METRICS
from effbench.plausibility import sound
from effbench.ranking import time_text
from effbench.scaling import TIMED, growths
from effbench.stats import ratio_interval
from effbench.words import setting_title

from ._machine import sentence
from ._tables import FAILURES, MARK, Table
from ._views import setting_text


def beside_blocks(run: Run, other: Run) -> list[str | Table]:
    """What a report shows of two runs."""
    names = _names(run, other)
    machines = [f"{name}: {sentence(one.machine)}" for name, one in zip(names, (run, other), strict=True)]
    return [*machines, _cells(run, other, names), _exponents(run, other, names)]


def _names(run: Run, other: Run) -> tuple[str, str]:
    names = run.folder.name, other.folder.name
    return names if names[0] != names[1] else (str(run.folder), str(other.folder))


def _cells(run: Run, other: Run, names: Sequence[str]) -> Table | str:
    """Every cell that both planned; a sentence where there is none."""
    theirs = {row["id"]: row for row in rows_of(other)}
    body = []
    for row in rows_of(run):
        if row["id"] in theirs:
            match = theirs[row["id"]]
            body.append(
                [
                    row["series"],
                    setting_text(row, run.varying),
                    _time(row),
                    _time(match),
                    _ratio(run, other, row, match),
                    _memory(row),
                    _memory(match),
                ]
            )
    header = [
        "Mechanism",
        "Setting",
        *(f"Time, {n}" for n in names),
        "Ratio",
        *(f"Memory, {n}" for n in names),
    ]
    alike = run.info.get("environment") == other.info.get("environment")
    note = (
        f"The ratio is {names[1]} / {names[0]}, with the interval of the ratio."
        if alike
        else "No ratio of times: the two were measured in different environments."
    )
    return Table("Cells of both runs", header, body, note) if body else "The two runs have no cell in common."


def _time(row: Row) -> str:
    if row["status"] != "ok":
        return FAILURES.get(row["status"], str(row["status"]).upper())
    return time_text(row) + ("" if sound(row, "time_s") else MARK)


def _memory(row: Row) -> str:
    if pd.isna(row["total_bytes"]):
        return ""
    return METRICS["total_bytes"].text(row["total_bytes"]) + ("" if sound(row, "total_bytes") else MARK)


def _ratio(run: Run, other: Run, row: Row, match: Row) -> str:
    if row["environment"] != match["environment"] or pd.isna(row["time_s"]) or pd.isna(match["time_s"]):
        return ""
    here, there = run.samples(row["id"]), other.samples(match["id"])
    interval = ratio_interval(here, there, run.spread.alone(here), other.spread.alone(there))
    text = f"{match['time_s'] / row['time_s']:.3f}"
    return f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else text


def _exponents(run: Run, other: Run, names: Sequence[str]) -> Table:
    """The exponents of time of each run, fitted apart."""
    sides = [
        {
            (growth.line.series, growth.line.along, setting_title(growth.setting.values)): str(growth)
            for growth in growths(one)
            if growth.metric == TIMED
        }
        for one in (run, other)
    ]
    letters = {"seq": "n", "dim": "d"}
    body = [
        [key[0], letters[key[1]], key[2], *(side.get(key, "not in this run") for side in sides)]
        for key in dict.fromkeys([*sides[0], *sides[1]])
    ]
    return Table("Exponents of time, each run by itself", ["Mechanism", "Of", "Setting", *names], body)
