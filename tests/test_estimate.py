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
        (mha.MECHANISM, "decode", 1.8, 2),
        (mha.MECHANISM, "generate", 3.5, 4),
        (linear.MECHANISM, "decode", 1, 1),
        (linear.MECHANISM, "generate", 2, 2),
    ],
    ids=lambda value: value.name if isinstance(value, Mechanism) else str(value),
)
def test_twice_the_context_takes_what_its_steps_take(
    mechanism: Mechanism, mode: str, least: float, most: float
) -> None:
    short = make_cell(mechanism.name, mode=mode, causal=True, seq=4096, dim=64)
    long = replace(short, seq=8192)
    estimate = Estimate(Budget(memory_limit=2**30), {c.id: formula(mechanism, c) for c in (short, long)})
    estimate.learn(short, measured(short, [0.2] * 5))
    grown = (estimate.from_line(long) or 0.0) / 0.2
    assert least == pytest.approx(grown) or least < grown < most


def test_what_has_no_closed_form_grows_with_the_square_of_its_length() -> None:
    short = make_cell("toy", seq=1024)
    estimate = Estimate(Budget(memory_limit=2**30), {})
    assert estimate.seconds(short) is None
    estimate.learn(short, measured(short, [0.2] * 5))
    assert estimate.from_line(replace(short, seq=2048)) == pytest.approx(0.8)
    assert estimate.from_line(replace(short, seq=512)) is None
