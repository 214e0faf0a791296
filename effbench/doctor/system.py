"""What the system says of itself: counters, allocator, pages, cores, governor, load, memory, variables.

Nothing is measured but the load. ``root`` stands for the file system, so that tests can show another one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from effbench import environment, perf
from effbench.cell import usable_cores
from effbench.doctor.finding import Finding
from effbench.meters import resident
from effbench.meters.neighbours import neighbours

_LOOK_S = 0.5  # at what other processes do
_GIB = 1 << 30
#: What lets instructions be counted, by the error of perf_event_open.
_TO_COUNT = {
    "EACCES": "sudo sysctl kernel.perf_event_paranoid=2",
    "EPERM": "allow perf_event_open in the container's seccomp profile",
    "ENOENT": "use a machine, or a kind of virtual machine, that passes its counters through",
    "EOPNOTSUPP": "use a machine, or a kind of virtual machine, that passes its counters through",
}
#: Takes, touches and frees 64 MiB twice, as a pass does; prints the page faults of the second time.
_SECOND_TOUCH = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
def touch():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = libc.malloc(ctypes.c_size_t(64 << 20))
    ctypes.memset(block, 1, 64 << 20)
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
touch()
print(touch())
"""
_KEPT = 16  # faults: a block given back would cost 32 at least, with huge pages of 2 MiB


def system_findings(root: Path = environment.ROOT) -> Iterator[Finding]:
    """One finding for each thing that the system knows of itself."""
    facts = environment.facts({}, root)
    yield counters()
    yield allocator(facts)
    yield huge_pages(facts)
    yield cores(facts)
    yield governor(facts)
    yield load(root)
    yield memory(facts)
    yield high_water_mark()
    yield variables(facts)


def counters() -> Finding:
    """Whether the processor's own counters answer a user's process."""
    why_not = perf.missing(perf.INSTRUCTIONS)
    if why_not is None:
        found = "retired instructions can be counted"
        return Finding(
            "performance counters", "ok", found=found, means="instructions do not depend on the load"
        )
    remedy = next((text for code, text in _TO_COUNT.items() if f"({code})" in why_not), "use Linux")
    means = "no instructions per call: of what runs, only noisy time can be compared"
    return Finding("performance counters", "absent", found=why_not, means=means, remedy=remedy)


def allocator(facts: Mapping[str, Any]) -> Finding:
    """Whether the settings of glibc's allocator act, seen in page faults, not in its name."""
    name, libc = "allocator", facts["os"]["libc"].strip("-") or "not glibc"
    kept = _faults(environment.WARM)
    separate = _faults(environment.SEPARATE)
    if kept is None or separate is None:
        return Finding(
            name,
            "limited",
            found=f"{libc}; it could not be tried",
            means="times may include page faults, and resident peaks holes of the heap",
        )
    found = f"{libc}; 64 MiB taken again cost {kept} page faults warm, {separate} as mappings of their own"
    if kept < _KEPT <= separate:
        means = "MALLOC_* settings act: no page faults in times, no holes of the heap in resident peaks"
        return Finding(name, "ok", found=found, means=means)
    doubts = []
    if kept >= _KEPT:
        doubts.append("times include the page faults of memory taken anew, up to 40 % in some processes")
    if separate < _KEPT:
        doubts.append("freed memory stays resident, so peak_bytes comes out too small; trust alloc_bytes")
    remedy = "start without LD_PRELOAD and GLIBC_TUNABLES, on a system with glibc"
    return Finding(name, "limited", found=found, means="; ".join(doubts), remedy=remedy)


