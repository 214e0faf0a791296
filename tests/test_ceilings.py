"""The ceilings' shape, that rates follow from times, and that a provider which is wrong is not used."""

import time
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from effbench import ceilings


@pytest.fixture(scope="module")
def measured():
    start = time.perf_counter()
    result = ceilings.measure(["float32", "float16"])
    return result, time.perf_counter() - start


def test_shape_and_units(measured):
    result, seconds = measured
    assert set(result) == {"device", "threads", "cache_bytes", "matmul", "matmul_by_heads", "copy", "exp"}
    assert (result["device"], result["threads"]) == ("cpu", torch.get_num_threads())
    assert result["cache_bytes"] is None or result["cache_bytes"] > 1 << 15
    assert set(result["matmul"]) == {"float32", "float16"}
    assert set(result["matmul"]["float32"]) >= {"torch"}
    assert set(result["copy"]) == {"memory", "cache"}
    providers = set(result["matmul"]["float32"])
    assert set(result["matmul_by_heads"]) == (providers if len(providers) > 1 else set())
    rates = [rate for of in result["matmul"].values() for rate in of.values()]
    rates += result["matmul_by_heads"].values()
    assert all(set(rate) == {"flops_per_s", "spread", "disturbed"} for rate in rates)
    assert all(rate["flops_per_s"] > 0 for rate in rates)
    assert all(rate["bytes_per_s"] > 0 and rate["spread"] >= 0 for rate in result["copy"].values())
    assert result["exp"]["elements_per_s"] > 0
    assert seconds < 30  # bounded even on a loaded machine without half-precision hardware


def test_a_rate_is_work_over_time(monkeypatch):
    monkeypatch.setattr(ceilings, "_timed", lambda *_: ceilings.Timed(0.5, 0.125, False))
    rest = {"spread": 0.125, "disturbed": False}
    assert ceilings._copy_rate(1000, "cpu", ceilings.Conditions(iter(()))) == {"bytes_per_s": 4000.0, **rest}
    assert ceilings._exp_rate(1000, "cpu", ceilings.Conditions(iter(()))) == {"elements_per_s": 500.0, **rest}
    monkeypatch.setattr(ceilings, "_largest", lambda product, dtype, device: (100, lambda: None))
    rates = ceilings._matmul_rates(torch.float32, "cpu", ceilings.Conditions(iter(())))
    assert rates["torch"] == {"flops_per_s": 4e6, **rest}
    monkeypatch.setattr(ceilings.products, "tiles_of_heads", lambda provider: (lambda: None, 1000))
    rates = ceilings._rates_by_heads("cpu", ceilings.Conditions(iter(())))
    assert rates["torch"] == {"flops_per_s": 2000.0, **rest}


class Machine:
    """A clock for each call: it takes a millisecond, and ``wait`` more while something else has the core."""

    def __init__(self, waits):
        self.waits, self.now, self.worked, self.rests = waits, 0.0, 0.0, 0
        self.perf_counter, self.thread_time = lambda: self.now, lambda: self.worked

    def sleep(self, seconds):
        self.now, self.rests = self.now + seconds, self.rests + 1

    def call(self):
        self.now += 0.001 + self.waits[min(self.rests, len(self.waits) - 1)]
        self.worked += 0.001


class Cores:
    """Slow or not, look by look."""

    def __init__(self, *looks):
        self.looks = list(looks)

    def slow(self):
        return self.looks.pop(0)


def timed(monkeypatch, waits, retakes=3, cores=None):
    machine = Machine(waits)
    monkeypatch.setattr(ceilings, "time", machine)
    monkeypatch.setattr(ceilings, "neighbours", lambda threads: nullcontext(SimpleNamespace(disturb=False)))
    return machine, ceilings._timed(machine.call, "cpu", ceilings.Conditions(iter(range(retakes)), cores))


def test_a_disturbed_rate_is_taken_again_until_it_is_clean(monkeypatch):
    machine, found = timed(monkeypatch, waits=(0.5, 0.2, 0.0))
    assert (found.seconds, found.disturbed) == (pytest.approx(0.001), False)
    assert machine.rests == 2


def test_one_that_is_never_clean_is_the_best_of_so_many_and_says_so(monkeypatch):
    machine, found = timed(monkeypatch, waits=(0.5, 0.2, 0.3, 0.4))
    assert (found.seconds, found.disturbed) == (pytest.approx(0.201), True)
    assert machine.rests == 3


def test_slow_cores_disturb_a_rate_before_and_after_it(monkeypatch):
    machine, found = timed(monkeypatch, waits=(0.0,), cores=Cores(True, False, True, False, False))
    assert (found.disturbed, machine.rests) == (False, 2)


def test_what_others_took_of_the_other_cores_disturbs_too(monkeypatch):
    monkeypatch.setattr(ceilings, "neighbours", lambda threads: nullcontext(SimpleNamespace(disturb=True)))
    assert ceilings._timed(lambda: sum(range(1000)), "cpu", ceilings.Conditions(iter(()))).disturbed


def test_a_provider_that_fails_or_is_wrong_is_left_out(monkeypatch):
    def refuses(x, weight):
        raise RuntimeError("not for this dtype")

    for broken in (refuses, lambda x, weight: x + 1):
        monkeypatch.setattr(ceilings, "_onednn", broken)
        assert set(ceilings._providers(torch.float32, "cpu")) == {"torch"}


@pytest.mark.parametrize(
    ("rates", "provider"),
    [
        ({"torch": 2.0, "onednn": 1.0}, "torch"),
        ({"torch": 1.0, "onednn": 2.0}, "onednn"),
        ({"torch": 1.0}, "torch"),
    ],
)
def test_faster(rates, provider):
    measured = {"matmul": {"float32": {name: {"flops_per_s": rate} for name, rate in rates.items()}}}
    assert ceilings.faster(measured, "float32") == provider
    assert ceilings.faster(measured, "float64") == "torch"  # not measured


@pytest.mark.parametrize(
    ("rates", "provider"),
    [
        ({"torch": 1.0, "onednn": 1.1}, "onednn"),
        ({"torch": 1.1, "onednn": 1.0}, "torch"),
        ({"torch": 1.0}, "torch"),
        ({}, "torch"),
    ],
)
def test_faster_by_heads(rates, provider):
    measured = {"matmul_by_heads": {name: {"flops_per_s": rate} for name, rate in rates.items()}}
    assert ceilings.faster_by_heads(measured) == provider


def test_what_has_one_provider_only_needs_no_rate_by_heads():
    assert ceilings.measure(["float64"])["matmul_by_heads"] == {}
