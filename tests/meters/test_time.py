"""The time meter's laws; no absolute time is asserted, a fake clock stands in where seconds matter."""

import gc
import time
from types import SimpleNamespace

import pytest
import torch

from effbench.meters import clocks
from effbench.meters import time as meter
from effbench.meters.cores import Beside


class FakeTime:
    """A clock that only a pass moves."""

    def __init__(self):
        self.now = 0.0

    def perf_counter_ns(self):
        return round(self.now * 1e9)

    def monotonic(self):
        return self.now


class Passes:
    """A call of known cost that logs what happens, in order."""

    def __init__(self, clock, cost):
        self.clock, self.cost, self.log, self.collecting = clock, cost, [], []

    def call(self, i):
        self.log.append(i)
        self.collecting.append(gc.isenabled())
        self.clock.now += self.cost(i) if callable(self.cost) else self.cost

    def warm(self):
        self.log.append("warm")

    def tick(self):
        self.log.append("tick")

    def measure(self, *, single=False, min_samples=5, min_time=0.2):
        options = {"min_samples": min_samples, "min_time": min_time, "single": single}
        return meter.measure(self.call, **options, warm=self.warm, tick=self.tick)

    @property
    def indices(self):
        return [entry for entry in self.log if isinstance(entry, int)]


class CalmCores:
    """Always as fast as they can be."""

    best_s = (1.0,)

    def __init__(self, best_s=None):
        self.slow = 0

    def begin(self):
        pass

    def end(self, seconds):
        self.slow = max(0, self.slow - 1)
        return Beside((2.0,) if self.slow else (1.0,), 0.0)


@pytest.fixture
def clock(monkeypatch):
    clock = FakeTime()
    monkeypatch.setattr(meter, "Cores", CalmCores)
    monkeypatch.setattr(meter, "time", clock)
    monkeypatch.setattr(clocks, "time", clock)
    return clock


@pytest.mark.parametrize("cost", [2e-6, 3e-4, 0.04, 0.7])
def test_samples_are_seconds_a_pass(clock, cost):
    result = Passes(clock, cost).measure()
    assert result["samples_s"] == pytest.approx([cost] * len(result["samples_s"]), rel=1e-3)
    assert result["first_call_s"] == pytest.approx(cost, abs=1e-9)
    assert result["flags"] == []


@pytest.mark.parametrize("cost", [2e-6, 3e-4, 0.04, 0.25])
def test_enough_samples_and_enough_time(clock, cost):
    passes = Passes(clock, cost)
    samples = passes.measure(min_samples=7, min_time=0.2)["samples_s"]
    assert 7 <= len(samples) <= meter.MAX_SAMPLES
    assert clock.now >= 0.2
    if cost >= 0.04:  # no more than the question asks for
        assert len(samples) == 7


def test_one_sample_of_a_slow_pass_is_the_first_that_settled(clock):
    result = Passes(clock, 0.7).measure(min_samples=1)
    assert result["samples_s"] == pytest.approx([0.7])
    assert result["minor_faults"] is None


def test_blocks_last_a_millisecond(clock):
    blocks = []

    class Recording(meter.Clock):
        def block(self, call, first, passes, *, keep=False):
            seconds = super().block(call, first, passes, keep=keep)
            if keep:
                blocks.append((seconds, passes))
            return seconds

    ring = meter.Passes(lambda i: setattr(clock, "now", clock.now + 1e-4), Recording(), lambda: None)
    samples, total = ring.sample(1e-3, 5, 0.002)  # the estimate is ten times too long
    assert total == sum(passes for _, passes in blocks)
    assert [seconds for seconds, _ in blocks if seconds < meter.BLOCK] == [blocks[0][0]]
    assert len(samples) == len(blocks) - 1


def test_every_pass_has_an_input_of_its_own(clock):
    passes = Passes(clock, 0.02)
    passes.measure()
    assert passes.indices == list(range(len(passes.indices)))


def test_warm_up_waits_until_steady(clock):
    slow_start = Passes(clock, lambda i: 0.01 * (1 + 2 * 0.5**i))
    assert max(slow_start.measure()["samples_s"]) < 0.01 * meter.STEADY


def test_warm_up_of_a_very_quick_call_is_bounded(clock):
    passes = Passes(clock, 1e-5)
    meter.Passes(passes.call, meter.Clock(), passes.tick).warm_up(0.0)
    assert clock.now <= 2 * meter.WARM_LIMIT
    assert passes.log.count("tick") == 1


def test_warm_up_of_a_slow_call_is_one_pass(clock):
    passes = Passes(clock, 0.2)
    passes.measure(min_samples=5)
    assert len(passes.indices) == 1 + 1 + 5


@pytest.mark.parametrize(("cost", "samples"), [(0.31, 4), (0.5, 3), (1.1, 2), (4.9, 2)])
def test_after_a_slow_first_call_as_many_samples_as_fit(clock, cost, samples):
    passes = Passes(clock, cost)
    result = passes.measure(min_samples=5)
    assert len(passes.indices) == 1 + samples
    assert len(result["samples_s"]) == samples
    assert result["flags"] == []


def test_single_is_a_warm_up_and_one_pass(clock):
    passes = Passes(clock, 9.0)
    result = passes.measure(single=True)
    assert passes.log == ["tick", "warm", "tick", 0]
    assert result["samples_s"] == [pytest.approx(9.0)]
    assert result["first_call_s"] is None
    assert result["flags"] == ["few-samples"]


def test_a_first_call_of_over_five_seconds_is_the_warm_up(clock):
    passes = Passes(clock, lambda i: 6.0 if i == 0 else 5.5)
    result = passes.measure()
    assert passes.log == ["tick", 0, "tick", 1]
    assert (result["first_call_s"], result["samples_s"]) == (6.0, [5.5])
    assert result["flags"] == ["few-samples"]


