"""The way that mechanisms go on a GPU, as far as a CPU can show it."""

from __future__ import annotations

import pytest
import torch

from effbench.mechanisms import _parts

from .conftest import CASES, MECHANISMS, built, sample


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every tensor counts as one of a device with few, large launches."""
    monkeypatch.setattr(_parts, "on_cpu", lambda x: False)


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize("n", [1, 64, 289])
@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_large_tiles_compute_the_same(name, options, causal, n):
    module = built(name, n, causal=causal, **options)
    x = sample(n).requires_grad_()
    y, expected = module(x), MECHANISMS[name].reference(module, x)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-11)
    direction = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    (gradient,) = torch.autograd.grad(y, x, direction, retain_graph=True)
    (true,) = torch.autograd.grad(expected, x, direction)
    torch.testing.assert_close(gradient, true, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_all_is_made_on_the_device_of_the_input(name, options, causal):
    module = built(name, 64, causal=causal, dtype=torch.float32, **options).to("meta")
    x = torch.empty(2, 64, 16, device="meta", requires_grad=True)
    module(x).sum().backward()
    assert x.grad.device.type == "meta"
    assert all(p.grad is None or p.grad.device.type == "meta" for p in module.parameters())
