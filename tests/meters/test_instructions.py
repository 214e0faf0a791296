"""Counters that the kernel keeps itself are there on any Linux; the processor's own ones only on some."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading

import pytest

from effbench import perf
from effbench.environment import server_environment
from effbench.meters import instructions

REASON = perf.missing(perf.PAGE_FAULTS)  # a container may refuse perf_event_open altogether
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

PAGES = 64


def touch(i: int = 0, pages: int = PAGES) -> None:
    with mmap.mmap(-1, pages * mmap.PAGESIZE) as memory:
        for place in range(0, len(memory), mmap.PAGESIZE):
            memory[place] = 1


@pytest.fixture
def faults():
    with perf.Counter(perf.PAGE_FAULTS) as counter:
        yield counter


def test_a_counter_follows_threads_that_start_later(faults: perf.Counter) -> None:
    before = faults.read()
    thread = threading.Thread(target=touch)
    thread.start()
    thread.join()
    assert PAGES <= faults.read() - before < 4 * PAGES


def test_the_median_pass_is_counted_exactly(faults: perf.Counter) -> None:
    pages = [PAGES] * 20
    pages[0] = pages[5] = 1000  # the first pass and some rare one do more
    calls, ticks = [], []

    def call(i: int) -> None:
        calls.append(i)
        touch(i, pages[len(calls) - 1])

    assert instructions.measure(call, counter=faults, tick=lambda: ticks.append(None)) == PAGES
    assert len(calls) == instructions.WARM + instructions.PASSES
    assert len(ticks) >= len(calls)


def test_a_costly_pass_is_counted_once(faults: perf.Counter) -> None:
    calls = []
    found = instructions.measure(
        lambda i: calls.append(i) or touch(i), counter=faults, warm=lambda: touch(0, PAGES // 4)
    )
    assert (found, calls) == (PAGES, [0])


def test_a_pass_of_many_events_is_made_twice(faults: perf.Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instructions, "ENOUGH", PAGES // 2)
    calls = []
    assert instructions.measure(lambda i: calls.append(i) or touch(i), counter=faults) == PAGES
    assert len(calls) == 2


def test_what_cannot_be_counted_says_why() -> None:
    reason = perf.missing(perf.Event(0, 1 << 20, "cups of tea"))
    assert reason is not None
    assert reason.startswith("cups of tea: ")
    assert perf.missing(perf.PAGE_FAULTS) is None


def test_programs_started_with_a_fixed_layout_have_it_and_others_have_not() -> None:
    program = [sys.executable, "-c", "from effbench import perf; print(perf.layout_is_fixed(), id(object))"]
    with perf.fixed_layout():
        fixed = {subprocess.check_output(program) for _ in range(2)}
    if any(b"False" in said for said in fixed):
        pytest.skip("this container does not let a program fix its layout")
    assert len(fixed) == 1
    assert not perf.layout_is_fixed()


COUNT = """
import torch
from effbench import perf
from effbench.meters import instructions
with perf.Counter(perf.INSTRUCTIONS) as counter:
    x = torch.randn(256, 256)
    print(instructions.measure(lambda i: (x @ x).softmax(-1), counter=counter))
"""


@pytest.mark.skipif(
    bool(perf.missing(perf.INSTRUCTIONS)), reason=perf.missing(perf.INSTRUCTIONS) or "they can be counted"
)
def test_two_processes_count_the_same_instructions() -> None:
    settings = os.environ | server_environment("instructions", threads=1, allocator="default")
    with perf.fixed_layout():
        first, second = (
            int(subprocess.check_output([sys.executable, "-c", COUNT], env=settings)) for _ in range(2)
        )
    assert first > 2 * 256**3 / 64  # no core does more than 64 FLOPs an instruction
    assert abs(first - second) <= 1e-6 * first + 10
