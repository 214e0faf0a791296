"""Factorised dense Synthesizer: each token writes two short vectors, whose products are its row of logits.

    y_t = softmax(B_t) V per head,    B_tj = A_t[j // b] C_t[j % b],    A_t = F_A(x_t), C_t = F_B(x_t)

Paper: Tay et al. 2021, arXiv:2005.00743, section 3.2.1: A has a numbers and C has b, a b = N, one is repeated
and the other tiled, so that every product of an A and a C occurs. Our choice where the paper leaves it open:
F_A and F_B share relu(W1 x), W1 d x d, split into heads as in synthesizer-dense, and each maps a head's
e = d/h channels linearly to its numbers: d^2 + d (a + b) parameters for the scores. N need not be a product:
a is ceil(sqrt N) where not given, b = ceil(N / a), and the first N (or n) products count.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from effbench import products
from effbench.mechanisms import _parts, _rows, _synthesizer, _whole
from effbench.mechanisms._scores import Outer, Term
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def synthesizer_factorized_dense(
    hidden: Tensor, v: Tensor, first: Tensor, second: Tensor, *, causal: bool = False
) -> Tensor:
    """hidden = relu(W1 x) and v [b, h, n, e]; first (F_A) [h, a, e], second (F_B) [h, c, e], a c >= n.

    Logit j of a row is A[j // c] C[j % c] with A = hidden @ first.T and C = hidden @ second.T.
    """
    if first.shape[1] * second.shape[1] < v.shape[2]:
        raise ValueError(f"{first.shape[1]} x {second.shape[1]} products are fewer than {v.shape[2]} tokens")
    return _rows.synthesize([Term(Outer, (hidden.flatten(0, 1), first, second))], v, causal=causal)


def factor_sizes(n: int, factor: int | None = None) -> tuple[int, int]:
    """(a, b) for n logits: the a that is asked for, unless fewer will do, and the smallest b that fits."""
    if factor is not None and factor < 1:
        raise ValueError(f"factor {factor}: expected 1 or more")
    second = -(-n // (factor or math.isqrt(n - 1) + 1))
    return -(-n // second), second


class FactorizedDenseScores(_synthesizer.Scores):
    made = 1

    def __init__(self, shape: Shape, *, factor: int | None = None):
        super().__init__()
        self.heads, e = shape.heads, shape.dim // shape.heads
        self.hidden = nn.Linear(shape.dim, shape.dim, bias=False)
        self.first, self.second = (
            nn.Parameter(torch.empty(shape.heads, size, e).uniform_(-(e**-0.5), e**-0.5))
            for size in factor_sizes(shape.seq, factor)
        )

    def tensors(self, x: Tensor) -> tuple[Tensor]:
        return (_parts.split_heads(products.linear(x, self.hidden.weight).relu(), self.heads),)

    def term(self, n: int, hidden: Tensor, *, factor: Tensor) -> Term:
        first = _synthesizer.scaled(self.first, factor)
        return Term(Outer, (hidden.flatten(0, 1), first, self.second))

    def row(self, t: int, hidden: Tensor) -> Tensor:
        outer, inner = (_synthesizer.exact(hidden, x.mT) for x in (self.first, self.second))  # [b, h, 1, a]
        return (outer.mT * inner).flatten(2)[:, :, : t + 1]

    def matrix(self, x: Tensor, head: int) -> Tensor:
        e = x.shape[2] // self.heads
        hidden = torch.clamp(x @ self.hidden.weight[head * e : (head + 1) * e].T, min=0)
        outer, inner = hidden @ self.first[head].T, hidden @ self.second[head].T
        each = [outer[..., j // inner.shape[-1]] * inner[..., j % inner.shape[-1]] for j in range(x.shape[1])]
        return torch.stack(each, -1)


class SynthesizerFactorizedDense(_synthesizer.Synthesizer):
    def __init__(self, shape: Shape, *, causal: bool = False, factor: int | None = None):
        super().__init__(shape, FactorizedDenseScores(shape, factor=factor), causal=causal)

    def mix(self, v: Tensor, hidden: Tensor) -> Tensor:
        first, second = self.scores.first, self.scores.second
        return synthesizer_factorized_dense(hidden, v, first, second, causal=self.causal)


def score_flops(
    shape: Shape,
    *,
    causal: bool,
    mode: str,
    groups: int,
    factor: int | None = None,
    pairs: _synthesizer.Pairs = _rows.row_pairs,
) -> float:
    """Factors as products; rows are none, and slopes only tile by tile."""
    e, times = shape.dim // shape.heads, _whole.score_products(groups, shape.seq, mode=mode)
    factors = 2 * times * groups * shape.seq * e * sum(factor_sizes(shape.seq, factor))
    tiled = mode == "train" and not _whole.fits(groups, shape.seq)
    slopes = groups * pairs(shape.seq, causal=causal) * (4 if tiled else 0)
    return _synthesizer.projection_flops(shape, mode=mode) + factors + slopes


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    factor: int | None = None,
    pairs: _synthesizer.Pairs = _rows.row_pairs,
) -> Flops:
    asked = {"causal": causal, "mode": mode, "groups": shape.batch * shape.heads, "pairs": pairs}
    return _synthesizer.flops(shape, scores=score_flops(shape, factor=factor, **asked), **asked)


MECHANISM = Mechanism(
    name="synthesizer-factorized-dense",
    build=SynthesizerFactorizedDense,
    title="Synthesizer, factorised dense",
    paper="Tay et al. 2021, arXiv:2005.00743",
    reference=_synthesizer.reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="n d"),
    flops=flops,
    needed=partial(flops, pairs=_parts.visible_pairs),
    fixed_length=True,
    positional=True,
)
