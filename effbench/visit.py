"""One visit to one cell: asks its questions, each in a fresh child, and makes the record."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from effbench import effort
from effbench.answers import Answers, faults_weigh
from effbench.cell import Budget, Cell
from effbench.errors import BadInput
from effbench.foresight import Foresight, Prediction
from effbench.outcome import Outcome
from effbench.paces import Paces
from effbench.plan import Description
from effbench.processes import Conversation
from effbench.record import Record
from effbench.servers import Servers
from effbench.status import judge

_WATCHDOG_SLACK = 1 << 30  # bytes above the memory limit: torch itself, and what a process starts with
_MARGIN = 1.1  # predictions are exact for most mechanisms, and miss what a few kernels take for themselves
_HOLES = 2.0  # a heap that gives nothing back grows to this many times its peak: freed holes do not fit


@dataclass
class Visitor:
    """Asks questions on behalf of a run and turns what becomes of them into records."""

    servers: Servers
    budget: Budget
    logs: Path
    seed: int
    environment: str = ""
    path: Sequence[str] = field(default_factory=lambda: list(sys.path))  # what children can import from
    faster: Mapping[str, str] = field(default_factory=dict)  # dtype, "heads" -> provider that gemm auto means
    surveys: dict[str, tuple[str | None, dict[str, float] | None]] = field(default_factory=dict)
    needed: dict[str, dict[str, float] | None] = field(default_factory=dict)  # closed-form, by cell
    attention: dict[str, str] = field(default_factory=dict)  # torch's kernels of what was timed
    paces: Paces = field(default_factory=Paces)
    foresight: Foresight = field(default_factory=Foresight)
    _checked: dict[str, Outcome] = field(default_factory=dict)

    def describe(self, spec: str, *, threads: int, source: str = "") -> Description:
        """What a mechanism says of itself; one that cannot be loaded is described by its error.

        Raises:
            BadInput: there is no such object where the specification points, or it is no mechanism.
        """
        server = self.servers.get("counts", threads=threads, allocator="default")
        request = {"question": "describe", "spec": spec, "source": source, "path": self.path}
        outcome = server.ask(request, log=self.log("describe"), allow=self.budget.load_timeout)
        answer = dict(outcome.answer)
        if outcome.ended == "answered" and "name" in answer:
            answer.update(causal=tuple(answer["causal"]), dtypes=tuple(answer["dtypes"]))
            return Description(**answer)
        _, _, reason = judge(outcome)
        if answer.get("bad_input") and (":" in spec or spec.endswith(".py")):  # a slip of the user's
            raise BadInput(reason)
        return Description(spec=spec, name=spec, title=spec, origin=spec, error=reason)

    def survey(self, description: Description, cells: Sequence[Cell]) -> None:
        """Learn which cells the mechanism supports, and its closed-form FLOPs; kept for the visits."""
        server = self.servers.get("counts", threads=cells[0].threads, allocator="default")
        request = {"spec": description.spec, "cells": [asdict(cell) for cell in cells], **self._limits()}
        asked = {"question": "survey", **request}
        outcome = server.ask(asked, log=self.log("survey"), allow=self.budget.load_timeout)
        answers = outcome.answer.get("cells") or [(None, None, None)] * len(cells)
        for cell, (reason, formula, needed) in zip(cells, answers, strict=True):
            self.surveys[cell.id], self.needed[cell.id] = (reason, formula), needed

    def first(
        self,
        cell: Cell,
        description: Description,
        *,
        predicted: float | None,
        until: float | None,
        ahead: Prediction | None = None,
    ) -> Record:
        """The first visit: check, prediction, time, memory, instructions, counts; ``ahead`` of its time."""
        visit = Visit(self, cell, description, 0, until)
        if description.error is not None:
            return visit.record("error", "load", description.error)
        reason, formula = self.surveys.get(cell.id, (None, None))
        if reason is not None:
            return visit.record("unsupported", "check", reason)
        visit.flops |= {"formula": formula, "needed": self.needed.get(cell.id)}
        # Compiled code is compiled by its first pass, which cannot be the one that is timed.
        single = predicted is not None and predicted > self.budget.costly and not cell.compile
        return (
            visit.check()
            or visit.predict(predicted)
            or visit.time(single)
            or visit.memory(single, ahead)
            or visit.instruct(single)
            or visit.count()
            or visit.record("ok")
        )

    def again(
        self,
        cell: Cell,
        description: Description,
        *,
        round_: int,
        until: float | None,
        replicate: int | None = None,
        single: bool = False,
    ) -> Record:
        """A later visit: time only, of the round's own server, or of that of an earlier round."""
        visit = Visit(self, cell, description, round_, until)
        visit.replicate = round_ if replicate is None else replicate
        return visit.time(single) or visit.record("ok")

    def skipped(self, cell: Cell, description: Description, reason: str, caused_by: str = "") -> Record:
        """The record of a cell that is not visited."""
        return Visit(self, cell, description, 0, None).record("skipped", reason=reason, caused_by=caused_by)

    def ask(self, kind: str, cell: Cell, question: str, **more: Any) -> Outcome:
        """Ask one question about a cell."""
        with self.begin(kind, cell, question, **more) as conversation:
            conversation.listen()
        return conversation.outcome

    def begin(self, kind: str, cell: Cell, question: str, *, replicate: int = 0, **more: Any) -> Conversation:
        """Put a question about a cell to a child."""
        allocator = more.pop("allocator", cell.allocator)
        threads = 1 if kind == "instructions" else cell.threads  # several share their work by chance
        server = self.servers.get(kind, threads=threads, allocator=allocator, replicate=replicate)
        until = more.pop("until", None)
        provider = self.faster.get(cell.dtype, "torch") if cell.gemm == "auto" else cell.gemm
        by_heads = self.faster.get("heads", provider) if cell.gemm == "auto" else cell.gemm
        asked = asdict(cell) | ({"threads": threads} if kind == "instructions" else {})
        request = {"question": question, "cell": asked, "gemm": provider, "by_heads": by_heads}
        of_device = {"memory_limit": self.budget.memory(cell.device)}
        load = {"question": "load", "spec": more["spec"], **self._limits()}
        server = self.servers.knowing(server, load, log=self.log("load"), allow=self.budget.load_timeout)
        resident = more.get("memory_limit", 0) if cell.device == "cpu" else 0
        return server.begin(
            {**request, "seed": self.seed, **self._limits(), **of_device, **more},
            log=self.log(cell.id),
            allow=self.budget.load_timeout,
            memory=max(resident, self.budget.memory_limit) + _WATCHDOG_SLACK,
            until=until,
        )

    def checked(self, cell: Cell, spec: str, until: float | None) -> Outcome:
        """The comparison with the reference, once for all cells that only differ in size or level."""
        key = f"{replace(cell, level='layer', stack={}).line}|{min(cell.heads, 2)}"
        if key not in self._checked:
            outcome = self.ask("counts", cell, "check", spec=spec, until=until)
            if outcome.ended == "until":
                return outcome
            self._checked[key] = outcome
        return self._checked[key]

    def _limits(self) -> dict[str, Any]:
        return {
            "load_timeout": self.budget.load_timeout,
            "cell_timeout": self.budget.cell_timeout,
            "memory_limit": self.budget.memory_limit,
            "path": self.path,
        }

    def log(self, name: str) -> Path:
        """The file that takes what children print."""
        self.logs.mkdir(parents=True, exist_ok=True)
        return self.logs / f"{name}.log"


