"""What a law is tried on: modules of one mechanism in one form, at sizes that the law asks for."""

from __future__ import annotations

import unittest
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from effbench.cell import Cell
from effbench.check import unsettle
from effbench.plugin import Mechanism
from effbench.subject import build_module, make_input

SEED = 20210528
_WIDEST_FIRST = ("float64", "float32", "bfloat16", "float16")


class Broken(AssertionError):
    """A law does not hold; says what was seen.

    ``parts``: where it does not hold (parameters, dtypes), part by part, so that a part can be waived alone.
    """

    def __init__(self, seen: str = "", *, parts: Mapping[str, str] | None = None) -> None:
        self.parts = dict(parts or {})
        super().__init__(seen or "; ".join(f"{part}: {text}" for part, text in self.parts.items()))


class NotApplicable(unittest.SkipTest):
    """The law says nothing of this mechanism; pytest and unittest report the test as skipped."""


@dataclass
class Trial:
    """One mechanism, causal or not, with its options; ``where`` holds the last cell gone to, for messages."""

    mechanism: Mechanism
    causal: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    def cell(
        self,
        seq: int,
        *,
        batch: int = 2,
        width: int = 8,
        heads: int = 2,
        dtype: str = "",
        mode: str = "forward",
    ) -> Cell:
        """A question of this size; ``width`` is that of a head. In the widest dtype where none is named."""
        return Cell(
            mechanism=self.mechanism.name,
            options={**self.mechanism.options, **self.options},
            causal=self.causal,
            batch=batch,
            seq=seq,
            dim=heads * width,
            heads=heads,
            dtype=dtype or self.widest,
            mode=mode,
            threads=torch.get_num_threads(),
        )

    def accepts(self, cell: Cell) -> bool:
        """Whether the mechanism says that it takes such a cell."""
        return self.mechanism.supports is None or self.mechanism.supports(cell) is None

    def sizes(self, *seqs: int, **others: Any) -> Iterator[Cell]:
        """Cells of these lengths, or else of near squares, as far as the mechanism takes them.

        Raises:
            NotApplicable: it takes none of them.
        """
        square = {7: 9, 65: 64, 70: 64, 1031: 1024}
        taken = []
        for seq in seqs:
            cells = [self.cell(n, **others) for n in (seq, square.get(seq, seq))]
            taken += [cell for cell in cells if self.accepts(cell)][:1]
        if not taken:
            raise NotApplicable(f"it takes no length of {', '.join(map(str, seqs))}")
        yield from taken

    @property
    def widest(self) -> str:
        """The most exact dtype that the mechanism declares."""
        return next(dtype for dtype in _WIDEST_FIRST if dtype in self.mechanism.dtypes)

    def dtypes(self, *wanted: str) -> list[str]:
        """Those of the wanted dtypes that the mechanism declares.

        Raises:
            NotApplicable: it declares none of them.
        """
        found = [dtype for dtype in wanted if dtype in self.mechanism.dtypes]
        if not found:
            raise NotApplicable(f"it declares none of {', '.join(wanted)}")
        return found

    def go_to(self, cell: Cell) -> None:
        """What is tried from now on is tried at this cell: a breach says so."""
        at = f"n {cell.seq}, d {cell.dim}, h {cell.heads}, batch {cell.batch}, {cell.dtype}"
        train = ", train" if cell.mode == "train" else ""
        self.where = f"{'causal, ' if self.causal else ''}{at}{train}"

    def module(self, cell: Cell, *, seed: int = SEED) -> nn.Module:
        """A module for the cell, every parameter moved off its initial value, in eval mode."""
        self.go_to(cell)
        module = build_module(self.mechanism, cell, seed=seed)
        unsettle(module, seed)
        return module.eval()

    def sample(self, cell: Cell, repeat: int = 0) -> torch.Tensor:
        """x [b, n, d] of N(0, 1)."""
        return make_input(cell, SEED, repeat)

    def reference(self, module: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """The definition on the module's own weights.

        Raises:
            NotApplicable: the mechanism declares none.
        """
        if self.mechanism.reference is None:
            raise NotApplicable("it declares no reference")
        expected: torch.Tensor = self.mechanism.reference(module, x)
        if not torch.isfinite(expected).all():
            raise Broken("its reference is not finite, so it decides nothing")
        return expected


def at_length(cell: Cell, seq: int) -> Cell:
    """The same question for another length."""
    return replace(cell, seq=seq)


def direction(y: torch.Tensor) -> torch.Tensor:
    """A gradient to send back in which every output has another weight."""
    return torch.linspace(-1, 1, y.numel(), dtype=torch.float64).sin().view_as(y).to(y)
