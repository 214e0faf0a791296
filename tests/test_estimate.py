"""How long cells will take, from what has been measured: by their closed-form work, also token by token."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effbench.cell import Budget
from effbench.declaration import formula
from effbench.estimate import Estimate
from effbench.mechanisms import linear, mha, mha_recompute
from effbench.plugin import Mechanism
from tests.synthetic import make_cell, measured


@pytest.mark.parametrize(
    ("mechanism", "mode", "least", "most"),
    [
        (mha_recompute.MECHANISM, "decode", 3.5, 4),
        (mha_recompute.MECHANISM, "generate", 7, 8),
        (mha.MECHANISM, "decode", 1.5, 2),
        (mha.MECHANISM, "generate", 2.5, 4),
        (linear.MECHANISM, "decode", 1, 1),
        (linear.MECHANISM, "generate", 2, 2),
    ],
    ids=lambda value: value.name if isinstance(value, Mechanism) else str(value),
)
def test_twice_the_context_takes_what_its_steps_take(
    mechanism: Mechanism, mode: str, least: float, most: float
) -> None:
    short = make_cell(mechanism.name, mode=mode, causal=True, seq=32768, dim=256)
    long = replace(short, seq=65536)
    estimate = Estimate(Budget(memory_limit=2**30), {c.id: formula(mechanism, c) for c in (short, long)})
    estimate.learn(short, measured(short, [0.2] * 5))
    grown = (estimate.from_line(long) or 0.0) / 0.2
    assert least == pytest.approx(grown) or least < grown < most


def test_steps_that_cost_their_calls_say_little_of_large_passes() -> None:
    """A step of 0.3 ms does a hundredth of what the processor could do meanwhile."""
    step = make_cell("mha", mode="decode", causal=True, seq=1024, dim=256)
    whole = replace(step, mechanism="mha-recompute", seq=65536)
    mechanisms = {"mha": mha.MECHANISM, "mha-recompute": mha_recompute.MECHANISM}
    formulas = {c.id: formula(mechanisms[c.mechanism], c) for c in (step, whole)}
    estimate = Estimate(Budget(memory_limit=2**30), formulas)
    estimate.learn(step, measured(step, [3e-4] * 5))
    work = sum((formulas[whole.id] or {}).values())
    assert 1e10 < work / (estimate.seconds(whole) or 0.0) < 1e11  # FLOP/s of a processor, not of a step


def test_what_has_no_closed_form_grows_with_the_square_of_its_length() -> None:
    short = make_cell("toy", seq=1024)
    estimate = Estimate(Budget(memory_limit=2**30), {})
    assert estimate.seconds(short) is None
    estimate.learn(short, measured(short, [0.2] * 5))
    assert estimate.from_line(replace(short, seq=2048)) == pytest.approx(0.8)
    assert estimate.from_line(replace(short, seq=512)) is None


def test_no_pass_is_expected_to_take_longer_than_it_may() -> None:
    short = make_cell("toy", seq=1024)
    estimate = Estimate(Budget(memory_limit=2**30, cell_timeout=60), {})
    estimate.learn(short, measured(short, [10.0]))
    long, longer = replace(short, seq=4096), replace(short, seq=65536)
    assert estimate.seconds(longer) == pytest.approx(10.0 * 64**2)
    assert 60 < estimate.visit(long) == estimate.visit(longer) < 180
