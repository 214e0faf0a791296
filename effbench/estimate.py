"""How long a pass and a visit will take, from what has been measured so far in this run."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from effbench.cell import STEPWISE, Budget, Cell
from effbench.record import Record

_TRANSCENDENTAL = 15  # FLOPs that one is worth on a processor with wide vectors
_CALLS = 1e7  # FLOPs made in the time that it takes to call the operators of a pass, or of a step of many
_OVERHEAD_S = 0.4  # a visit's processes, before anything was measured
_WARM_UP_S = 0.1
_SLOW_S = 0.3


class Estimate:
    """Learns from records; cells that have not been measured are scaled from the nearest that have."""

    def __init__(self, budget: Budget, formulas: Mapping[str, Mapping[str, float] | None]) -> None:
        self._budget = budget
        self._formulas = formulas
        self._seconds: dict[str, dict[str, tuple[Cell, float]]] = {}
        self._overheads: list[float] = []

    def learn(self, cell: Cell, record: Record) -> None:
        """Take in a measured cell."""
        if record.time and record.time.samples_s:
            seconds = statistics.median(record.time.samples_s)
            self._seconds.setdefault(cell.line, {})[cell.id] = (cell, seconds)
            if record.round == 0 and seconds < 0.1:
                self._overheads.append(max(0.0, record.took_s - self._measuring(seconds)))

    def from_line(self, cell: Cell) -> float | None:
        """Seconds of a pass, scaled from the largest smaller cell of the line; None where there is none."""
        smaller = [(c, s) for c, s in self._seconds.get(cell.line, {}).values() if cell.exceeds(c)]
        if not smaller:
            return None
        nearest, seconds = max(smaller, key=lambda pair: self._work(pair[0]))
        return seconds * self._growth(nearest, cell)

    def seconds(self, cell: Cell) -> float | None:
        """Seconds of a pass, scaled from any cell measured; None before the first."""
        own = self._seconds.get(cell.line, {})
        if cell.id in own:
            return own[cell.id][1]
        if (scaled := self.from_line(cell)) is not None:
            return scaled
        everyone = own or {i: pair for line in self._seconds.values() for i, pair in line.items()}
        rates = [seconds / self._work(c) for c, seconds in everyone.values()]
        return statistics.median(rates) * self._work(cell) if rates else None

    def visit(self, cell: Cell, round_: int = 0) -> float:
        """Seconds of a whole visit; no pass is waited for longer than it may take."""
        seconds = min(self.seconds(cell) or 0.0, self._budget.cell_timeout)
        overhead = statistics.median(self._overheads) if self._overheads else _OVERHEAD_S
        return (overhead if round_ == 0 else overhead / 4) + self._measuring(seconds, round_)

    def remaining(self, first: Iterable[Cell], later: Iterable[Cell]) -> float:
        """Seconds of everything still to do: first visits, and later ones where rounds have begun."""
        rounds = 0.0
        total = 0.0
        for cell in first:
            total += self.visit(cell)
            rounds += (self._budget.rounds_for(self.seconds(cell) or 0.0) - 1) * self.visit(cell, 1)
        return total + rounds + sum(self.visit(cell, 1) for cell in later)

    def _measuring(self, seconds: float, round_: int = 0) -> float:
        """Seconds of the passes of a visit: timing, and in the first round memory too."""
        if seconds > self._budget.costly:  # the timed pass after one at a quarter of the length
            return seconds * (2.1 if round_ == 0 else 1.1)
        if seconds > _SLOW_S:  # a first call and the samples that fit; memory cold, and asked for
            samples = min(self._budget.min_samples, max(2, int(1.5 / seconds)))
            return seconds * (samples + (2.5 if round_ == 0 else 1))
        timing = _WARM_UP_S + 2 * seconds + max(self._budget.min_time, self._budget.min_samples * seconds)
        return timing + (5 * seconds if round_ == 0 else 0)

    def _growth(self, small: Cell, large: Cell) -> float:
        """How much longer the larger cell takes: by its work, else as length and width squared."""
        if large.mode in STEPWISE or (self._formulas.get(small.id) and self._formulas.get(large.id)):
            return max(1.0, self._work(large) / self._work(small))
        return (large.seq / small.seq) ** 2 * (large.dim / small.dim) ** 2 * (large.batch / small.batch)

    def _work(self, cell: Cell) -> float:
        """FLOPs in closed form, or else those of attention, and what the calls cost."""
        calls = _CALLS * (cell.seq if cell.mode == "generate" else 1)
        formula = self._formulas.get(cell.id)
        if not formula:
            tokens = 1 if cell.mode == "decode" else cell.seq
            return calls + 4.0 * cell.batch * tokens * cell.dim * (cell.seq + 2 * cell.dim)
        plain = formula["matmul"] + formula["elementwise"] + formula["fft"]
        return calls + plain + _TRANSCENDENTAL * formula["transcendental"]
