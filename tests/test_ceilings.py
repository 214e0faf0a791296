"""The ceilings' shape, that rates follow from times, and that a provider which is wrong is not used."""

import time

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
    assert set(result) == {"device", "threads", "cache_bytes", "matmul", "copy", "exp"}
    assert (result["device"], result["threads"]) == ("cpu", torch.get_num_threads())
    assert result["cache_bytes"] is None or result["cache_bytes"] > 1 << 15
    assert set(result["matmul"]) == {"float32", "float16"}
    assert set(result["matmul"]["float32"]) >= {"torch"}
    assert set(result["copy"]) == {"memory", "cache"}
    rates = [*result["matmul"]["float32"].values(), *result["matmul"]["float16"].values()]
    assert all(set(rate) == {"flops_per_s", "spread"} and rate["flops_per_s"] > 0 for rate in rates)
    assert all(rate["bytes_per_s"] > 0 and rate["spread"] >= 0 for rate in result["copy"].values())
    assert result["exp"]["elements_per_s"] > 0
    assert seconds < 30  # bounded even on a loaded machine without half-precision hardware


def test_a_rate_is_work_over_time(monkeypatch):
    monkeypatch.setattr(ceilings, "_timed", lambda call, device: (0.5, 0.125))
    assert ceilings._copy_rate(1000, "cpu") == {"bytes_per_s": 4000.0, "spread": 0.125}
    assert ceilings._exp_rate(1000, "cpu") == {"elements_per_s": 500.0, "spread": 0.125}
    monkeypatch.setattr(ceilings, "_largest", lambda product, dtype, device: (100, lambda: None))
    rates = ceilings._matmul_rates(torch.float32, "cpu")
    assert rates["torch"] == {"flops_per_s": 4e6, "spread": 0.125}


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
