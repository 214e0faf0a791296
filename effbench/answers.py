"""The answers to one visit as they come in, and the record that they make."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from effbench.cell import Cell
from effbench.record import FlopsBlock, Memory, Record, Status, Time

_MANY_FAULTS = 1024  # new pages in a pass, where the heap should have had them already
_FAULT_S, _FAULTS_SHARE = 3e-6, 0.03  # what one costs in a virtual machine, and what of a pass they may cost
#: Resident beyond this much of what was asked for is in doubt; of what was predicted, which knows no kernel's
#: workspace, it takes more.
_EXCESS, _EXCESS_BYTES = 1.05, 500_000
_EXCESS_PREDICTED, _EXCESS_PREDICTED_BYTES = 1.25, 8 << 20


class Answers:
    """What is known of a cell so far; a number that stays unknown has its reason in ``_missing``."""

    def __init__(
        self, cell: Cell, *, source: str, environment: str, round_: int, limits: Mapping[str, float]
    ) -> None:
        self.cell, self.round = cell, round_
        self.flags: list[str] = []
        self.flops: dict[str, Any] = {}
        self._time: dict[str, Any] | None = None
        self._memory: dict[str, Any] = {}
        self._instructions: int | None = None
        self._missing: dict[str, str] = {}
        self._calls: int | None = None
        self._params: int | None = None
        self._path: dict[str, str] = {}
        self._process = ""
        self._source, self._environment, self._limits = source, environment, dict(limits)
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()

    @property
    def seconds(self) -> float:
        """The median pass; 0 while none was timed."""
        samples = self._time["samples_s"] if self._time else []
        return statistics.median(samples) if samples else 0.0

    def expected_peak(self) -> float:
        """The most bytes that a process should come to hold for what was asked for, or predicted."""
        if asked := self._memory["alloc_bytes"]:
            return float(_EXCESS * asked + _EXCESS_BYTES)
        predicted = self._memory.get("predicted_bytes")
        return math.inf if not predicted else _EXCESS_PREDICTED * predicted + _EXCESS_PREDICTED_BYTES

    def take_counts(self, answer: Mapping[str, Any]) -> None:
        """The counts of an answer, or why there are none."""
        if "counted" not in answer:
            self._missing["flops"] = answer.get("uncounted") or answer.get("reason") or "not counted"
            return
        self._missing.pop("flops", None)
        for key in ("counted", "uncounted_ops", "bytes_moved"):
            self.flops[key] = answer[key]
        self.flops["needed"] = answer["needed"] or self.flops.get("needed")
        self._calls = answer["calls"]

    def record(self, status: Status, stage: str = "", reason: str = "", caused_by: str = "") -> Record:
        """What the visit came to; numbers only where it is ok."""
        ok = status == "ok"
        flops = FlopsBlock(**self.flops) if ok and self.flops else None
        if flops:
            self.flags += ["counts-differ"] * flops.differs + ["uncounted-ops"] * bool(flops.uncounted_ops)
        return Record(
            id=self.cell.id,
            cell=asdict(self.cell),
            status=status,
            stage=stage,
            reason=reason,
            caused_by=caused_by,
            flags=list(dict.fromkeys(self.flags)),
            time=Time(**self._time) if ok and self._time else None,
            memory=Memory(**self._memory) if ok and self._memory else None,
            flops=flops,
            instructions=self._instructions if ok else None,
            missing=self._missing if ok else {},
            path=self._path if ok else {},
            params=self._params if ok else None,
            round=self.round,
            source=self._source,
            environment=self._environment,
            started=self._started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            took_s=round(time.monotonic() - self._clock, 3),
            process=self._process,
            limits=self._limits,
        )


def faults_weigh(faults: float, samples_s: Sequence[float]) -> bool:
    """Whether so many page faults a pass may have cost a noticeable part of it."""
    return faults > _MANY_FAULTS and faults * _FAULT_S > _FAULTS_SHARE * min(samples_s, default=0.0)
