"""A run as a table: one row for every cell of the plan, its visits joined, all units plain SI.

``load_run`` gives a ``Run``: the frame with exactly the documented columns, the records behind it and what
``run.json`` holds. Nothing here needs torch.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import pandas as pd

from effbench.cell import Cell
from effbench.record import Record
from effbench.roofline import Bound, bound
from effbench.scrutiny import suspicions
from effbench.stats import Spread, median_interval, median_of_medians
from effbench.store import read_info, read_records

AXES: tuple[str, ...] = tuple(field.name for field in fields(Cell))
_NUMBERS_OF_TIME = ("time_s", "time_low_s", "time_high_s", "samples", "tokens_per_s")
_NUMBERS_OF_MEMORY = ("peak_bytes", "alloc_bytes", "live_bytes")
_NUMBERS_OF_WORK = ("flops", "transcendentals", "instructions", "bytes_moved")
_NUMBERS_OF_RATE = ("flops_per_s", "ceiling_fraction", "params")
NUMBERS = _NUMBERS_OF_TIME + _NUMBERS_OF_MEMORY + _NUMBERS_OF_WORK + _NUMBERS_OF_RATE
#: The columns of the frame and of ``table.csv``.
COLUMNS = (*AXES, "status", "reason", *NUMBERS, "flags", "environment", "id")

NOT_YET = "not measured yet"


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
        return _groups(self.visits.get(cell_id, ()))

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
        visits = (self.visits.get(cell_id, ()) for cell_id in self.frame["id"])
        blocks = [next((visit.flops for visit in own if visit.flops), None) for own in visits]
        found = [_plain(block.needed) if block and block.needed else None for block in blocks]
        return pd.Series(found, index=self.frame.index, dtype="float64")

    @cached_property
    def _state_bytes(self) -> pd.Series[float]:
        visits = (self.visits.get(cell_id, ()) for cell_id in self.frame["id"])
        blocks = [next((visit.memory for visit in own if visit.memory), None) for own in visits]
        found = [block.state_bytes if block else None for block in blocks]
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
    spread = Spread.pooled([_groups(found) for found in visits.values()])
    environment = info.get("environment", "")
    ceilings = info.get("ceilings", {}).get(environment, {}) or {}
    rows = [
        _row(entry["id"], Cell(**entry["cell"]), visits.get(entry["id"], ()), spread, ceilings)
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


def _groups(visits: Sequence[Record]) -> list[list[float]]:
    """Samples in seconds, one list a process; visits that name no process are one each."""
    if not visits or visits[0].status != "ok":
        return []
    groups: dict[str, list[float]] = defaultdict(list)
    for visit in visits:
        if visit.time and visit.time.samples_s:
            groups[visit.process or f"round {visit.round}"].extend(visit.time.samples_s)
    return list(groups.values())


def _row(
    cell_id: str, cell: Cell, visits: Sequence[Record], spread: Spread, ceilings: Mapping[str, Any]
) -> dict[str, Any]:
    row: dict[str, Any] = {axis: getattr(cell, axis) for axis in AXES}
    row |= {axis: json.dumps(row[axis], sort_keys=True) for axis in ("options", "stack")}
    row["id"] = cell_id
    if not visits:
        return row | {"status": "skipped", "reason": NOT_YET, "flags": ""}
    flags = list(dict.fromkeys(flag for visit in visits for flag in visit.flags))
    if visits[0].status == "ok":
        groups = _groups(visits)
        if any(visit.status != "ok" for visit in visits[1:]):
            flags.append("visit-failed")
        row |= _times(cell, groups, spread) | _memory(visits) | _work(visits)
        least = _least(cell, row, visits, ceilings)
        row |= _rates(row, least)
        if least and least.exceeded_by(row["time_s"]):
            flags.append("above-ceiling")
        if len(groups) == 1 and spread.processes is not None:
            flags.append("borrowed")
    return row | {"status": visits[0].status, "reason": visits[0].reason, "flags": ";".join(flags)}


def _times(cell: Cell, groups: list[list[float]], spread: Spread) -> dict[str, Any]:
    if not groups:
        return {}
    time = median_of_medians(groups)
    low, high = median_interval(groups, spread.of(groups)) or (None, None)
    tokens = cell.batch * (1 if cell.mode == "decode" else cell.seq)
    values = (time, low, high, sum(map(len, groups)), tokens / time)
    return dict(zip(_NUMBERS_OF_TIME, values, strict=True))


def _memory(visits: Sequence[Record]) -> dict[str, Any]:
    """The least of the visits that measured memory: what disturbs it only adds."""
    found = [visit.memory for visit in visits if visit.memory]
    values = {n: [v for m in found if (v := getattr(m, n)) is not None] for n in _NUMBERS_OF_MEMORY}
    return {name: min(seen) if seen else None for name, seen in values.items()} if found else {}


def _work(visits: Sequence[Record]) -> dict[str, Any]:
    """FLOPs as counted, as declared where nothing could be counted; a multiply-add is 2."""
    row: dict[str, Any] = {
        "instructions": next((v.instructions for v in visits if v.instructions is not None), None),
        "params": next((visit.params for visit in visits if visit.params is not None), None),
    }
    block = next((visit.flops for visit in visits if visit.flops), None)
    if block is None:
        return row
    counts = block.counted if block.counted is not None else block.formula
    row["bytes_moved"] = block.bytes_moved
    if counts is not None:
        row["flops"] = _plain(counts)
        row["transcendentals"] = counts.get("transcendental", 0)
    return row


def _least(
    cell: Cell, row: Mapping[str, Any], visits: Sequence[Record], ceilings: Mapping[str, Any]
) -> Bound | None:
    """The least time that this machine could need for what a pass does; None where nothing says it."""
    if row.get("time_s") is None:
        return None
    live, rise = row.get("live_bytes"), row.get("alloc_bytes") or row.get("peak_bytes")
    return bound(
        ceilings,
        dtype=cell.dtype,
        device=cell.device,
        threads=cell.threads,
        providers=(visits[0].path.get("gemm") or "").split("+"),
        flops=_needed(visits, row.get("flops")),
        bytes_moved=row.get("bytes_moved"),
        held_bytes=None if live is None or rise is None else live + rise,
        time_s=row["time_s"],
    )


def _rates(row: Mapping[str, Any], least: Bound | None) -> dict[str, Any]:
    """FLOP/s achieved, and the least time as a share of the time taken."""
    time, flops = row.get("time_s"), row.get("flops")
    if time is None:
        return {}
    return {
        "flops_per_s": None if flops is None else flops / time,
        "ceiling_fraction": least.seconds / time if least else None,
    }


def _needed(visits: Sequence[Record], flops: float | None) -> float | None:
    """FLOPs without the dead parts of causal tiles, since a kernel may leave them out."""
    needed = next((visit.flops.needed for visit in visits if visit.flops and visit.flops.needed), None)
    if needed is None:
        return flops
    return _plain(needed) if flops is None else min(flops, _plain(needed))


def _plain(counts: Mapping[str, float]) -> float:
    return sum(counts.get(kind, 0) for kind in ("matmul", "elementwise", "fft"))
