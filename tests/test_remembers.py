"""A pass that remembers what it gave before is found out by other values in its input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from effbench.cell import Cell
from effbench.plugin import Mechanism
from effbench.subject import build_subject, remembers


class Working(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(1)


class Remembering(nn.Module):
    """Knows its inputs by where they are, as a cache on the tensor object does."""

    def __init__(self) -> None:
        super().__init__()
        self.known: dict[int, torch.Tensor] = {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.known.setdefault(x.data_ptr(), x.cumsum(1))


class InPlace(nn.Module):
    """Always writes to one buffer, and works."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not hasattr(self, "buffer"):
            self.buffer = torch.empty_like(x)
        return torch.cumsum(x, 1, out=self.buffer)


class Zero(nn.Module):
    """Starts at nothing, whatever comes in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.0


@pytest.mark.parametrize(
    ("build", "found"), [(Working, False), (Remembering, True), (InPlace, False), (Zero, False)]
)
def test_who_remembers(build: Callable[[], nn.Module], found: bool) -> None:
    mechanism = Mechanism(name="any", build=lambda shape, *, causal: build())
    subject = build_subject(mechanism, Cell(mechanism="any", seq=8, dim=4, heads=1, threads=1), seed=0)
    for i in range(8):
        subject.call(i)
    assert remembers(subject) is found
