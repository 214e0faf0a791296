"""A run as a table: one row for every cell of the plan, its visits joined, all units plain SI.

``load_run`` gives a ``Run``: the frame with exactly the documented columns, the records behind it and what
``run.json`` holds. Nothing here needs torch.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from effbench.calm import Pace
from effbench.cell import Cell
from effbench.groups import Best, all_groups, groups_of, hindered, slowed
from effbench.record import Record
from effbench.rows import AXES as AXES
from effbench.rows import NOT_YET as NOT_YET
from effbench.rows import NUMBERS as NUMBERS
from effbench.rows import plain, row_of
from effbench.scrutiny import suspicions
from effbench.stats import Spread
from effbench.store import read_info, read_records

#: The columns of the frame and of ``table.csv``.
COLUMNS = (*AXES, "status", "reason", *NUMBERS, "flags", "environment", "id")


@dataclass(frozen=True, eq=False)
class Run:
    """A loaded run.

    ``frame`` has one row a cell; ``records`` is every line of the file, stale ones too; ``info`` is
    ``run.json``; ``visits`` holds the records that count, by cell and in the order of rounds; ``folder`` is
    where it was read from. ``beside`` is another run that a report shows next to this one.
    """

    frame: pd.DataFrame
    records: list[Record]
    info: dict[str, Any]
    visits: Mapping[str, Sequence[Record]]
    spread: Spread  # pooled over the run
    folder: Path
    beside: Run | None = None

    def answer(self, cell_id: str) -> Record | None:
        """The record that decides a cell's status; None while it has no answer."""
        visits = self.visits.get(cell_id, ())
        return visits[0] if visits and visits[0].round == 0 else None

    def samples(self, cell_id: str) -> list[list[float]]:
        """Seconds of each pass of a cell, one list a process."""
        return groups_of(self.visits.get(cell_id, ()), best_pace(self.info))

    def hindered(self, cell_id: str) -> float:
        """How many times as long these samples may have lasted as with the cores at their best; 1 if calm."""
        return hindered(self.visits.get(cell_id, ()), best_pace(self.info))

    def log(self, cell_id: str) -> str:
        """What the processes that measured a cell printed; nothing where they were silent."""
        path = self.folder / "logs" / f"{cell_id}.log"
        return path.read_text(errors="replace") if path.is_file() else ""

    def pairs(self, base: Run, cell_id: str) -> dict[int, tuple[list[float], list[float]]]:
        """Samples of base and of this run, by the number of each pair of visits that took turns."""
        before, after = (
            {
                visit.pair: visit.time.samples_s
                for visit in run.visits.get(cell_id, ())
                if visit.time and visit.pair is not None and len(visit.time.samples_s) > 1
            }
            for run in (base, self)
        )
        return {n: (before[n], after[n]) for n in sorted(before.keys() & after.keys())}

    def values(self, metric: str) -> pd.Series[float]:
        """One value a row: a column of numbers, or what is derived.

        ``total_bytes`` is live + peak; ``state_bytes`` is what decoding keeps of its context, part of live;
        ``flops_needed`` leaves out the dead parts of tiles, and is empty where nothing says what they are.
        """
        if metric == "total_bytes":
            return self.frame["live_bytes"] + self.frame["peak_bytes"]
        if metric == "flops_needed":
            return self._flops_needed
        if metric == "state_bytes":
            return self._state_bytes
        return self.frame[metric]

    @cached_property
    def _flops_needed(self) -> pd.Series[float]:
        return self._first(
            lambda visit: plain(visit.flops.needed) if visit.flops and visit.flops.needed else None
        )

    @cached_property
    def _state_bytes(self) -> pd.Series[float]:
        return self._first(lambda visit: visit.memory.state_bytes if visit.memory else None)

    def _first(self, pick: Callable[[Record], float | None]) -> pd.Series[float]:
        """What the first visit of each cell that has it says."""
        visits = (self.visits.get(cell_id, ()) for cell_id in self.frame["id"])
        found = [next((v for visit in own if (v := pick(visit)) is not None), None) for own in visits]
        return pd.Series(found, index=self.frame.index, dtype="float64")

    @cached_property
    def varying(self) -> tuple[str, ...]:
        """The axes that have several values in this run, ``mechanism`` and ``options`` not among them.

        ``heads`` is among them only where one width was asked with several numbers of heads.
        """
        frame = self.frame
        found = [axis for axis in AXES[2:] if axis != "heads" and frame[axis].nunique() > 1]
        if not frame.empty and frame.groupby("dim")["heads"].nunique().max() > 1:
            found.append("heads")
        return tuple(found)

    @cached_property
    def series(self) -> pd.Series[str]:
        """One label a row: the mechanism, with those of its options that take several values in this run."""
        parsed = {text: json.loads(text) for text in self.frame["options"].unique()}
        seen: dict[tuple[str, str], set[str]] = defaultdict(set)
        for mechanism, text in zip(self.frame["mechanism"], self.frame["options"], strict=True):
            for option, value in parsed[text].items():
                seen[mechanism, option].add(json.dumps(value))
        labels = [
            " ".join(
                [mechanism, *(_assign(o, v) for o, v in parsed[text].items() if len(seen[mechanism, o]) > 1)]
            )
            for mechanism, text in zip(self.frame["mechanism"], self.frame["options"], strict=True)
        ]
        return pd.Series(labels, index=self.frame.index, dtype=str)

    @property
    def machine(self) -> dict[str, Any]:
        """The facts of the environment that the rows were measured in."""
        facts = self.info.get("environments", {}).get(self.info.get("environment", ""), {})
        return dict(facts)

    @property
    def ceilings(self) -> dict[str, Any]:
        """What this machine can do, as measured in this run; empty where it was not."""
        found = self.info.get("ceilings", {}).get(self.info.get("environment", ""), {})
        return dict(found or {})


