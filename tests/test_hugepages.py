"""A server's memory in huge pages: its children are as they were, and what they ask for is in small ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from effbench import hugepages

CODE = """
import mmap, os
from effbench import hugepages
held = mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
held[:] = bytes(range(256)) * (len(held) // 256)

def huge():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) // 1024 for line in file if line.startswith("AnonHugePages:"))

before = huge()
hugepages.collapse()
gained = huge() - before
read, write = os.pipe()
if not os.fork():
    held[:4] = b"mine"
    before = huge()
    fresh = mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    fresh[:] = bytes(len(fresh))
    os.write(write, f"{huge() - before} {held[4]} {held[-1]}".encode())
    os._exit(0)
os.wait()
print(gained, os.read(read, 99).decode(), held[:4] == bytes(range(4)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="madvise with MADV_COLLAPSE is Linux's")
def test_what_is_held_is_collapsed_and_what_a_child_asks_for_later_is_not() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    gained, of_child, fifth, last, unchanged = done.stdout.split()
    assert (fifth, last, unchanged) == ("4", "255", "True")
    if int(gained) == 0:
        pytest.skip("this kernel makes no huge pages of small ones")
    assert int(gained) >= 12  # what of the 16 MB is aligned
    if "always" not in _policy():
        assert int(of_child) <= 0


GATHERED = """
import mmap, resource
from effbench import hugepages
full, holed = (mmap.mmap(-1, 16 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) for _ in range(2))
full[:] = bytes(range(256)) * (len(full) // 256)
for place in range(0, len(holed), 2 * mmap.PAGESIZE):
    holed[place] = 1

def rollup():
    with open("/proc/self/smaps_rollup") as file:
        sizes = dict(line.split()[:2] for line in file if line.endswith("kB\\n"))
    return int(sizes["Anonymous:"]), int(sizes["AnonHugePages:"])

before = rollup()
hugepages.gather()
after = rollup()
begun = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for place in range(mmap.PAGESIZE, len(holed), 2 * mmap.PAGESIZE):
    holed[place] = 1
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - begun
intact = full[:] == bytes(range(256)) * (len(full) // 256)
print(after[0] - before[0], after[1] - before[1], faults, len(holed) // mmap.PAGESIZE // 2, intact)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="madvise with MADV_COLLAPSE is Linux's")
def test_what_is_gathered_is_looked_up_by_small_pages_and_no_other_is_made() -> None:
    done = subprocess.run([sys.executable, "-c", GATHERED], capture_output=True, text=True, check=True)
    resident, huge, faults, holes, intact = done.stdout.split()
    assert abs(int(resident)) < 1024, "kB; the holes are 8192"
    assert int(huge) <= 0
    if "always" not in _policy():
        assert int(faults) >= int(holes)
    assert intact == "True"


def _policy() -> str:
    policy = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    found = re.search(r"\[(\w+)\]", policy)
    return found.group(1) if found else ""


def test_elsewhere_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(hugepages.ctypes, "CDLL", lambda _: pytest.fail("there is no such call"))
    hugepages.collapse()
    hugepages.gather()
