"""What others took of the cores while something was measured: other processes, and the hypervisor."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICK = 0.01  # seconds: how coarsely the kernel counts a core's time
#: Others disturb from a quarter of a core on, and half of the cores that the threads leave free.
_SHARE, _OF_FREE = 0.25, 0.5


@dataclass
class Neighbours:
    """``cores`` is the mean number of cores that others kept busy; None where the system does not say."""

    threads: int
    usable: int = 0
    seconds: float = 0.0
    cores: float | None = None

    @property
    def disturb(self) -> bool:
        """Whether they took what the threads could have needed, beyond what the clock's ticks can feign."""
        if self.cores is None or self.seconds <= 0:
            return False
        doubt = 2 * _TICK * self.usable / self.seconds
        free = max(0, self.usable - self.threads)
        return self.cores - doubt > _SHARE + _OF_FREE * free


@contextmanager
def neighbours(threads: int, stat: Path = Path("/proc/stat")) -> Iterator[Neighbours]:
    """Watches a block that computes with so many threads; the answer is complete after it."""
    found = Neighbours(threads)
    mine = _usable()
    busy, own, start = busy_seconds(stat, mine), _own_seconds(), time.perf_counter()
    yield found
    seconds = time.perf_counter() - start
    after = busy_seconds(stat, mine)
    found.usable, found.seconds = len(mine), seconds
    if busy is not None and after is not None and seconds > 0:
        found.cores = max(0.0, (after - busy) - (_own_seconds() - own)) / seconds


def busy_seconds(stat: Path, cores: set[int]) -> float | None:
    """Seconds that some cores have been busy, the hypervisor's thefts included; None without /proc/stat."""
    try:
        lines = stat.read_text().splitlines()
    except OSError:
        return None
    busy = 0
    for line in lines:
        name, *counts = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            user, nice, system, _, _, irq, softirq, steal = map(int, counts[:8])
            busy += user + nice + system + irq + softirq + steal
    return busy / os.sysconf("SC_CLK_TCK")


def _usable() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def _own_seconds() -> float:
    """Processor time of this process and the children that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
