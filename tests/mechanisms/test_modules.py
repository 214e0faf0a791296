"""What single layers are made of: projections, maps and kernels as their papers print them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from effbench.plugin import Shape

from .conftest import MECHANISMS, built, sample

EXACT = {"rtol": 1e-9, "atol": 1e-12}


def test_random_synthesizer_is_linear_in_the_input_and_dense_is_not():
    """A map that does not depend on the input makes a linear layer."""
    x, other = sample(20), sample(20, seed=9)
    random, dense = built("synthesizer-random", 20), built("synthesizer-dense", 20)
    assert_close(random(x + other), random(x) + random(other), **EXACT)
    assert (dense(x + other) - dense(x) - dense(other)).abs().max() > 0.1


def test_fixed_random_synthesizer_keeps_its_map_out_of_the_optimiser():
    module = MECHANISMS["synthesizer-random"].build(
        Shape(batch=1, seq=8, dim=4, heads=2), causal=False, trained=False
    )
    assert "scores.logits" in module.state_dict()
    assert "scores.logits" not in dict(module.named_parameters())


def test_the_initial_kernel_of_aft_conv_is_flat_and_its_form_standardised():
    module = MECHANISMS["aft-conv"].build(Shape(batch=1, seq=8, dim=8, heads=2), causal=False, kernel=5)
    assert torch.equal(module.kernel(), torch.zeros(2, 5))
    with torch.no_grad():
        module.gamma.fill_(2.0)
        module.beta.fill_(3.0)
    kernel = module.kernel()
    assert_close(kernel.mean(1), torch.full((2,), 3.0))
    assert_close(kernel.std(1, correction=0), torch.full((2,), 2.0))
    assert module.key.weight.shape == (2, 8)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mha", 4),
        ("mha-sdpa", 4),
        ("linear", 4),
        ("aft-full", 3),
        ("aft-local", 3),
        ("aft-simple", 3),
        ("fnet", 0),
    ],
)
def test_layers_have_the_projections_of_their_papers(name, shapes):
    module = MECHANISMS[name].build(Shape(batch=1, seq=8, dim=4, heads=2), causal=False)
    assert sum(p.shape == (4, 4) for p in module.parameters()) == shapes


@pytest.mark.parametrize(
    ("name", "options", "accepted"),
    [
        ("aft-local", {"window": 0.5}, "window 0.5: a whole number is accepted"),
        ("aft-local", {"window": -1}, "window -1: a whole number is accepted, 0"),
        ("synthesizer-random", {"trained": "no"}, "trained 'no': true or false is accepted"),
    ],
)
def test_an_option_that_would_be_taken_for_another_value_is_refused(name, options, accepted):
    with pytest.raises(ValueError, match=accepted):
        MECHANISMS[name].build(Shape(batch=1, seq=8, dim=4, heads=2), causal=False, **options)
