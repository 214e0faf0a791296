"""The kernel's counts of resident pages: how far a peak read from them may be off, and how to read past that.

Since Linux 6.2 each core keeps what it has yet to add to a process's counts, up to a batch of pages
(mm_counter in include/linux/mm.h, lib/percpu_counter.c). A sum over the cores is exact, but the high-water
mark is taken from what was added already, and so is up to a batch a core off: on two cores 0.25 MB.

With all threads on one core a reading is rounded to whole batches. Dithered, it is exact: the pass is made
above a ballast of so many pages that the core's count stands at each of some places in its batch, and the
mean of what was rounded is the truth, as with any quantiser. It agrees with what is known to a page or two,
what kernels take for themselves included, which no look between operators sees.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

from effbench.meters import resident

PAGE = mmap.PAGESIZE
_PROBE, _PHASES = 40, 4  # pages of a pass whose rise is known, of no batch a multiple; and its calls


def batch() -> int:
    """Pages that a core may keep to itself (compute_batch_value in lib/percpu_counter.c)."""
    return max(32, 2 * (os.cpu_count() or 1))


def lag() -> int:
    """Bytes by which one reading of a high-water mark may be off: all that cores keep to themselves."""
    return (batch() - 1) * (os.cpu_count() or 1) * PAGE if sys.platform == "linux" else PAGE


def resolution(phases: int) -> int:
    """Bytes that the mean over so many places in the batch tells apart."""
    return -(-batch() // phases) * PAGE


def dithered_rise(call: Callable[[], Any], phases: int) -> int:
    """Bytes by which a warm call raises what is resident, from so many calls on one core."""
    resident.settle()
    with _one_core():
        return round(sum(_rise(call, batch() * k // phases) for k in range(phases)) / phases)


@cache
def dithers() -> bool:
    """Whether the mean tells what a known pass adds; not on kernels that count in another way.

    Nor in a process that was executed by a larger one, since getrusage(2) never forgets that one's pages; in
    one that was forked it does.
    """
    if not (sys.platform == "linux" and resident.can_reset()):
        return False
    try:
        found = dithered_rise(lambda: _touched(_PROBE).close(), _PHASES)
    except OSError:  # the threads may not be moved
        return False
    return abs(found - _PROBE * PAGE) <= 2 * resolution(_PHASES)


def _rise(call: Callable[[], Any], phase: int) -> int:
    resident.trim()
    # Counting down, a core keeps pages too few to itself; so many up, and it keeps pages too many.
    with _touched(2 * batch() + phase):
        resident.reset()
        before = resident.record()
        output = call()
        del output
        return resident.record() - before


def _touched(pages: int) -> mmap.mmap:
    """Private memory of so many pages, each written to."""
    memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    memory[::PAGE] = bytes(pages)
    return memory


@contextmanager
def _one_core() -> Iterator[None]:
    """All threads of this process on the core where this one is."""
    before = {int(thread): os.sched_getaffinity(int(thread)) for thread in os.listdir("/proc/self/task")}
    core = resident.libc().sched_getcpu()
    try:
        for thread in before:
            _move(thread, {core})
        yield
    finally:
        for thread, cores in before.items():
            _move(thread, cores)


def _move(thread: int, cores: set[int]) -> None:
    with suppress(ProcessLookupError):  # it has ended
        os.sched_setaffinity(thread, cores)
