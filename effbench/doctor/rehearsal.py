"""What only a measurement can tell: the cores' pace, the noise floor, and who multiplies fastest here.

Measured as a run measures: by the same questions, in children of the same fork servers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, Self

from effbench import environment, stats
from effbench.calibration import ask_ceilings, disturbed
from effbench.calm import Pace, calm_samples, hindrance
from effbench.cell import Budget, Cell, usable_cores
from effbench.doctor.finding import Finding
from effbench.environment import default_memory_limit
from effbench.errors import EffbenchError
from effbench.paces import Paces, recall
from effbench.servers import Servers
from effbench.suite import Suite
from effbench.visit import Visitor

#: The answers of the processes of each cell.
Timed = Sequence[Sequence[Mapping[str, Any]]]
#: (length, width, heads) of a cell that is over in well under a millisecond, and of one of some milliseconds.
SIZES = ((128, 64, 1), (1024, 256, 4))
SIDES = 2  # processes that stand on each side of A/A
TELLING = 0.05  # the part by which two measurements of the same may differ
ENOUGH = 0.9  # of the fastest provider's rate: below, another one is worth asking for
CALM = 0.8  # of the samples; below, a run has many to take again
_DTYPES = ("float32", "bfloat16")
_STOP = "stop what else runs, or compare counts (FLOPs, alloc_bytes), which have no noise"
_ELSEWHERE = (
    "nothing else ran here: it is the processor's clock or, in a virtual machine, the host's other guests; "
    "measure at another hour, or compare counts (FLOPs, alloc_bytes), which have no noise"
)


class Rehearsal(ExitStack):
    """Servers and a visitor of its own while it is open."""

    def __enter__(self) -> Self:
        servers = Servers()
        self.callback(servers.stop)
        logs = Path(self.enter_context(tempfile.TemporaryDirectory()))
        budget = Budget(memory_limit=default_memory_limit(), cell_timeout=20.0)
        self._visitor = Visitor(servers=servers, budget=budget, logs=logs, seed=0)
        self._threads = usable_cores()
        return self

    def times(self) -> Iterator[Finding]:
        """How calm the cores are, and A/A: a cell measured as if it were two, in processes of their own."""
        baseline = Suite().baseline
        cells = [Cell(mechanism=baseline, seq=n, dim=d, heads=h, threads=self._threads) for n, d, h in SIZES]
        try:
            self._visitor.servers.start(cells, 2 * SIDES)
            timed = [[self._time(cell, process) for process in range(2 * SIDES)] for cell in cells]
        except EffbenchError as error:
            means, remedy = "nothing can be timed", "see that effbench run quick works"
            yield Finding("noise floor", "absent", found=str(error), means=means, remedy=remedy)
            return
        paces = recall(environment.digest(environment.facts(self.torch_facts())))
        best_s = best_of(paces, self._threads, timed)
        yield pace_of(timed, best_s)
        yield noise_of(cells, timed, best_s)

    def _time(self, cell: Cell, process: int) -> Mapping[str, Any]:
        """The answer of one process of its own."""
        more = {"single": False, **self._visitor.budget.sampling}
        outcome = self._visitor.ask("time", cell, "time", replicate=process, spec=cell.mechanism, **more)
        if outcome.answer.get("status") != "ok":
            raise EffbenchError(f"{cell.mechanism}: {outcome.reason or outcome.answer.get('reason')}")
        return outcome.answer

    def products(self) -> Finding:
        """Who multiplies matrices, at which rate, by dtype."""
        try:
            return products_of(ask_ceilings(self._visitor, "cpu", self._threads, _DTYPES))
        except EffbenchError as error:
            return products_of({"reason": str(error)})

    def torch_facts(self) -> Mapping[str, Any]:
        """What torch says of itself; nothing where it cannot be asked."""
        server = self._visitor.servers.get("counts", threads=self._threads, allocator="default")
        try:
            outcome = server.ask({"question": "hello"}, log=self._visitor.log("hello"), allow=60)
        except EffbenchError:
            return {}
        return dict(outcome.answer.get("torch", {}))


def best_of(paces: Paces, threads: int, timed: Timed) -> Pace | None:
    """Seconds of the fixed works beside the samples at their best, by these and by earlier runs."""
    for answers in timed:
        for answer in answers:
            paces.learn(threads, answer["time"]["pace_s"])
    return paces.best(threads)


def pace_of(timed: Timed, best_s: Pace | None) -> Finding:
    """The finding of what stands beside the samples: how many were taken with the cores fully at hand."""
    times = [answer["time"] for answers in timed for answer in answers]
    share = sum(len(_calm(time, best_s)) for time in times) / sum(len(time["samples_s"]) for time in times)
    slowest = max(median(hindrance(pace, None, best_s) for pace in time["pace_s"]) for time in times)
    works = " and ".join(f"{1e6 * seconds:.3g}" for seconds in best_s or ())
    found = (
        f"{share:.0%} of the samples were calm; fixed works take {works} µs at best and took up to "
        f"{slowest:.2g} times as long in a visit"
    )
    if share >= CALM:
        means = "times are those of cores that nobody else uses"
        return Finding("pace of the cores", "ok", found=found, means=means)
    means = (
        "a neighbour on the same physical cores, a lower clock, cores far apart on the host, or threads that "
        "waited for a core"
    )
    remedy = "effbench run --patience 10m waits for calm at the end of a run; or measure at another hour"
    return Finding("pace of the cores", "limited", found=found, means=means, remedy=remedy)


def noise_of(cells: Sequence[Cell], timed: Timed, best_s: Pace | None = None) -> Finding:
    """The finding of A/A from the answers of every cell's processes: A's and B's in turns.

    By their calm samples, as in a run; by all of those who have none.
    """
    parted = [
        _parted([_calm(answer["time"], best_s) or answer["time"]["samples_s"] for answer in answers])
        for answers in timed
    ]
    found = "; ".join(
        f"{cell.mechanism} at {cell.seq} × {cell.dim}: {middle * 1e3:.3g} ms, A and B part by "
        f"{difference:.1%}, processes by {spread:.1%}"
        for cell, (difference, spread, middle) in zip(cells, parted, strict=True)
    )
    worst = max(difference for difference, _, _ in parted)
    if worst <= TELLING:
        means = f"two runs show changes of time well above {max(worst, 0.01):.0%}"
        return Finding("noise floor", "ok", found=found, means=means)
    loaded = any("loaded" in answer["flags"] for answers in timed for answer in answers)
    return Finding(
        "noise floor",
        "limited",
        found=found,
        means=f"two measurements of the same part by {worst:.0%}: smaller changes of time cannot be seen",
        remedy=_STOP if loaded else _ELSEWHERE,
    )


def products_of(answer: Mapping[str, Any]) -> Finding:
    """The finding of the ceilings' answer."""
    name = "matrix products"
    if answer.get("status") != "ok":
        means = "no ceilings: nothing says how near the machine's limit a mechanism comes"
        return Finding(name, "absent", found=str(answer.get("reason", "no answer")), means=means)
    rates, faster = answer["ceilings"]["matmul"], answer["faster"]
    busy = [dtype for dtype in rates if disturbed(rates[dtype])]
    found = "; ".join(f"{dtype}: {_rates(rates[dtype])} GFLOP/s" for dtype in rates)
    shares = {dtype: _share(rates[dtype], faster[dtype]) for dtype in rates}
    if busy:
        means = f"the rates in {' and '.join(busy)} were disturbed, so ceilings taken now would be too low"
        return Finding(name, "limited", found=found, means=means, remedy="stop what else runs")
    slow = [f"{share:.0%} of {faster[d]}'s rate in {d}" for d, share in shares.items() if share < ENOUGH]
    if not slow:
        means = "torch's own products, which every mechanism gets, are the fastest at hand"
        return Finding(name, "ok", found=found, means=means)
    means = f"torch's own products reach {', '.join(slow)}"
    remedy = "--gemm auto lets the built-in mechanisms use the faster one"
    return Finding(name, "limited", found=found, means=means, remedy=remedy)


def _calm(time: Mapping[str, Any], best_s: Pace | None) -> list[float]:
    return calm_samples(time["samples_s"], time.get("pace_s"), time.get("waited"), best_s)


def _parted(processes: list[list[float]]) -> tuple[float, float, float]:
    """(relative difference of A and B, relative spread from process to process, median in seconds)."""
    a, b = (stats.median_of_medians(processes[side::2]) for side in (0, 1))
    spread = stats.process_spread([processes]) or 0.0
    return abs(a / b - 1), spread, median([a, b])


def _rates(rates: Mapping[str, Mapping[str, float]]) -> str:
    return ", ".join(f"{name} {rate['flops_per_s'] / 1e9:.0f}" for name, rate in rates.items())


def _share(rates: Mapping[str, Mapping[str, float]], fastest: str) -> float:
    """Of the fastest provider's rate that torch's products reach."""
    return rates["torch"]["flops_per_s"] / rates[fastest]["flops_per_s"]
