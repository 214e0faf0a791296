"""The traps of the Synthesizers: every product, one map for all, weights that sum to one, decoding."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from effbench.mechanisms import _whole
from effbench.mechanisms.synthesizer_dense import synthesizer_dense
from effbench.mechanisms.synthesizer_factorized_dense import factor_sizes, synthesizer_factorized_dense
from effbench.mechanisms.synthesizer_factorized_random import synthesizer_factorized_random
from effbench.mechanisms.synthesizer_mixture import component_names
from effbench.mechanisms.synthesizer_random import synthesizer_random

from .conftest import CASES, CAUSAL, built, sample

EXACT = {"rtol": 1e-9, "atol": 1e-12}
BY_SCORES = [case for case in CASES if case.values[0].startswith(("synthesizer", "mha-tiled"))]
STEPPING = [case for case in CAUSAL if case.values[0].startswith("synthesizer")]


@pytest.mark.parametrize(("name", "options", "causal"), BY_SCORES)
def test_all_scores_at_once_and_tile_by_tile(name, options, causal, monkeypatch):
    """Values and gradients; a module built for more tokens than it is given, and for as many."""
    for n in (70, 37):
        module, x = built(name, 70, causal=causal, **options), sample(n).requires_grad_()
        before = [parameter.clone() for parameter in module.parameters()]
        found = []
        for fits in (lambda *size: True, lambda *size: False):
            monkeypatch.setattr(_whole, "fits", fits)
            y = module(x)
            found.append([y, *torch.autograd.grad(y.sin().sum(), [x, *module.parameters()])])
            with torch.no_grad():  # where scores are written over
                assert_close(module(x), y, rtol=1e-13, atol=1e-13)
        for whole, tiled in zip(*found, strict=True):
            assert_close(whole, tiled, **EXACT)
        assert all(map(torch.equal, before, module.parameters()))


def test_all_products_of_the_factors_occur():
    """64 logits of 8 x 8 factors: 64 different weights, in the printed order."""
    hidden = torch.ones(1, 1, 64, 1, dtype=torch.float64)
    first, second = (sample(8, b=1, d=1, seed=seed) for seed in (1, 2))
    identity = torch.eye(64, dtype=torch.float64)[None, None]
    weights = synthesizer_factorized_dense(hidden, identity, first, second)[0, 0, 0]
    expected = torch.outer(first.flatten(), second.flatten()).flatten()
    assert len(weights.unique()) == 64
    assert_close(weights, expected.softmax(0), **EXACT)


@pytest.mark.parametrize("factor", [None, 1, 3, 1000])
@pytest.mark.parametrize("n", [1, 2, 7, 64, 1009])
def test_factors_suffice_and_none_is_idle(n, factor):
    a, b = factor_sizes(n, factor)
    assert (a - 1) * b < n <= a * b


@pytest.mark.parametrize("causal", [False, True])
def test_factorized_random_is_random_with_the_product(causal):
    v = sample(65).unflatten(2, (2, 8)).transpose(1, 2)
    left, right = sample(65, d=3, seed=2), sample(65, d=3, seed=3)
    got = synthesizer_factorized_random(v, left, right, causal=causal)
    assert_close(got, synthesizer_random(v, left @ right.mT, causal=causal), **EXACT)


@pytest.mark.parametrize("name", ["synthesizer-random", "synthesizer-factorized-random"])
def test_a_map_that_is_a_parameter_is_one_for_all_inputs_and_samples(name):
    module, x, other = built(name, 20), sample(20), sample(20, seed=9)
    assert_close(module(x + other), module(x) + module(other), **EXACT)
    assert_close(module(x.flip(0)), module(x).flip(0), **EXACT)


@pytest.mark.parametrize("at", [0, 1])
def test_a_mixture_with_one_weight_is_that_component(at):
    module, x = built("synthesizer-mixture", 33, components="random+dense"), sample(33)
    assert_close(module.scores.alphas().sum(), torch.tensor(1.0).double(), **EXACT)
    with torch.no_grad():
        module.scores.mixture.copy_(torch.tensor([0.0, -1e4] if at == 0 else [-1e4, 0.0]))
    v, hidden = module.project(x)
    random, dense = module.scores.parts
    alone = (synthesizer_random(v, random.logits), synthesizer_dense(hidden, v, dense.score))
    assert_close(module.mix(v, hidden), alone[at], **EXACT)


@pytest.mark.parametrize("components", ["dot", "random+", "random+random", "random,dot", "mha+dot"])
def test_components_that_make_no_mixture_are_refused(components):
    with pytest.raises(ValueError, match=r"expected two or more different ones of dot, dense, random"):
        component_names(components)
