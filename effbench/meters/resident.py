"""How much a call raises the memory that the process holds resident.

Linux: writing 5 to /proc/self/clear_refs resets the high-water mark VmHWM (proc_pid_clear_refs(5), Linux
4.0 and later with CONFIG_PROC_PAGE_MONITOR). Elsewhere ru_maxrss must do: it cannot be reset, so that
only a first call which sets a new record for the process is visible.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

try:  # Windows has no resource module
    import resource
except ImportError:
    resource = None  # type: ignore[assignment]

PROBE = 16 << 20  # bytes


def rises(call: Callable[[], Any], *, passes: int) -> tuple[list[int], str]:
    """(rise in bytes of each pass, method); an empty list where nothing could be measured.

    The first pass is the cold one. Without a reset there is one pass only. Each output is dropped and
    what is free is given back to the system before the next pass.
    """
    if can_reset():
        return [_rise_since_reset(call) for _ in range(passes)], "vmhwm"
    if resource is None:
        return [], ""
    rise = _rise_of_record(call)
    return ([rise] if rise > 0 else []), "ru_maxrss"


def _rise_since_reset(call: Callable[[], Any]) -> int:
    settle()
    reset()
    before, code = status("VmRSS"), status("RssFile")
    output = call()
    peak = status("VmHWM")
    touched = max(0, status("RssFile") - code)  # pages of libraries, which a forked child maps one by one
    del output
    return max(0, peak - touched - before)


def _rise_of_record(call: Callable[[], Any]) -> int:
    """Bytes by which a call raises ru_maxrss; 0 says that it stayed below an earlier record."""
    settle()
    before = record()
    output = call()
    after = record()
    del output
    return after - before


def record() -> int:
    """The most bytes that were ever resident (since a reset), as getrusage(2) says."""
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def settle() -> None:
    """Collects garbage and gives free memory back, so that the call cannot hide in a hole of the heap."""
    gc.collect()
    trim()


def trim() -> None:
    """Gives free memory back to the system, where glibc can."""
    malloc_trim = getattr(libc(), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)


@cache
def libc() -> Any:
    """The C library on Linux, else None."""
    return ctypes.CDLL(None) if sys.platform.startswith("linux") else None


def reset() -> None:
    """Sets the high-water mark to what is resident now."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")


def status(field: str) -> int:
    """A size in bytes from /proc/self/status."""
    with open("/proc/self/status") as file:
        found = re.search(rf"^{field}:\s+(\d+) kB", file.read(), re.MULTILINE)
    if found is None:
        raise OSError(f"/proc/self/status has no {field}")
    return int(found.group(1)) * 1024


@cache
def can_reset() -> bool:
    """Whether the reset works here: touches 16 MB, gives it back, and looks whether the mark forgets it."""
    try:
        reset()
        with mmap.mmap(-1, PROBE) as pages:
            for place in range(0, PROBE, mmap.PAGESIZE):
                pages[place] = 1
        high = status("VmHWM")
        reset()
        return high - status("VmHWM") > PROBE // 2
    except OSError:
        return False