def test_what_the_first_pass_loads_is_no_measure_of_a_pass(clock, monkeypatch):
    monkeypatch.setattr(clocks.Clock, "loads", True)
    passes = Passes(clock, lambda i: 7.0 if i == 0 else 1e-4)
    result = passes.measure(min_samples=5, min_time=0.1)
    assert result["first_call_s"] == 7.0
    assert len(result["samples_s"]) > 5
    assert result["samples_s"] == pytest.approx([1e-4] * len(result["samples_s"]), rel=1e-3)


def test_a_pass_that_is_long_though_all_is_loaded_is_measured_as_such(clock, monkeypatch):
    monkeypatch.setattr(clocks.Clock, "loads", True)
    passes = Passes(clock, lambda i: 8.0 if i == 0 else 5.5)
    assert passes.measure()["samples_s"] == [5.5]
    assert passes.indices == [0, 1, 2]


def test_the_device_has_a_sample_for_each_that_counts(clock):
    class Device(meter.Clock):
        def block(self, call, first, passes, *, keep=False):
            seconds = super().block(call, first, passes, keep=keep)
            if keep:
                self.device_samples.append(seconds / passes)
            return seconds

    costs = iter([0.4] + [1e-4] * 10_000)
    ring = meter.Passes(lambda i: setattr(clock, "now", clock.now + next(costs)), Device(), lambda: None)
    settled = ring.settle()
    samples, _ = ring.sample(settled, 4, 0.0)  # the first blocks are too short, and drawn again
    assert ring.clock.device_samples == pytest.approx([settled, *samples])


def test_a_cold_cache_that_does_not_fit_beside_the_pass_costs_no_answer(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("full")

    clock = clocks.CudaClock()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(L2_cache_size=8))
    monkeypatch.setattr(torch, "empty", lambda *_, **__: torch.zeros(16))
    monkeypatch.setattr(clock, "_events", lambda: (SimpleNamespace(record=lambda: None),) * 2)
    assert clock.cold_samples(full, 0) is None
    monkeypatch.setattr(torch, "empty", full)
    assert clock.cold_samples(lambda i: None, 0) is None


def test_ticks_come_before_long_passes_and_once_a_second(clock):
    slow = Passes(clock, 1.5)
    slow.measure()
    calls = [i for i, entry in enumerate(slow.log) if entry != "tick"]
    assert all(slow.log[i - 1] == "tick" for i in calls)
    start = clock.now
    quick = Passes(clock, 0.004)
    quick.measure(min_time=3.0)
    ticks = quick.log.count("tick")
    assert 1 <= ticks <= 1 + (clock.now - start) / meter.TICK_EVERY


def test_ticks_stay_outside_timed_sections(clock):
    passes = Passes(clock, 1.5)
    passes.tick = lambda: setattr(clock, "now", clock.now + 100.0)
    assert passes.measure()["samples_s"] == pytest.approx([1.5] * 2)


def test_an_unsteady_series_is_flagged():
    assert meter.flags_of([1.0] * 10 + [1.2] * 10) == ["unsteady"]
    assert meter.flags_of([1.0, 1.2] * 10) == []


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_off_inside_and_restored(clock, enabled):
    was = gc.isenabled()
    (gc.enable if enabled else gc.disable)()
    try:
        passes = Passes(clock, 0.01)
        passes.measure()
        assert not any(passes.collecting)
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_the_collector_is_restored_after_an_exception():
    def fails(i):
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        meter.measure(fails, min_samples=5, min_time=0.1, single=False, warm=fails, tick=lambda: None)
    assert gc.isenabled()


def test_minor_faults_are_counted_a_pass():
    import mmap

    pages = 64

    def touch(i):
        with mmap.mmap(-1, pages * mmap.PAGESIZE) as region:
            for place in range(0, len(region), mmap.PAGESIZE):
                region[place] = 1

    def nothing(i):
        return None

    def faults(call):
        options = {"min_samples": 3, "min_time": 0.01, "single": False}
        return meter.measure(call, **options, warm=lambda: None, tick=lambda: None)["minor_faults"]

    assert pages * 0.9 <= faults(touch) <= pages * 1.5
    assert faults(nothing) < 1


def test_real_time_is_in_seconds():
    begin = time.perf_counter()
    result = meter.measure(
        lambda i: time.sleep(0.002), min_samples=5, min_time=0.02, single=False, warm=int, tick=lambda: None
    )
    assert min(result["samples_s"]) >= 0.002
    assert sum(result["samples_s"]) < time.perf_counter() - begin
    assert result["device_samples_s"] is None


class SlowCores(CalmCores):
    """Slow beside the first blocks, so many as ``FOR`` says."""

    FOR = 0

    def __init__(self, best_s=None):
        super().__init__(best_s)
        self.slow = self.FOR + 1


@pytest.mark.parametrize(("slow", "taken"), [(0, 5), (3, 9), (100, 15)])  # next to slow ones none is calm
def test_what_slow_cores_spoil_is_made_up_for_within_limits(clock, monkeypatch, slow, taken):
    monkeypatch.setattr(SlowCores, "FOR", slow)
    monkeypatch.setattr(meter, "Cores", SlowCores)
    found = meter.measure(
        Passes(clock, 0.04).call,
        min_samples=5,
        min_time=0.19,
        single=False,
        warm=lambda: None,
        tick=lambda: None,
        best_s=(1.0,),
        patience_s=0.38,
    )
    assert len(found["samples_s"]) == len(found["pace_s"]) == len(found["waited"]) == taken
    assert sum(pace > (1,) for pace in found["pace_s"]) == min(slow, taken)