def load_run(folder: Path | str) -> Run:
    """Reads the folder of a run, finished or not.

    Raises:
        BadInput: there is no run, or a file of it is damaged.
    """
    return build_run(Path(folder), read_info(folder), read_records(folder))


def build_run(folder: Path, info: dict[str, Any], records: list[Record]) -> Run:
    """A run from what its files hold."""
    visits = _current_visits(info, records)
    best_s = best_pace(info)
    spread = _spread(visits.values(), best_s)
    environment = info.get("environment", "")
    ceilings = info.get("ceilings", {}).get(environment, {}) or {}
    rows = [
        row_of(entry["id"], Cell(**entry["cell"]), visits.get(entry["id"], ()), spread, ceilings, best_s)
        | {"environment": environment}
        for entry in info.get("plan", [])
    ]
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    found = suspicions(frame, info.get("mechanisms", {}), str(info.get("baseline") or ""))
    frame["flags"] = [
        ";".join(filter(None, [flags, *found.get(cell_id, ())]))
        for cell_id, flags in zip(frame["id"], frame["flags"], strict=True)
    ]
    types = dict.fromkeys(NUMBERS, "float64") | dict.fromkeys(("status", "reason", "flags", "id"), "str")
    return Run(frame.astype(types), records, info, visits, spread, Path(folder))


def best_pace(info: Mapping[str, Any]) -> dict[int, Pace]:
    """By threads, seconds of the fixed works beside the samples at their best on the machine of the run."""
    found = info.get("pace", {}).get(info.get("environment", ""), {})
    return {
        int(threads): (seconds,) if isinstance(seconds, float) else tuple(seconds)  # early runs: one work
        for threads, seconds in found.items()
    }


def _spread(cells: Collection[Sequence[Record]], best_s: Best) -> Spread:
    """That of calm samples, where two processes of some cell have any; else of all samples."""
    calm = Spread.pooled([groups_of(visits, best_s) for visits in cells if not slowed(visits, best_s)])
    return calm if calm.processes is not None else Spread.pooled([all_groups(visits) for visits in cells])


def write_table(run: Run, path: Path | str | TextIO) -> None:
    """Writes the frame as CSV: whole numbers without a point, other numbers to nine digits."""

    def text(value: Any) -> Any:
        if not isinstance(value, float):
            return value
        if value != value:
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 1e18 else f"{value:.9g}"

    table = run.frame.astype(object)
    for column in NUMBERS:
        table[column] = [text(value) for value in run.frame[column]]
    table.to_csv(path, index=False)


def _assign(option: str, value: Any) -> str:
    return f"{option}={value if isinstance(value, str | int | float) else json.dumps(value)}"


def _current_visits(info: dict[str, Any], records: Sequence[Record]) -> dict[str, tuple[Record, ...]]:
    """The records that answer today's question: planned, of this environment and of today's mechanism.

    The last record of a round counts. A cell without a first round has no answer, whatever else it has.
    """
    sources = {name: about.get("source") or "" for name, about in info.get("mechanisms", {}).items()}
    expected = {entry["id"]: sources.get(entry["cell"]["mechanism"]) for entry in info.get("plan", [])}
    latest: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in records:
        current = record.environment == info.get("environment", "")
        if current and record.id in expected and expected[record.id] in (None, record.source):
            latest[record.id][record.round] = record
    return {
        cell_id: tuple(rounds[number] for number in sorted(rounds))
        for cell_id, rounds in latest.items()
        if 0 in rounds
    }
