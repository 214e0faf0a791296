"""One cell as a row of the frame: what its visits say together, and what follows from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from effbench.cell import Cell
from effbench.groups import Best, flags_of, groups_of, hindered, slowed
from effbench.record import Record
from effbench.roofline import Bound, bound
from effbench.stats import Spread, median_interval, median_of_medians

AXES: tuple[str, ...] = tuple(field.name for field in fields(Cell))
_NUMBERS_OF_TIME = ("time_s", "time_low_s", "time_high_s", "samples", "tokens_per_s")
_NUMBERS_OF_MEMORY = ("peak_bytes", "alloc_bytes", "live_bytes")
_NUMBERS_OF_WORK = ("flops", "transcendentals", "instructions", "bytes_moved")
_NUMBERS_OF_RATE = ("flops_per_s", "ceiling_fraction", "params")
NUMBERS = _NUMBERS_OF_TIME + _NUMBERS_OF_MEMORY + _NUMBERS_OF_WORK + _NUMBERS_OF_RATE

NOT_YET = "not measured yet"
ABOVE_CEILING, DISTURBED_CEILING = "above-ceiling", "disturbed-ceiling"


def row_of(
    cell_id: str,
    cell: Cell,
    visits: Sequence[Record],
    spread: Spread,
    ceilings: Mapping[str, Any],
    best_s: Best,
) -> dict[str, Any]:
    """The columns of a cell: numbers only where it is ok; without visits it is skipped, not measured yet."""
    row: dict[str, Any] = {axis: getattr(cell, axis) for axis in AXES}
    row |= {axis: json.dumps(row[axis], sort_keys=True) for axis in ("options", "stack")}
    row["id"] = cell_id
    if not visits:
        return row | {"status": "skipped", "reason": NOT_YET, "flags": ""}
    flags = flags_of(visits, best_s)
    if visits[0].status == "ok":
        groups = groups_of(visits, best_s)
        if any(visit.status != "ok" for visit in visits[1:]):
            flags.append("visit-failed")
        row |= _times(cell, groups, spread, hindered(visits, best_s)) | _memory(visits) | _work(visits)
        least = _least(cell, row, visits, ceilings)
        row |= _rates(row, least)
        if least and least.disturbed:  # to be above it says nothing
            flags.append(DISTURBED_CEILING)
        elif least and least.exceeded_by(row["time_s"]):
            flags.append(ABOVE_CEILING)
        if slowed(visits, best_s):
            flags.append("slowed")
        if len(groups) == 1 and spread.processes is not None:
            flags.append("borrowed")
    return row | {"status": visits[0].status, "reason": visits[0].reason, "flags": ";".join(flags)}


def _times(cell: Cell, groups: list[list[float]], spread: Spread, longer: float) -> dict[str, Any]:
    """``longer``: so many times as long as with the cores at hand; the interval reaches down as far."""
    if not groups:
        return {}
    time = median_of_medians(groups)
    low, high = median_interval(groups, spread.alone(groups)) or (None, None)
    low = low and low / longer
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
        row["flops"] = plain(counts)
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
        providers=visits[0].providers,
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
    return plain(needed) if flops is None else min(flops, plain(needed))


def plain(counts: Mapping[str, float]) -> float:
    """FLOPs of all kinds but transcendentals, which have a column of their own."""
    return sum(counts.get(kind, 0) for kind in ("matmul", "elementwise", "fft"))
