"""The comparison before any timing knows how exactly a cell computes."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from effbench.cell import Cell
from effbench.check import check
from effbench.plugin import Mechanism


def tf32(x: torch.Tensor) -> torch.Tensor:
    """With 10 bits of mantissa, as a GPU's float32 products take their factors at precision high."""
    return ((x.view(torch.int32) + (1 << 12)) & ~((1 << 13) - 1)).view(torch.float32)


class Short(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return tf32(x) @ tf32(self.weight).T


MECHANISM = Mechanism(
    name="short",
    build=lambda shape, *, causal: Short(shape.dim, shape.dim, bias=False),
    reference=lambda module, x: x @ module.weight.T,
)


def test_products_with_a_short_mantissa_are_right_where_they_were_asked_for() -> None:
    exact = Cell(mechanism="short", seq=32, dim=8, heads=2, threads=1)
    assert "0.0001 is allowed" in check(MECHANISM, exact, seed=0).wrong
    assert check(MECHANISM, replace(exact, precision="high"), seed=0).wrong == ""
