"""Sweeps over the cells of a gate: each visits every cell as a pair, from fork servers of its own."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from effbench import environment
from effbench.cell import Cell
from effbench.errors import BadInput, NothingMeasured
from effbench.paired import SCREENING
from effbench.pairing import side_by_side, visit_pair
from effbench.plan import Plan, make_plan, threads_asked
from effbench.record import Record
from effbench.runner import Progress, Watch
from effbench.servers import start_all
from effbench.session import Request, ask_hello, hello, make_info, survey_all
from effbench.side import Side
from effbench.store import Store
from effbench.suite import Suite, keep_options
from effbench.visit import Visit


class Sweeps:
    """Both sides of a gate, and the cells that they are asked."""

    def __init__(
        self, request: Request, sides: Sequence[Side], stores: Sequence[Store], watch: Watch
    ) -> None:
        self.request, self.watch = request, watch
        self.base, self.head = sides
        self.sides, self.stores = sides, stores
        self.threads = threads_asked(request.suite)
        self.plans = self._describe(request.suite)
        head, base = ({cell.id: cell for cell in self.plans[side].cells} for side in (1, 0))
        self.shared = base.keys() & head.keys()
        self.cells = [cell for cell in self.plans[1].first_round() if cell.id in head]
        total = request.budget.total
        self.until = None if total is None else time.monotonic() + total
        self.failed: dict[str, str] = {}
        self.done, self.failures, self.began = 0, 0, time.monotonic()
        self.planned = len(self.cells) * SCREENING

    def _describe(self, suite: Suite) -> list[Plan]:
        """The plan of each side: head's, and for base what of it base has, with whatever only base has."""
        named = suite.mechanisms or list(
            dict.fromkeys(name for side in self.sides for name in side.registry.claims)
        )
        side_by_side(lambda side: side.describe(named, self.threads), self.sides)
        for spec in named:
            if all(spec in side.absent for side in self.sides):
                raise BadInput(self.head.absent[spec])
        plans = []
        for side in self.sides:
            other = self.base if side is self.head else self.head
            asked = [d for spec, d in side.descriptions.items() if side is self.head or spec in other.absent]
            plans.append(make_plan(_about(suite, {d.name for d in asked}, self._names()), asked))
        only_base, head = plans
        known = self.base.by_name()
        common = tuple(cell for cell in head.cells if cell.mechanism in known)
        base = replace(only_base, cells=(*common, *only_base.cells), mechanisms=known)
        side_by_side(survey_all, [side.visitor for side in self.sides], [base, head])
        return [base, head]

    def _names(self) -> set[str]:
        return {name for side in self.sides for name in side.by_name()}

    @contextmanager
    def recorded(self, folders: Sequence[Path]) -> Iterator[None]:
        """Both folders start empty and say at the end how the run ended."""
        if "turns" not in ask_hello(self.base.visitor, self.threads).get("questions", ()):
            raise NothingMeasured(
                "base has an effbench from before the gate, which cannot take turns with head's"
            )
        facts = environment.facts(hello(self.head.visitor, self.threads))
        infos = []
        for side, store, plan, folder in zip(self.sides, self.stores, self.plans, folders, strict=True):
            side.visitor.environment = environment.digest(facts)
            store.clear()
            one = replace(self.request, name=f"{self.request.name}-{side.name}", out=folder)
            infos.append(make_info(one, plan, side.visitor.environment, facts, {}))
            store.write_info(infos[-1])
        state = "interrupted"
        try:
            yield
            state = "finished"
        finally:
            for store, info in zip(self.stores, infos, strict=True):
                store.write_info({**info, "state": state})

    def sweep(
        self,
        number: int,
        cells: Sequence[Cell],
        memory: Collection[str] = (),
    ) -> None:
        """One pair of every cell, from servers of its own; the first also takes everything else.

        ``memory`` are the cells whose memory later sweeps are to measure again.
        """
        waiting = [cell for cell in cells if cell.id not in self.failed]
        if number:
            waiting = [cell for cell in waiting if cell.id in self.shared]
        if not waiting:
            return
        order = waiting if number == 0 else self.plans[1].later_round(number, waiting)
        kinds = [("memory", 0), ("counts", 0)] if number == 0 else []
        for side in self.sides:
            side.visitor.servers.retire("time")
        start_all(
            server
            for side in self.sides
            for server in side.visitor.servers.wanted(order, [*kinds, ("time", number)])
        )
        for place, cell in enumerate(order):
            for record in self._visit(cell, number, whole=number == 0, memory=cell.id in memory):
                self._note(record, ahead=order[place + 1 :])

    def _visit(self, cell: Cell, number: int, *, whole: bool, memory: bool) -> list[Record]:
        sides = [side for side in self.sides if cell.mechanism in side.by_name()]
        if self.until is not None and time.monotonic() > self.until:
            return [self._skipped(side, cell, "budget") for side in sides] if whole else []
        if cell.id not in self.shared:
            (side,) = sides
            found = side.visitor.first(cell, side.by_name()[cell.mechanism], predicted=None, until=self.until)
            return [found.model_copy(update={"side": side.name})]
        visits = [
            Visit(side.visitor, cell, side.by_name()[cell.mechanism], number, self.until) for side in sides
        ]
        records = visit_pair((visits[0], visits[1]), whole=whole, memory=memory)
        return [record for record in records if whole or record.status != "skipped"]

    def _skipped(self, side: Side, cell: Cell, reason: str) -> Record:
        found = side.visitor.skipped(cell, side.by_name()[cell.mechanism], reason)
        return found.model_copy(update={"side": side.name})

    def _note(self, record: Record, ahead: Sequence[Cell]) -> None:
        self.stores[record.side == "head"].append(record)
        if record.status != "ok" and record.round == 0:
            self.failed[record.id] = record.status
            self.failures += record.status != "unsupported"
        if record.side == "base" and record.id in self.shared:
            return
        self.done += 1
        self.planned = max(self.planned, self.done + len(ahead))
        left = (time.monotonic() - self.began) / self.done * (self.planned - self.done)
        running = ahead[0] if ahead else None
        self.watch(Progress(record, self.done, self.planned, self.failures, running, left))


def _about(suite: Suite, names: set[str], known: set[str]) -> Suite:
    """The suite with the options of these mechanisms only; those of unknown ones stay, and are refused."""
    return keep_options(suite, lambda name: name in names or name not in known)
