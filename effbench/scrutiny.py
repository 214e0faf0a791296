"""Doubts that arise from comparing a row with what it must hold, with its line, and with the baseline.

A pure function on the frame: nothing is measured, and no number is changed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from effbench.cell import STEPWISE
from effbench.growth import exponents
from effbench.plausibility import on_slowed_cores, sound

Row = Mapping[str, Any]

_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
#: A peak may be below what must be held by what a counter of resident pages misses.
_PEAK_SHARE, _PEAK_BYTES = 0.98, 512 << 10
#: Time is flat where it grows by less than this over so many times the length, and the input is no trifle.
_FLAT, _FLAT_OVER, _FLAT_FROM = 1.25, 8, 1 << 18
#: Exponents are taken over at least so many times the length, from passes that are no mere overhead.
_OVER, _FROM_S, _FROM_BYTES = 4, 2e-3, 4 << 20
#: Far from declared: caches and overheads bend an honest exponent by about a third.
_BELOW, _ABOVE = 0.4, 0.5
_PARAMS = 0.1


def suspicions(
    frame: pd.DataFrame, mechanisms: Mapping[str, Mapping[str, Any]], baseline: str = ""
) -> dict[str, list[str]]:
    """Cell id -> flags that its row deserves beside those it carries; rows without any are left out.

    Args:
        frame: with the documented columns; ``flags`` joined by ``;``.
        mechanisms: what ``run.json`` says of each, for its declared complexity.
        baseline: the mechanism whose parameters are the measure of a block's or model's.
    """
    rows: list[Row] = [
        {str(name): value for name, value in row.items()}
        for row in frame.to_dict("records")
        if row["status"] == "ok"
    ]
    found: dict[str, list[str]] = {}
    for row in rows:
        if _peak_too_low(row):
            found.setdefault(row["id"], []).append("peak-too-low")
    for line in _groups(rows, leaving_out=("seq",)):
        for row, shorter in _with_shorter(line):
            about = mechanisms.get(row["mechanism"], {}).get("complexity") or {}
            if flags := [*_time_doubts(row, shorter, about), *_memory_doubts(row, shorter, about)]:
                found.setdefault(row["id"], []).extend(flags)
    for setting in _groups(rows, leaving_out=("mechanism", "options")):
        for row in _of_other_capacity(setting, baseline):
            found.setdefault(row["id"], []).append("params-differ")
    return found


def _groups(rows: Sequence[Row], leaving_out: Sequence[str]) -> list[list[Row]]:
    """Rows that agree in every axis but those left out, in the order of length."""
    axes = (
        *("mechanism", "options", "level", "mode", "causal", "batch", "seq", "dim", "heads", "dtype"),
        *("device", "threads", "compile", "gemm", "precision", "allocator", "stack"),
    )
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in sorted(rows, key=lambda row: int(row["seq"])):
        key = tuple(row[axis] for axis in axes if axis not in leaving_out)
        groups.setdefault(key, []).append(row)
    return list(groups.values())


def _peak_too_low(row: Row) -> bool:
    """Whether the peak is below the output, in training below the output and the input's gradient.

    At level op a mechanism may mix tensors of any size, and a decode step's output is too small to be seen.
    """
    if row["level"] == "op" or row["mode"] in STEPWISE:
        return False
    output = int(row["batch"]) * int(row["seq"]) * int(row["dim"]) * _BYTES[row["dtype"]]
    held = output * (2 if row["mode"] == "train" else 1)
    asked, resident = row["alloc_bytes"], row["peak_bytes"]
    if not pd.isna(asked):
        return bool(asked < _PEAK_SHARE * held)
    return not pd.isna(resident) and bool(resident < _PEAK_SHARE * held - _PEAK_BYTES)


def _with_shorter(line: Sequence[Row]) -> Iterator[tuple[Row, list[Row]]]:
    """Each row with the shorter ones of its line, nearest first."""
    for place, row in enumerate(line):
        yield row, list(reversed(line[:place]))


def _time_doubts(row: Row, shorter: Sequence[Row], about: Mapping[str, str]) -> list[str]:
    """Flat, or grown far from the declared exponent, which says nothing of what goes token by token."""
    if row["mode"] in STEPWISE or pd.isna(row["time_s"]):
        return []
    timed = [other for other in shorter if not pd.isna(other["time_s"])]
    far = next((other for other in timed if row["seq"] >= _FLAT_OVER * other["seq"]), None)
    elements = int(row["batch"]) * int(row["seq"]) * int(row["dim"])
    if far is not None and elements >= _FLAT_FROM and row["time_s"] < _FLAT * _quickest(far):
        return ["flat"]
    near = next((other for other in timed if row["seq"] >= _OVER * other["seq"]), None)
    if near is None or near["time_s"] < _FROM_S or not (sound(near, "time_s") and sound(row, "time_s")):
        return []
    low, high = exponents(about.get("time", ""), near, row)
    span = row["seq"] / near["seq"]
    least = _exponent(_quickest(row) / near["time_s"], span)
    most = _exponent(row["time_s"] / _quickest(near), span)
    return ["off-declared"] if most < low - _BELOW or least > high + _ABOVE else []


def _quickest(row: Row) -> float:
    """Seconds that a pass may take with the cores at their best: of a slowed row the interval knows."""
    known = on_slowed_cores(row) and not pd.isna(row["time_low_s"])
    return float(row["time_low_s"] if known else row["time_s"])


def _memory_doubts(row: Row, shorter: Sequence[Row], about: Mapping[str, str]) -> list[str]:
    """Grown far faster than declared; growing slower harms nobody."""
    known = [other for other in shorter if not pd.isna(other["alloc_bytes"])]
    near = next((other for other in known if row["seq"] >= _OVER * other["seq"]), None)
    if near is None or pd.isna(row["alloc_bytes"]) or near["alloc_bytes"] < _FROM_BYTES:
        return []
    _, high = exponents(about.get("memory", ""), near, row)
    exponent = _exponent(row["alloc_bytes"] / near["alloc_bytes"], row["seq"] / near["seq"])
    return ["memory-off-declared"] if exponent > high + _ABOVE else []


def _exponent(growth: float, span: float) -> float:
    """Of what grows so many times over so many times the length."""
    return math.log(growth) / math.log(span)


def _of_other_capacity(setting: Sequence[Row], baseline: str) -> Iterator[Row]:
    """Blocks and models whose parameters differ by over 10 % from the baseline's in the same setting."""
    own = [row["params"] for row in setting if row["mechanism"] == baseline and not pd.isna(row["params"])]
    if own and own[0] and setting[0]["level"] in ("block", "model"):
        for row in setting:
            if not pd.isna(row["params"]) and abs(row["params"] / own[0] - 1) > _PARAMS:
                yield row
