"""What the cores give: the fixed work is real, and a thread that has no core is seen to wait."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from effbench.meters import cores
from effbench.meters.cores import Cores


class Work:
    """A fixed work, and the clock: every reading takes as many 10 µs as it says."""

    def __init__(self, *seconds: float) -> None:
        self.seconds, self.done, self.now = list(seconds), 0, 0.0

    def __call__(self) -> None:
        self.now += 1e-5 * self.seconds[min(self.done, len(self.seconds) - 1)]
        self.done += 1

    def perf_counter(self) -> float:
        return self.now


def watched(work: Work, monkeypatch: pytest.MonkeyPatch, best_s: float | None = None) -> Cores:
    monkeypatch.setattr(cores, "time", work)
    found = Cores(best_s and (best_s,))
    found._works = [work]
    return found


def test_the_first_good_reading_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(9.0, 2.0, 1.04, 1.0)
    assert watched(work, monkeypatch, best_s=1e-5).pace() == pytest.approx((1.04e-5,))
    assert work.done == 3  # the first one only brings the work into the cache


def test_without_a_good_reading_the_fastest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(9.0, 2.0, 1.5, 2.0)
    assert watched(work, monkeypatch, best_s=1e-5).pace() == pytest.approx((1.5e-5,))
    assert work.done == cores._READINGS + 1


def test_beside_load_one_long_reading_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    work = Work(9.0, 500.0)
    assert watched(work, monkeypatch, best_s=1e-5).pace() == pytest.approx((5e-3,))
    assert work.done == 2


def test_cores_are_slow_that_are_a_good_deal_below_their_best(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not watched(Work(1.0, 1.1), monkeypatch, best_s=1e-5).slow()
    assert watched(Work(1.0, 1.2), monkeypatch, best_s=1e-5).slow()
    assert not watched(Work(1.0, 1.2), monkeypatch).slow()  # nobody knows their best
    far_apart = watched(Work(1.0, 1.0), monkeypatch, best_s=1e-5)
    far_apart._works.append(Work(9.0))
    far_apart.best_s = (1e-5, 1e-5)
    assert not far_apart.slow()


def test_a_block_is_as_slow_as_its_worse_end(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Work(1.0), Work(1.0)
    watcher = watched(first, monkeypatch)
    watcher._works.append(second)
    monkeypatch.setattr(first, "perf_counter", lambda: first.now + second.now)
    watcher.begin()
    first.seconds, second.seconds = [3.0], [0.5]
    assert watcher.end(1.0).pace_s == pytest.approx((3e-5, 1e-5))


@pytest.mark.parametrize("threads", [1, 2])
def test_real_works_take_time_one_more_on_several_threads(threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        pace = Cores().pace()
    finally:
        torch.set_num_threads(before)
    assert pace is not None
    assert len(pace) == threads
    assert all(0 < seconds < 1 for seconds in pace)


def test_the_work_of_another_number_of_threads_is_no_measure() -> None:
    watcher, threads = Cores(), torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        assert watcher.pace() is None
    finally:
        torch.set_num_threads(threads)


@pytest.mark.skipif(not os.path.exists("/proc/self/schedstat"), reason="this kernel keeps no such account")
def test_a_thread_that_shares_its_core_waits() -> None:
    core = min(os.sched_getaffinity(0))
    burn = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    mine = os.sched_getaffinity(0)
    watcher = Cores()
    with subprocess.Popen([sys.executable, "-c", burn]) as burner:
        try:
            os.sched_setaffinity(0, {core})
            time.sleep(0.3)
            watcher.begin()
            start = time.perf_counter()
            while time.perf_counter() - start < 0.3:
                pass
            waited = watcher.end(time.perf_counter() - start).waited
        finally:
            os.sched_setaffinity(0, mine)
            burner.kill()
    assert waited is not None
    assert waited > 0.1


def test_threads_that_come_and_go_leave_the_waiting_unknown() -> None:
    watcher, ready, end = Cores(), threading.Event(), threading.Event()

    def wait() -> None:
        ready.set()
        end.wait()

    thread = threading.Thread(target=wait)
    thread.start()
    ready.wait()
    watcher.begin()
    end.set()
    thread.join()
    while os.path.exists(f"/proc/self/task/{thread.native_id}"):  # the system lets go of it a little later
        time.sleep(0.001)
    assert watcher.end(1.0).waited is None