def _faults(settings: Mapping[str, str]) -> int | None:
    command = [sys.executable, "-S", "-c", _SECOND_TOUCH]
    try:
        done = subprocess.run(
            command, env={**os.environ, **settings}, capture_output=True, text=True, timeout=30, check=True
        )
        return int(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


def huge_pages(facts: Mapping[str, Any]) -> Finding:
    """Whether memory comes in pages of 2 MiB unasked."""
    name, found = "transparent huge pages", facts["memory"]["huge_pages"]
    if found is None:
        means = "the system does not say; peaks and times are those of its usual pages"
        return Finding(name, "limited", found="unknown", means=means)
    if "[always]" in found:
        return Finding(
            name,
            "limited",
            found=found,
            means="small resident peaks grow to whole pages of 2 MiB, as free memory happens to lie",
            remedy="echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )
    return Finding(name, "ok", found=found, means="resident peaks are exact to ordinary pages")


def cores(facts: Mapping[str, Any]) -> Finding:
    """Threads against cores and the container's quota."""
    cpu = facts["cpu"]
    usable, physical, quota = cpu["usable_cores"], cpu["physical_cores"], cpu["limit"]
    found = f"{cpu['model']}: {usable} usable, {physical or 'unknown'} physical; quota " + (
        "none" if quota is None else f"{quota:g} cores"
    )
    if quota is not None and quota < usable:
        return Finding(
            "cores",
            "limited",
            found=found,
            means=f"{usable} threads use up the quota early in each period, and stand still for the rest",
            remedy=f"--threads {max(1, int(quota))}, or give the container whole cores (--cpuset-cpus)",
        )
    if physical is not None and usable > physical:
        return Finding(
            "cores",
            "limited",
            found=found,
            means="two threads share a core: they take from each other, and rates do not add up",
            remedy=f"--threads {physical}",
        )
    return Finding("cores", "ok", found=found, means=f"{usable} threads have a core each")


def governor(facts: Mapping[str, Any]) -> Finding:
    """What decides the processor's frequency."""
    name, found = "frequency governor", facts["cpu"]["governor"]
    if found is None:
        means = "the frequency is the host's affair: the noise floor below is all that tells of it"
        remedy = "on a machine of one's own the system would say"
        return Finding(name, "absent", found="the system does not say", means=means, remedy=remedy)
    if found == "performance":
        return Finding(name, "ok", found=found, means="the frequency does not follow the load")
    return Finding(
        name,
        "limited",
        found=found,
        means="the frequency follows the load, so that a short pass may run slower than a long one",
        remedy="sudo cpupower frequency-set --governor performance",
    )


def load(root: Path) -> Finding:
    """What other processes take of the cores now."""
    usable = usable_cores()
    with neighbours(usable, root / "proc/stat") as others:
        time.sleep(_LOOK_S)
    average = f"load average {os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "no load average"
    if others.cores is None:
        means = "a disturbed cell cannot be told from a slow one"
        return Finding("load now", "absent", found=average, means=means, remedy="use Linux")
    found = f"others keep {others.cores:.2f} of {usable} cores busy; {average}"
    if others.disturb:
        return Finding(
            "load now",
            "limited",
            found=found,
            means="cells measured now would be flagged loaded, and support no finding",
            remedy="stop what else runs, or wait",
        )
    return Finding("load now", "ok", found=found, means="quiet enough to measure")


def memory(facts: Mapping[str, Any]) -> Finding:
    """The machine's memory and the container's limit."""
    physical, limit = facts["memory"]["physical"], facts["memory"]["limit"]
    total = physical if limit is None else min(physical, limit)
    cell, free = total * 2 // 3, environment.available_memory()
    bound = "no limit of a container" if limit is None else f"the container's limit is {limit / _GIB:.1f} GiB"
    found = f"{physical / _GIB:.1f} GiB, {free / _GIB:.1f} GiB of it free; {bound}"
    if free < cell:
        return Finding(
            "memory",
            "limited",
            found=found,
            means=f"a cell may take {cell / _GIB:.1f} GiB, more than is free: it would swap or be killed",
            remedy=f"free memory, or --memory-limit {max(1, free * 9 // 10 >> 20)}MiB",
        )
    return Finding("memory", "ok", found=found, means=f"a cell may take {cell / _GIB:.1f} GiB")


def high_water_mark() -> Finding:
    """Whether the resident peak of one pass can be told from earlier ones."""
    name = "resident peak"
    if resident.can_reset():
        return Finding(
            name,
            "ok",
            found="VmHWM forgets its mark when /proc/self/clear_refs is told to",
            means="peak_bytes is that of one pass, after a warm-up",
        )
    return Finding(
        name,
        "limited",
        found="VmHWM cannot be reset",
        means="peak_bytes is that of a first call (ru_maxrss), empty where it stays below an earlier one",
        remedy="use Linux with CONFIG_PROC_PAGE_MONITOR; alloc_bytes is exact all the same",
    )


def variables(facts: Mapping[str, Any]) -> Finding:
    """Variables of the user's that change numbers."""
    found = " ".join(f"{name}={value}" for name, value in facts["variables"].items())
    if found:
        means = "they change numbers: runs with and without them are runs on different machines"
        return Finding("variables", "limited", found=found, means=means, remedy="unset them")
    return Finding("variables", "ok", found="none is set", means="nothing but effbench sets libraries")
