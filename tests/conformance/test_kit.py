"""The laws accept what is sound and reject what is not, and the built-in mechanisms keep them."""

from __future__ import annotations

import unittest
from dataclasses import replace

import pytest
import torch
from torch import nn

from effbench.conformance import LAWS, STRICT, Broken, checks_for
from effbench.errors import BadInput

from ..mechanisms.conftest import CASES, MECHANISMS, one_thread  # noqa: F401 - a fixture
from .toys import SABOTEURS, SOUND, ExponentiatesUnshifted, ForgetsAParameter, HalvesAGradient, Toy, declared

GRADIENT = "every_parameter_gets_a_gradient"


def check(law, mechanism=SOUND, **given):
    return next(c for c in checks_for(mechanism, strict=True, **given) if c.law == law)


def test_a_sound_mechanism_passes_every_law():
    found = {str(one): one.find() for one in checks_for(SOUND, strict=True)}
    assert {law: f for law, f in found.items() if f.outcome != "passed"} == {}
    assert list(found) == [*LAWS, *STRICT]


@pytest.mark.parametrize(("law", "saboteur"), SABOTEURS, ids=lambda x: x if isinstance(x, str) else x.name)
def test_the_law_rejects_its_saboteur(law, saboteur):
    with pytest.raises(Broken, match=law):
        check(law, saboteur)()


def test_every_law_has_a_saboteur():
    assert {law for law, _ in SABOTEURS} == {*LAWS, *STRICT}


def test_laws_have_a_sentence_each():
    assert all(one.meaning.endswith(".") for one in checks_for(SOUND, strict=True))


def test_laws_that_do_not_apply_are_skipped_with_the_reason():
    bare = replace(SOUND, reference=None, complexity=None, flops=None, causal=(False,))
    reasons = {
        "equals_reference": "it declares no reference",
        "future_is_invisible": "it has no causal form",
        "step_equals_forward": "it has no causal form",
        "memory_grows_as_declared": "it declares no complexity",
        "counted_flops_equal_the_closed_form": "it declares no closed form",
    }
    for law, reason in reasons.items():
        found = check(law, bare).find()
        assert (found.outcome, found.remark) == ("skipped", reason)
        with pytest.raises(unittest.SkipTest, match=reason):
            check(law, bare)()


def test_without_a_reference_the_module_is_not_even_built():
    def build(shape, *, causal):
        raise AssertionError("nobody asked for a module")

    bare = replace(SOUND, build=build, reference=None)
    for law in LAWS:
        if "reference" in law:
            assert check(law, bare).find().remark == "it declares no reference"


def test_a_waived_law_is_skipped_with_the_reason():
    waived = check("passes_gradcheck", declared(HalvesAGradient), waive={"passes_gradcheck": "by design"})
    assert waived.find().outcome == "waived"
    with pytest.raises(unittest.SkipTest, match="by design"):
        waived()


def test_a_waived_law_that_holds_is_an_error():
    with pytest.raises(Broken, match="waived, but it holds"):
        check(GRADIENT, waive={GRADIENT: "once it was so"})()
    with pytest.raises(Broken, match=r"waived for key\.weight, but it holds"):
        check(
            GRADIENT,
            declared(ForgetsAParameter),
            waive={f"{GRADIENT}:{name}": "zero" for name in ("position", "key.weight")},
        )()


def test_a_part_is_waived_alone():
    forgets = declared(ForgetsAParameter)
    assert check(GRADIENT, forgets, waive={f"{GRADIENT}:position": "fixed"}).find().outcome == "waived"
    with pytest.raises(Broken, match="position: it has no gradient"):
        check(GRADIENT, forgets, waive={f"{GRADIENT}:key.weight": "another"})()


def test_what_a_mechanism_raises_is_a_breach_that_says_where():
    class Raises(nn.Module):
        def forward(self, x):
            raise RuntimeError("no such luck")

    found = check("input_is_untouched", Raises).find()
    assert found.outcome == "FAILED"
    assert found.remark == "raised RuntimeError: no such luck (n 7, d 16, h 2, batch 2, float64)"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"waive": {"nosuch": "why"}}, "no law 'nosuch'; there are shape_dtype"),
        ({"waive": {GRADIENT: " "}}, "needs a reason"),
        ({"options": {"nosuch": 1}}, "no option 'nosuch'"),
    ],
)
def test_bad_input_is_refused(given, message):
    with pytest.raises(BadInput, match=message):
        checks_for(SOUND, **given)


def test_a_declared_growth_that_cannot_be_read_is_a_breach():
    odd = replace(SOUND, complexity=replace(SOUND.complexity, memory="n^2 * d"))
    assert "is no product of" in check("memory_grows_as_declared", odd).find().remark


def test_a_fault_in_one_dtype_names_it():
    found = check("finite_for_large_inputs", declared(ExponentiatesUnshifted)).find()
    assert "float32: output is not finite" in found.remark


def test_what_is_raised_in_one_dtype_names_it():
    class RaisesInSingle(Toy):
        def forward(self, x):
            if x.dtype == torch.float32:
                raise RuntimeError("not implemented")
            return super().forward(x)

    for law in ("equals_reference_in_every_dtype", "finite_for_large_inputs", "memory_grows_as_declared"):
        remark = check(law, declared(RaisesInSingle)).find().remark
        assert remark.startswith("raised RuntimeError: not implemented (n ")
        assert "float32" in remark


#: Parameters whose gradient is 0 by the formula: a kernel of one tap has no shape, a window of 0 no bias.
IDLE = {
    ("aft-conv", 1): ["weight", "gamma"],
    ("aft-local", 0): ["position", "position_key"],
}


def _waivers(name, options):
    idle = IDLE.get((name, options.get("kernel", options.get("window"))), [])
    laws = (GRADIENT, "an_optimiser_step_trains_every_parameter")
    return {f"{law}:{parameter}": "0 by the formula" for law in laws for parameter in idle}


#: Asked at the defaults only. Cost does not hang on values; and with every option tests/mechanisms holds each
#: dtype against float64, and float64 against the reference at the lengths at which this law asks.
ONCE = (
    "memory_grows_as_declared",
    "counted_flops_equal_the_closed_form",
    "equals_reference_in_every_dtype",
)


@pytest.mark.parametrize(
    ("name", "options"), {(c.values[0], str(c.values[1])): c.values[:2] for c in CASES}.values()
)
def test_built_in_mechanisms_keep_the_laws(name, options):
    waive = _waivers(name, options)
    asked = checks_for(MECHANISMS[name], options=options, waive=waive, strict=True)
    found = {str(one): one.find() for one in asked if not (options and str(one) in ONCE)}
    assert {law: f.remark for law, f in found.items() if f.outcome == "FAILED"} == {}


@pytest.fixture(autouse=True)
def _torch_products():
    from effbench import products

    products.use("torch")
    yield
    products.use("auto")
    assert torch.get_default_dtype() == torch.float32
