"""Token by token is the causal forward: every mechanism that offers a step, against its whole form."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.testing import assert_close

from effbench.plugin import Shape

from .conftest import CAUSAL, MECHANISMS, built, sample

EXACT = {"rtol": 1e-9, "atol": 1e-10}


def plain(name, causal=True):
    return MECHANISMS[name].build(Shape(batch=1, seq=4, dim=4, heads=1), causal=causal)


STEPPING = [case for case in CAUSAL if hasattr(plain(case.values[0]), "step")]


def stepped(module, x, state):
    """The outputs [b, n, d] of stepping through x, and the last state."""
    outputs = []
    for token in x.unbind(1):
        y, state = module.step(token, state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


def with_biases(module, factor):
    """Small position biases of the AFTs take one cache of keys, large ones another."""
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith("position"):
                parameter.mul_(factor)
    return module


def test_these_offer_a_step():
    assert {case.values[0] for case in STEPPING} >= {
        *("mha", "mha-sdpa", "linear", "aft-simple", "aft-local", "aft-full", "aft-conv")
    }


@pytest.mark.parametrize("factor", [0.3, 3.0])
@pytest.mark.parametrize("n", [1, 7, 71])
@pytest.mark.parametrize(("name", "options", "causal"), STEPPING)
def test_steps_are_the_causal_forward_whatever_was_prefilled(name, options, causal, n, factor):
    module, x = with_biases(built(name, n, causal=True, **options), factor), sample(n)
    expected = module(x)
    assert_close(stepped(module, x, module.initial_state(2))[0], expected, **EXACT)
    for part in {0, n // 2, n - 1}:
        rest, _ = stepped(module, x[:, part:], module.prefill(x[:, :part]))
        assert_close(rest, expected[:, part:], **EXACT)


@pytest.mark.parametrize("factor", [0.3, 3.0])
@pytest.mark.parametrize("kind", ["late", "large"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("name", "options", "causal"), STEPPING)
def test_steps_stay_exact_for_extreme_tokens(name, options, causal, kind, dtype, factor):
    """A late token that dwarfs all earlier ones, and inputs a hundred times as large."""
    module, x = with_biases(built(name, 40, d=4, causal=True, **options), factor), sample(40, d=4)
    if kind == "late":
        x[:, 30] += 110
    else:
        x *= 100
    module, x = module.to(dtype), x.to(dtype)
    expected = MECHANISMS[name].reference(copy.deepcopy(module).double(), x.double())
    for part in (0, 25):
        rest, _ = stepped(module, x[:, part:], module.prefill(x[:, :part]))
        error = (rest.double() - expected[:, part:]).abs().amax() / expected.abs().amax()
        assert error < (1e-9 if dtype == torch.float64 else 1e-3)


@pytest.mark.parametrize(("name", "options", "causal"), STEPPING)
def test_steps_in_bfloat16_are_as_near_as_the_forward(name, options, causal):
    module, x = (
        built(name, 65, causal=True, dtype=torch.bfloat16, **options),
        sample(65, dtype=torch.bfloat16),
    )
    exact = copy.deepcopy(module).double()(x.double())
    y, _ = stepped(module, x, module.initial_state(2))
    assert y.dtype == torch.bfloat16
    assert (y.double() - exact).norm() / exact.norm() < 0.06


@pytest.mark.parametrize(("name", "options", "causal"), STEPPING)
def test_a_step_leaves_its_state_as_it_was(name, options, causal):
    """Also where the continuation outgrew a cache, ran past a window or raised a shift."""
    module, x = with_biases(built(name, 200, causal=True, **options), 0.3), sample(200)
    state = module.prefill(x[:, :40])
    first, _ = module.step(x[:, 40], state)
    assert torch.equal(module.step(x[:, 40], state)[0], first)
    stepped(module, 60 * x[:, 40:], state)
    assert torch.equal(module.step(x[:, 40], state)[0], first)


@pytest.mark.parametrize(("name", "options", "causal"), STEPPING)
def test_stepping_past_the_length_is_refused_or_answered(name, options, causal):
    module, x = built(name, 5, causal=True, **options), sample(6)
    state = module.prefill(x[:, :5])
    if MECHANISMS[name].fixed_length:
        with pytest.raises(ValueError, match="at most 5 tokens and was given 6"):
            module.step(x[:, 5], state)
    else:
        assert_close(module.step(x[:, 5], state)[0], module(x)[:, 5], **EXACT)


@pytest.mark.parametrize("name", sorted({case.values[0] for case in STEPPING}))
def test_a_module_that_is_not_causal_has_no_steps(name):
    module, state = plain(name, causal=False), plain(name).initial_state(1)
    for ask in (
        lambda: module.initial_state(1),
        lambda: module.prefill(torch.zeros(1, 2, 4)),
        lambda: module.step(torch.zeros(1, 4), state),
    ):
        with pytest.raises(ValueError, match="causal"):
            ask()


@pytest.mark.parametrize("name", ["aft-simple", "linear", "aft-local", "aft-conv"])
def test_the_state_of_a_recurrent_form_does_not_grow(name):
    """Nor does a window's cache, moved now and then, hold what has left it."""
    options = {"aft-local": {"window": 5}}.get(name, {})
    module, x = built(name, 400, causal=True, **options), sample(400)

    def size(state):
        return sum(
            t.untyped_storage().nbytes() for t in torch.utils._pytree.tree_leaves(state) if torch.is_tensor(t)
        )

    _, early = stepped(module, x[:, :100], module.initial_state(2))
    _, late = stepped(module, x[:, 100:], early)
    assert size(late) <= size(early)
    assert size(module.prefill(x)) <= size(early)
