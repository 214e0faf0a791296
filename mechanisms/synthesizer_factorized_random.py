"""Factorised random Synthesizer: the logits are a parameter of low rank and do not depend on the input.

    y = softmax(R1 R2^T) V per head,    R1 and R2 [h, N, k],    then the heads are joined and projected

Paper: Tay et al. 2021, arXiv:2005.00743, section 3.2.2, with k = 8. One map for all samples of a batch. Our
choice: R1 and R2 are drawn from N(0, k^-1/2), so that the logits start with variance 1 as those of
synthesizer-random do. Value and output projections as in MHA.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from effbench.mechanisms import _parts, _rows, _synthesizer, _tiled
from effbench.mechanisms._scores import Product, Term
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def synthesizer_factorized_random(v: Tensor, left: Tensor, right: Tensor, *, causal: bool = False) -> Tensor:
    """v [b, h, n, e]; left (R1) and right (R2) [h, n, k]. The logits are left @ right.T."""
    return _rows.synthesize([Term(Product, (left, right))], v, causal=causal)


class FactorizedRandomScores(_synthesizer.Scores):
    def __init__(self, shape: Shape, *, rank: int = 8):
        super().__init__()
        if rank < 1:
            raise ValueError(f"rank {rank}: expected 1 or more")
        self.left, self.right = (
            nn.Parameter(torch.randn(shape.heads, shape.seq, rank) * rank**-0.25) for _ in range(2)
        )

    def term(self, n: int, *, factor: Tensor) -> Term:
        return Term(Product, (_synthesizer.scaled(self.left[:, :n], factor), self.right[:, :n]))

    def row(self, t: int) -> Tensor:
        return _synthesizer.exact(self.left[None, :, t : t + 1], self.right[:, : t + 1].mT)[:, :, 0]

    def matrix(self, x: Tensor, head: int) -> Tensor:
        return self.left[head, : x.shape[1]] @ self.right[head, : x.shape[1]].T


class SynthesizerFactorizedRandom(_synthesizer.Synthesizer):
    def __init__(self, shape: Shape, *, causal: bool = False, rank: int = 8):
        super().__init__(shape, FactorizedRandomScores(shape, rank=rank), causal=causal)

    def mix(self, v: Tensor) -> Tensor:
        left, right = (x[:, : v.shape[2]] for x in (self.scores.left, self.scores.right))
        return synthesizer_factorized_random(v, left, right, causal=self.causal)


def score_flops(
    shape: Shape, *, causal: bool, mode: str, groups: int, rank: int = 8, **more: _synthesizer.Pairs
) -> float:
    return _synthesizer.product_flops(shape, causal=causal, mode=mode, groups=groups, width=rank, **more)


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    rank: int = 8,
    pairs: _synthesizer.Pairs = _tiled.pairs,
    columns: int = 1,
) -> Flops:
    """``columns``: those beside the factors of backward's products, by tiles."""
    groups, n = shape.heads, shape.seq
    asked = {"causal": causal, "mode": mode, "groups": groups, "pairs": pairs}
    beside = columns * _tiled.column_flops(groups, n, pairs(n, causal=causal), mode=mode)
    return _synthesizer.flops(shape, scores=score_flops(shape, rank=rank, **asked) + beside, **asked)


MECHANISM = Mechanism(
    name="synthesizer-factorized-random",
    build=SynthesizerFactorizedRandom,
    title="Synthesizer, factorised random",
    paper="Tay et al. 2021, arXiv:2005.00743",
    reference=_synthesizer.reference,
    complexity=Complexity(time="n^2 d + h n^2 r + n d^2", memory="n d + h n r"),
    flops=flops,
    needed=partial(flops, pairs=_parts.visible_pairs, columns=0),
    fixed_length=True,
    positional=True,
)
