"""Every mechanism is the function that its paper prints: values and gradients, at odd sizes."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from .conftest import CASES, MECHANISMS, built, sample

SIZES = [1, 7, 64, 65, 1031]


def gradients(function, module, x):
    """Of x and of every parameter, for a scalar in which all outputs differ in weight."""
    x = x.clone().requires_grad_()
    parameters = list(module.parameters())
    y = function(x)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).sin().view_as(y)
    return torch.autograd.grad((y * weight).sum(), [x, *parameters])


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_equals_reference(name, options, causal, n):
    module, x = built(name, n, causal=causal, **options), sample(n)
    with torch.no_grad():
        assert_close(module(x), MECHANISMS[name].reference(module, x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("d", "heads"), [(1, 1), (8, 1), (8, 8), (24, 3)])
@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_equals_reference_at_other_widths(name, options, causal, d, heads):
    module, x = built(name, 33, d=d, heads=heads, causal=causal, **options), sample(33, d=d)
    with torch.no_grad():
        assert_close(module(x), MECHANISMS[name].reference(module, x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n", [1, 65, 1031])
@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_gradients_equal_the_references(name, options, causal, n):
    d, heads = (16, 2) if n < 1000 else (4, 2)
    module, x = built(name, n, d=d, heads=heads, causal=causal, **options), sample(n, d=d)
    got = gradients(module, module, x)
    expected = gradients(lambda x: MECHANISMS[name].reference(module, x), module, x)
    for mine, theirs in zip(got, expected, strict=True):
        assert_close(mine, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("n", "gate"), [(4, "sigmoid"), (49, "sigmoid"), (49, "relu")])
def test_aft_conv_on_a_grid_equals_reference(n, gate):
    module, x = built("aft-conv", n, kernel=3, dims=2, gate=gate), sample(n)
    reference = MECHANISMS["aft-conv"].reference
    with torch.no_grad():
        assert_close(module(x), reference(module, x), rtol=1e-9, atol=1e-12)
    for mine, theirs in zip(
        gradients(module, module, x), gradients(lambda x: reference(module, x), module, x), strict=True
    ):
        assert_close(mine, theirs, rtol=1e-8, atol=1e-10)
