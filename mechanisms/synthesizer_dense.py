"""Dense Synthesizer: each token writes its own row of attention logits, without looking at the others.

    y_t = softmax(W2 relu(W1 x_t)) V per head,    then the heads are joined and projected

Paper: Tay et al. 2021, arXiv:2005.00743, section 3.1.1. W1 is d x d, split into h heads of e = d/h; W2 maps a
head's e channels to one logit for each of N positions: d^2 + d N parameters for the scores. Value and output
projections as in MHA.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from effbench import products
from effbench.mechanisms import _parts, _rows, _synthesizer, _tiled
from effbench.mechanisms._scores import Product, Term
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def synthesizer_dense(hidden: Tensor, v: Tensor, score: Tensor, *, causal: bool = False) -> Tensor:
    """hidden = relu(W1 x) and v [b, h, n, e]; score (W2) [h, n, e]. The logits are hidden @ score.T."""
    return _rows.synthesize([Term(Product, (hidden.flatten(0, 1), score))], v, causal=causal)


class DenseScores(_synthesizer.Scores):
    made = 1

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, e = shape.heads, shape.dim // shape.heads
        self.hidden = nn.Linear(shape.dim, shape.dim, bias=False)
        self.score = nn.Parameter(torch.empty(shape.heads, shape.seq, e).uniform_(-(e**-0.5), e**-0.5))

    def tensors(self, x: Tensor) -> tuple[Tensor]:
        return (_parts.split_heads(products.linear(x, self.hidden.weight).relu(), self.heads),)

    def term(self, n: int, hidden: Tensor, *, factor: Tensor) -> Term:
        return Term(Product, (_synthesizer.scaled(hidden.flatten(0, 1), factor), self.score[:, :n]))

    def row(self, t: int, hidden: Tensor) -> Tensor:
        return _synthesizer.exact(hidden, self.score[:, : t + 1].mT)[:, :, 0]

    def matrix(self, x: Tensor, head: int) -> Tensor:
        e = x.shape[2] // self.heads
        hidden = torch.clamp(x @ self.hidden.weight[head * e : (head + 1) * e].T, min=0)
        return torch.einsum("bte,se->bts", hidden, self.score[head, : x.shape[1]])


class SynthesizerDense(_synthesizer.Synthesizer):
    def __init__(self, shape: Shape, *, causal: bool = False):
        super().__init__(shape, DenseScores(shape), causal=causal)

    def mix(self, v: Tensor, hidden: Tensor) -> Tensor:
        return synthesizer_dense(hidden, v, self.scores.score[:, : v.shape[2]], causal=self.causal)


def score_flops(shape: Shape, *, causal: bool, mode: str, groups: int, **more: _synthesizer.Pairs) -> float:
    width = shape.dim // shape.heads
    products_of_rows = _synthesizer.product_flops(
        shape, causal=causal, mode=mode, groups=groups, width=width, **more
    )
    return _synthesizer.projection_flops(shape, mode=mode) + products_of_rows


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    pairs: _synthesizer.Pairs = _tiled.pairs,
    columns: int = 1,
) -> Flops:
    """Backward computes the softmax again: five products of n^2 d where forward has two.

    ``columns``: those beside the factors of backward's products, by tiles.
    """
    groups, n = shape.batch * shape.heads, shape.seq
    asked = {"causal": causal, "mode": mode, "groups": groups, "pairs": pairs}
    beside = columns * _tiled.column_flops(groups, n, pairs(n, causal=causal), mode=mode)
    return _synthesizer.flops(shape, scores=score_flops(shape, **asked) + beside, **asked)


MECHANISM = Mechanism(
    name="synthesizer-dense",
    build=SynthesizerDense,
    title="Synthesizer, dense",
    paper="Tay et al. 2021, arXiv:2005.00743",
    reference=_synthesizer.reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="n d"),
    flops=flops,
    needed=partial(flops, pairs=_parts.visible_pairs, columns=0),
    fixed_length=True,
    positional=True,
)