class Visit(Answers):
    """The steps of one visit, each a question; a step returns a record where the visit ends with it."""

    def __init__(
        self, visitor: Visitor, cell: Cell, description: Description, round_: int, until: float | None
    ) -> None:
        budget = visitor.budget
        super().__init__(
            cell,
            source=description.source,
            environment=visitor.environment,
            round_=round_,
            limits={"memory_limit": budget.memory(cell.device), "cell_timeout": budget.cell_timeout},
        )
        self.visitor, self.description, self.until = visitor, description, until
        self.replicate = round_  # of the time servers, the one that is asked
        self._live = 0

    def check(self) -> Record | None:
        """Compare with the reference: no speed is reported for what is wrong."""
        outcome = self.visitor.checked(self.cell, self.description.spec, self.until)
        self.flags += outcome.answer.get("flags", [])
        return self._unless_ok(outcome)

    def predict(self, predicted: float | None = None) -> Record | None:
        """Count on fake tensors a pass of so many seconds; refuse what cannot fit."""
        asked = Prediction(self.cell, self.description.spec, effort.for_counts(predicted))
        answer = self.visitor.foresight.answer(asked, self.visitor.begin, until=self.until).answer
        if answer.get("status") == "unsupported":
            return self.record("unsupported", "build", answer["reason"])
        self.take_counts(answer)
        if answer.get("status") != "ok":
            self.flags.append("no-prediction")
            return None
        predicted = answer.get("peak_bytes")
        self._memory["predicted_bytes"], self._live = predicted, answer["live_bytes"]
        self._memory["predicted_method"] = answer.get("predicted_method", "")
        self.flags += ["no-prediction"] * (predicted is None)
        needed = self._live + (predicted or 0) * _MARGIN
        limit = self.visitor.budget.memory(self.cell.device)
        if needed <= limit:
            return None
        reason = f"predicted to need {needed:.0f} bytes, {limit} are available"
        return self.record("oom-predicted", "predict", reason)

    def time(self, single: bool) -> Record | None:
        """Samples of one pass, in a process of the round's own server."""
        more = {"single": single, **self.visitor.budget.sampling}
        allocator = self.cell.allocator if self.heap_fits() else "default"
        outcome = self._timed(allocator, more)
        if outcome.answer.get("status") == "oom" and allocator == "warm" and self._fits():
            allocator = "default"  # it was the holes of the heap, not the mechanism
            outcome = self._timed(allocator, more)
        return self.take_time(outcome, allocator)

    @property
    def timed(self) -> bool:
        """Whether there are samples."""
        return bool(self._time and self._time["samples_s"])

    def take_time(self, outcome: Outcome, allocator: str) -> Record | None:
        """What became of the question for the time, asked of a server with this allocator."""
        self._process = outcome.server
        if outcome.answer.get("status") == "ok":
            answer = outcome.answer
            self._time, self._params, self._path = answer["time"], answer["params"], answer["path"]
            self.visitor.attention[self.cell.id] = self._path["attention"]
            self.flags += answer["flags"]
            self.flags += ["default-allocator"] * (allocator != self.cell.allocator)
            # One pass alone, after one of a quarter, has every right to new pages.
            faults = (answer["time"]["minor_faults"] or 0) * (len(answer["time"]["samples_s"]) > 1)
            weigh = faults_weigh(faults, answer["time"]["samples_s"])
            self.flags += ["page-faults"] * (allocator == "warm" and weigh)
        return self._unless_ok(outcome)

    def _timed(self, allocator: str, more: Mapping[str, Any]) -> Outcome:
        limits = self.visitor.budget.limits(self.cell, allocator)
        seen = {"attention": self.visitor.attention.get(self.cell.id), **more, **limits}
        best_s = self.visitor.paces.best(self.cell.threads)
        return self._ask("time", "time", replicate=self.replicate, allocator=allocator, best_s=best_s, **seen)

    def _fits(self) -> bool:
        """Whether the prediction said that the cell fits; False where there was none."""
        peak = self._memory.get("predicted_bytes")
        limit = self.visitor.budget.memory(self.cell.device)
        return peak is not None and self._live + peak * _MARGIN <= limit

    def heap_fits(self) -> bool:
        """Whether a warm heap with its holes will probably fit."""
        if self.cell.device != "cpu":
            return True
        peak = self._memory.get("predicted_bytes")
        limit = self.visitor.budget.heap(self.cell.device)
        return peak is None or self._live + _HOLES * peak <= limit

    def memory(self, single: bool, ahead: Prediction | None = None) -> Record | None:
        """Peak memory of one pass: cold where a pass is costly, else warmed up and repeated."""
        seconds = self.seconds
        how, left_out = effort.for_memory(seconds, single=single, calls=self._calls)
        self._missing |= left_out
        patience = self.visitor.budget.cell_timeout + 30 + 6 * seconds * (how["repeats"] + 2)
        with self.visitor.foresight.beside(self.cell, ahead, self.visitor.begin, until=self.until):
            outcome = self._ask("memory", "memory", memory_timeout=patience, **how)
        if outcome.answer.get("status") == "ok":
            found = outcome.answer["memory"]
            if reason := found.pop("peak_missing", None):
                self._missing["peak_bytes"] = reason
            self._memory = {**found, **self._memory}
            if self._memory["alloc_bytes"] is not None:  # a GPU's allocator says so without a profiler
                self._missing.pop("alloc_bytes", None)
            peak = self._memory["peak_bytes"]
            if peak is not None and peak > self.expected_peak():
                self.flags.append("resident-excess")
        return self._unless_ok(outcome)

    def instruct(self, single: bool) -> Record | None:
        """Retired instructions, where the processor counts them; they decide no status."""
        asked, reason = effort.for_instructions(self.cell, self.seconds, single=single)
        if reason := self.visitor.servers.instructions_missing or reason:
            self._missing["instructions"] = reason
            return None
        outcome = self._ask("instructions", "instructions", allocator="default", **asked)
        if (counted := outcome.answer.get("instructions")) is None:
            self._missing["instructions"] = judge(outcome)[2] or outcome.ended
            return None
        self._instructions = int(counted)
        self.flags += ["random-layout"] * (not outcome.answer["fixed_layout"])
        return None

    def count(self) -> Record | None:
        """Count on real tensors where fake ones would not do and a pass is cheap."""
        if self.flops.get("counted") is None and self.seconds < effort.CHEAP_S:
            self.take_counts(self._ask("counts", "counts", real=True).answer)
        if self.flops.get("counted") is None:
            self.flags.append("no-counts")
        return None

    def _ask(self, kind: str, question: str, **more: Any) -> Outcome:
        return self.visitor.ask(
            kind, self.cell, question, spec=self.description.spec, until=self.until, **more
        )

    def _unless_ok(self, outcome: Outcome) -> Record | None:
        status, stage, reason = judge(outcome)
        return None if status == "ok" else self.record(status, stage, reason)
