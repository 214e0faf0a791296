"""Wall time of one pass: a first call, a warm-up until steady, then blocks of at least a millisecond.

A sample is the time of a block divided by its passes. The clock is read twice a block and nothing else
happens between the readings: no tick, no garbage collection, no allocation of our own.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from effbench.calm import ENOUGH, STEADY, Pace, calm_samples, steady
from effbench.meters.clocks import Clock, clock_of
from effbench.meters.cores import Beside, Cores

try:  # Windows has no resource module: faults stay unknown there
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

BLOCK = 1e-3  # seconds: below it the clock's own cost and the scheduler's show
MAX_SAMPLES = 60
COSTLY = 5.0  # seconds of a first call from which it serves as warm-up of the only timed pass
SLOW = 0.3  # seconds of a first call after which only passes that took new memory are warm-up
NEW_PAGES, NEW_PASSES = 1024, 4  # faults that make a slow pass a warm-up, and how many there may be
SLOW_TIME, SLOW_SAMPLES = 1.5, 2  # seconds that the samples may take then, and the fewest of them
TICK_EVERY = 1.0  # seconds
#: The warm-up ends when at least so many blocks and seconds have gone by and a pass took in the last two
#: blocks within STEADY of the fastest; after WARM_LIMIT seconds it ends anyway, with at least one pass.
WARM_BLOCKS = 5
WARM_MIN = 0.1
WARM_LIMIT = 0.3


def measure(
    call: Callable[[int], Any],
    *,
    min_samples: int,
    min_time: float,
    single: bool,
    warm: Callable[[], Any],
    tick: Callable[[], Any],
    device: str = "cpu",
    best_s: Pace | None = None,
    patience_s: float = 0.0,
) -> dict[str, Any]:
    """Times ``call(i)``, one pass on the i-th input of a ring of different values.

    ``single``: a pass is known to be costly; ``warm()`` (a pass at a quarter of the length) and one timed
    pass must do. The same holds for a first call of over 5 s, which is then the warm-up; after one of
    over 0.3 s passes are warm-up until one takes no new pages from the system, four at most, and as many
    samples must do as fit into 1.5 s, two at least. A GPU's long first
    call may have loaded kernels: there it is the second one that counts. ``tick()`` comes before every pass
    that may be long, else at most once a second, always outside timed sections. On a CPU the cores are
    watched beside every sample (``Cores``; ``best_s``: seconds of its works at their best): samples taken
    while they were not fully at hand do not count towards those wanted, which may take ``patience_s`` longer.

    Returns the keys of ``record.Time``, seconds a pass, and ``flags``: ``few-samples`` (one
    pass had to do), ``unsteady`` (the medians of the first and last third differ by over 10 %).
    """
    clock = clock_of(device)
    cores = Cores(best_s) if device == "cpu" else None
    ring = Passes(call, clock, tick, cores)
    first_call_s: float | None = None
    long = COSTLY
    with no_collection():
        if single:
            ring.before_long_pass()
            warm()
        else:
            first_call_s, long = ring.first()
        if long >= COSTLY:
            faults = minor_faults()
            samples, passes = [ring.run_long(keep=True)], 1
        elif long >= SLOW:
            settled = ring.settle()
            faults = minor_faults()
            wanted = min(min_samples, max(SLOW_SAMPLES, int(SLOW_TIME / settled)))
            samples, passes = ring.sample(settled, wanted - 1, 0.0)
            samples = [settled, *samples]
        else:
            estimate = ring.warm_up(long)
            faults = minor_faults()
            samples, passes = ring.sample(estimate, min_samples, min_time, patience_s)
        after = minor_faults()
        cold = None if single else clock.cold_samples(call, ring.done)
    return {
        "samples_s": samples,
        "pace_s": [beside.pace_s for beside in ring.beside] or None,
        "waited": [beside.waited for beside in ring.beside] or None,
        "device_samples_s": clock.device_samples or None,
        "cold_device_samples_s": cold,
        "first_call_s": first_call_s,
        "compile_s": None,
        "minor_faults": None if faults is None or after is None or not passes else (after - faults) / passes,
        "method": clock.method,
        "flags": flags_of(calm if len(calm := ring.calm(samples)) >= ENOUGH else samples),
    }


def flags_of(samples: list[float]) -> list[str]:
    """What a reader must know about a series before trusting its median."""
    flags = ["few-samples"] if len(samples) < 2 else []
    return flags if steady(samples) else [*flags, "unsteady"]


@dataclass
class Passes:
    """Runs passes over the ring, never the same index twice, and ticks between them."""

    call: Callable[[int], Any]
    clock: Clock
    tick: Callable[[], Any]
    cores: Cores | None = None
    beside: list[Beside] = field(default_factory=list)  # of each block that was kept
    done: int = 0
    kept: int = 0  # blocks
    ticked: float = field(default=float("-inf"))

    def before_long_pass(self) -> None:
        """Tells the parent that a pass begins which may take long."""
        self.tick()
        self.ticked = time.monotonic()

    def block(self, passes: int, *, keep: bool = False) -> float:
        """Seconds of a block; a tick before it if the last is a second old."""
        if time.monotonic() - self.ticked >= TICK_EVERY:
            self.before_long_pass()
        if keep and self.cores:
            self.cores.begin()
        seconds = self.clock.block(self.call, self.done, passes, keep=keep)
        if keep and self.cores:
            self.beside.append(self.cores.end(seconds))
        self.done += passes
        self.kept += keep
        return seconds

    def calm(self, values: list[float], first: int = 0) -> list[float]:
        """Those, one a kept block from ``first`` on, for which the cores were fully at hand."""
        if self.cores is None:
            return values
        paces, waits = zip(*self.beside[first:], strict=True) if values else ((), ())
        return calm_samples(values, paces, waits, self.cores.best_s)

    def run_long(self, *, keep: bool = False) -> float:
        """Seconds of one pass that may be long."""
        self.before_long_pass()
        return self.block(1, keep=keep)

    def first(self) -> tuple[float, float]:
        """Seconds of the first pass, and of the first one that is as long as any.

        They are two where the first one is long and may have loaded what a device computes with.
        """
        first = self.run_long()
        return first, self.run_long() if first >= SLOW and self.clock.loads else first

    def warm_up(self, first_call: float) -> float:
        """Passes until steady; returns the fastest, the estimate for the length of a block."""
        recent: list[float] = []  # seconds a pass of the last two blocks
        fastest, spent, blocks, passes = float("inf"), first_call, 0, 1
        while True:
            seconds = self.block(passes)
            recent = [*recent[-1:], seconds / passes]
            fastest = min(fastest, recent[-1])
            spent, blocks = spent + seconds, blocks + 1
            steady = blocks >= WARM_BLOCKS and max(recent) <= STEADY * fastest
            if spent >= WARM_LIMIT or (spent >= WARM_MIN and steady):
                return fastest
            if seconds < BLOCK:
                passes *= 2

    def settle(self) -> float:
        """Seconds of the first pass that takes no new memory; of the fourth where every pass does.

        A warm heap grows for some passes, since what they freed does not fit the next one's requests.
        """
        for _ in range(NEW_PASSES):
            self._forget_from(0)
            before = minor_faults()
            seconds = self.block(1, keep=True)
            after = minor_faults()
            if before is None or after is None or after - before < NEW_PAGES:
                break
        return seconds

    def sample(
        self, estimate: float, min_samples: int, min_time: float, patience_s: float = 0.0
    ) -> tuple[list[float], int]:
        """Seconds a pass of each block, and all passes run; a block under a millisecond is drawn again.

        Ends with as many calm blocks, of as many seconds, as are wanted; else when patience does.
        """
        samples: list[float] = []
        blocks: list[float] = []  # seconds of each
        before, kept = self.done, self.kept

        def enough(blocks: list[float]) -> bool:
            lasting = sum(blocks) >= min_time or len(blocks) >= MAX_SAMPLES
            return len(blocks) >= min_samples and lasting

        passes = passes_for(estimate)
        while not enough(blocks) or (
            sum(blocks) < min_time + patience_s and not enough(self.calm(blocks, kept))
        ):
            seconds = self.block(passes, keep=True)
            if seconds < BLOCK:
                passes = max(passes + 1, passes_for(seconds / passes))
                self._forget_from(kept + len(samples))
                continue
            samples.append(seconds / passes)
            blocks.append(seconds)
            if len(samples) == 1 and min_time / MAX_SAMPLES > seconds:
                passes = passes_for(seconds / passes, min_time / MAX_SAMPLES)
        return samples, self.done - before

    def _forget_from(self, block: int) -> None:
        """What was kept beside blocks that do not count after all."""
        del self.clock.device_samples[block:], self.beside[block:]
        self.kept = min(self.kept, block)


def passes_for(seconds: float, block: float = BLOCK) -> int:
    """Passes that fill a block with a fifth to spare."""
    return max(1, int(1.2 * block / max(seconds, 1e-9)) + 1)


@contextmanager
def no_collection() -> Iterator[None]:
    """Collects garbage now and not again before the end."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def minor_faults() -> int | None:
    """Page faults of this process without input or output so far; None where the system does not say."""
    return None if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_minflt
