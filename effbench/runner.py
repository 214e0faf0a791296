"""Carries out a plan: the only place where order, resuming, skipping and budgets are decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from effbench.calibration import at_their_best
from effbench.cell import Budget, Cell
from effbench.effort import for_counts
from effbench.estimate import Estimate
from effbench.foresight import Prediction
from effbench.groups import slowed, undecided
from effbench.plan import Plan
from effbench.record import Record
from effbench.stats import ENOUGH_PROCESSES
from effbench.visit import Visitor

#: Failures after which a larger cell of the same line is not tried.
_RAN_OUT = ("oom", "timeout")
_REST_S = 0.5  # between two looks at the cores
_MEASURING = ("build", "prefill", "time", "memory")


@dataclass(frozen=True)
class Progress:
    """Where a run stands after a visit: counts are visits, times are seconds."""

    record: Record
    done: int
    total: int
    failures: int
    running: Cell | None
    left_s: float


@dataclass(frozen=True)
class Waiting:
    """So many cells lack calm samples, or processes that agree; for so many seconds they are asked again."""

    cells: int
    left_s: float


Watch = Callable[[Progress | Waiting], None]


def run_plan(
    plan: Plan,
    visitor: Visitor,
    budget: Budget,
    *,
    answered: Iterable[Record],
    append: Callable[[Record], None],
    watch: Watch = lambda _: None,
) -> None:
    """Visit every cell of a plan that has not been answered, and append a record for each visit.

    Args:
        answered: the records of an earlier run into the same folder; those that still hold are kept.
        append: takes each record as its visit ends; nothing measured is held back.
        watch: told after every visit, and where cells wait for the cores.
    """
    _Run(plan, visitor, budget, answered, append, watch).carry_out()


class _Run:
    def __init__(
        self,
        plan: Plan,
        visitor: Visitor,
        budget: Budget,
        answered: Iterable[Record],
        append: Callable[[Record], None],
        watch: Watch,
    ) -> None:
        self.plan, self.visitor, self.budget = plan, visitor, budget
        self.append, self.watch = append, watch
        formulas = {id_: formula for id_, (_, formula) in visitor.surveys.items()}
        self.estimate = Estimate(budget, formulas)
        self.kept = still_valid(answered, plan, visitor.environment, budget)
        self.cells = {cell.id: cell for cell in plan.cells}
        self.first: dict[str, Record] = {}
        self.until = None if budget.total is None else time.monotonic() + budget.total
        self.waiting: list[Cell] = []  # first visits still to come
        self.later: list[tuple[int, Cell]] | None = None  # later visits still to come, once planned
        self.done = 0
        self.visits: dict[str, list[Record]] = {cell.id: [] for cell in plan.cells}
        for (id_, _), record in sorted(self.kept.items()):
            self._learn(self.cells[id_], record)

    def carry_out(self) -> None:
        """The first round in the order of the lines, later rounds shuffled, and again what is in doubt."""
        if self._rounds_done():
            self._visit_again()

    def _rounds_done(self) -> bool:
        """Carry out all rounds; False where the budget ended them."""
        order = list(self.plan.first_round())
        self.first = {id_: record for (id_, round_), record in self.kept.items() if round_ == 0}
        self.waiting = [cell for cell in order if cell.id not in self.first]
        while self.waiting:
            cell = self.waiting[0]
            record = self._first_visit(cell)
            self.waiting.pop(0)
            self.first[cell.id] = record
            self._note(cell, record)
        self.later = self._later_visits()
        while self.later and not self._late():
            round_, cell = self.later[0]
            description = self.plan.mechanisms[cell.mechanism]
            record = self.visitor.again(cell, description, round_=round_, until=self.until)
            if record.status == "skipped":  # the budget ended it: nothing was learned
                return False
            self.later.pop(0)
            self._note(cell, record)
        return not self.later

    def _visit_again(self) -> None:
        """Visit cells again that have no calm samples, or whose processes disagree, while patience lasts.

        What slows the cores comes and goes: the cells wait until the cores are at their best.
        """
        ends = time.monotonic() + self.budget.patience
        told = -1
        while not self._late():
            doubted, left_s = self._in_doubt(), ends - time.monotonic()
            due = [each for each in doubted if self.estimate.visit(each[0], 1) < left_s]
            if not due:
                return
            cell, replicate, seconds = due[0]
            if len(doubted) != told:
                told = len(doubted)
                self.watch(Waiting(told, left_s))
            if not at_their_best(self.visitor, cell.threads):
                time.sleep(_REST_S)
                continue
            record = self.visitor.again(
                cell,
                self.plan.mechanisms[cell.mechanism],
                round_=self.visits[cell.id][-1].round + 1,
                until=self.until,
                replicate=replicate,
                single=seconds > self.budget.costly,
            )
            if record.status == "skipped":
                return
            self._note(cell, record)

    def _in_doubt(self) -> list[tuple[Cell, int, float]]:
        """Cells to be visited again, each with the server to ask and the seconds of a pass.

        A slowed process is asked again, those that disagree are joined by another, up to as many as speak
        for themselves. Cells that were least often visited come first.
        """
        best_s, found = self.visitor.paces.all(), []
        for cell in self.plan.cells:
            visits = self.visits[cell.id]
            again, processes = slowed(visits, best_s, self._rounds(cell)), undecided(visits, best_s)
            if again or 0 < processes < ENOUGH_PROCESSES:
                found.append((cell, again[0] if again else processes, self.estimate.seconds(cell) or 0.0))
        return sorted(found, key=lambda each: len(self.visits[each[0].id]))

    def _first_visit(self, cell: Cell) -> Record:
        description = self.plan.mechanisms[cell.mechanism]
        cause = next((r for r in self._ran_out() if cell.exceeds(self.cells[r.id])), None)
        if cause is not None:
            reason = f"larger than a cell that ended with {cause.status}"
            return self.visitor.skipped(cell, description, reason, cause.id)
        if self._late(self.estimate.visit(cell)):
            return self.visitor.skipped(cell, description, "budget")
        predicted = self.estimate.from_line(cell)
        return self.visitor.first(
            cell, description, predicted=predicted, until=self.until, ahead=self._ahead()
        )

    def _ahead(self) -> Prediction | None:
        """What the visit after this one will probably ask first."""
        for cell in self.waiting[1:2]:
            description = self.plan.mechanisms[cell.mechanism]
            if description.error is None and not self.visitor.surveys.get(cell.id, (None,))[0]:
                return Prediction(cell, description.spec, for_counts(self.estimate.from_line(cell)))
        return None

    def _ran_out(self) -> list[Record]:
        return [r for r in self.first.values() if r.status in _RAN_OUT and r.stage in _MEASURING]

    def _late(self, needed: float = 0.0) -> bool:
        return self.until is not None and time.monotonic() + needed > self.until

    def _later_visits(self) -> list[tuple[int, Cell]]:
        """(round, cell) of the visits beyond the first that the cells measured so far still deserve."""
        wanted: dict[int, list[Cell]] = {}
        for cell in self.plan.cells:
            for round_ in range(1, self._rounds(cell)):
                if (cell.id, round_) not in self.kept:
                    wanted.setdefault(round_, []).append(cell)
        return [(n, cell) for n in sorted(wanted) for cell in self.plan.later_round(n, wanted[n])]

    def _rounds(self, cell: Cell) -> int:
        record = self.first.get(cell.id)
        if record is None or record.status != "ok" or record.time is None:
            return 1
        return self.budget.rounds_for(min(record.time.samples_s))  # beside other work most may be slow

    def _note(self, cell: Cell, record: Record) -> None:
        self.append(record)
        self.done += 1
        self._learn(cell, record)
        later = [c for _, c in (self._later_visits() if self.later is None else self.later)]
        ahead = [*self.waiting, *later]
        failures = sum(r.status not in ("ok", "unsupported") for r in self.first.values())
        left = self.estimate.remaining(self.waiting, later)
        running = ahead[0] if ahead else None
        self.watch(Progress(record, self.done, self.done + len(ahead), failures, running, left))

    def _learn(self, cell: Cell, record: Record) -> None:
        self.visits[cell.id].append(record)
        self.estimate.learn(cell, record)
        if record.time:
            self.visitor.paces.learn(cell.threads, record.time.pace_s)


def still_valid(
    records: Iterable[Record], plan: Plan, environment: str, budget: Budget
) -> Mapping[tuple[str, int], Record]:
    """The answers that need not be measured again, by (cell, round); the last of several holds.

    Kept are those of the same environment and the same source whose status would come out again: not
    errors and crashes, and not what ran into a limit that is another one now.
    """
    latest: dict[tuple[str, int], Record] = {}
    planned = {cell.id: plan.mechanisms[cell.mechanism].source for cell in plan.cells}
    for record in records:
        if record.environment == environment and planned.get(record.id) == record.source:
            latest[record.id, record.round] = record
    kept = {key: record for key, record in latest.items() if _holds(record, budget)}
    return {
        key: record
        for key, record in kept.items()
        if (not record.caused_by or (record.caused_by, 0) in kept) and (key[1] == 0 or (key[0], 0) in kept)
    }


def _holds(record: Record, budget: Budget) -> bool:
    if record.status in ("ok", "incorrect", "unsupported"):
        return True
    if record.status in ("oom", "oom-predicted"):
        return record.limits.get("memory_limit") == budget.memory(record.cell["device"])
    if record.status == "timeout":
        return record.limits.get("cell_timeout") == budget.cell_timeout
    return record.status == "skipped" and bool(record.caused_by)
