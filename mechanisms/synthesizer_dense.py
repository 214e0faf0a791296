"""Dense Synthesizer: each token writes its own row of attention logits, without looking at the others.

    y_t = softmax(W2 relu(W1 x_t)) V per head,    then the heads are joined and projected

Paper: Tay et al. 2021, arXiv:2005.00743, section 3.1.1. W1 is d x d, split into h heads of e = d/h; W2 maps a
head's e channels to one logit for each of N positions: d^2 + d N parameters for the scores. Value and output
projections as in MHA.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effbench import products
from effbench.mechanisms import _parts, _rows
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def synthesizer_dense(hidden: Tensor, v: Tensor, score: Tensor, *, causal: bool = False) -> Tensor:
    """hidden = relu(W1 x) and v [b, h, n, e]; score (W2) [h, n, e]. The logits are hidden @ score.T."""
    left, values = hidden.flatten(0, 1), v.flatten(0, 1)
    return _rows.softmax_rows(left, score, values, causal=causal).view_as(v)


class SynthesizerDense(nn.Module):
    def __init__(self, shape: Shape, *, causal: bool = False):
        super().__init__()
        self.causal, self.heads, self.length = causal, shape.heads, shape.seq
        self.hidden, self.value, self.out = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(3))
        e = shape.dim // shape.heads
        self.score = nn.Parameter(torch.empty(shape.heads, shape.seq, e).uniform_(-(e**-0.5), e**-0.5))

    def project(self, x: Tensor) -> tuple[Tensor, Tensor]:
        _parts.check_length(x.shape[1], self.length)
        hidden = products.linear(x, self.hidden.weight).relu()
        values = products.linear(x, self.value.weight)
        return _parts.split_heads(hidden, self.heads), _parts.split_heads(values, self.heads)

    def mix(self, hidden: Tensor, v: Tensor) -> Tensor:
        return synthesizer_dense(hidden, v, self.score[:, : v.shape[2]], causal=self.causal)

    def combine(self, y: Tensor) -> Tensor:
        return products.linear(_parts.merge_heads(y), self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.mix(*self.project(x)))


def reference(module: SynthesizerDense, x: Tensor) -> Tensor:
    """Head by head."""
    n, e = x.shape[1], x.shape[2] // module.heads
    heads = []
    for h in range(module.heads):
        mine = slice(h * e, (h + 1) * e)
        hidden = torch.clamp(x @ module.hidden.weight[mine].T, min=0)
        logits = torch.einsum("bte,se->bts", hidden, module.score[h, :n])
        if module.causal:
            logits = logits + torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1)
        weights = torch.exp(logits - logits.logsumexp(-1, keepdim=True))
        heads.append(weights @ (x @ module.value.weight[mine].T))
    return torch.cat(heads, dim=-1) @ module.out.weight.T


def flops(shape: Shape, *, causal: bool = False, mode: str = "forward") -> Flops:
    """Backward computes the softmax again: five products of n^2 d where forward has two."""
    b, n, d, h, train = shape.batch, shape.seq, shape.dim, shape.heads, mode == "train"
    pairs = _rows.row_pairs(n, causal=causal)
    return Flops(
        matmul=3 * 2 * b * n * d * d * (3 if train else 1) + b * pairs * d * (14 if train else 4),
        elementwise=b * h * pairs * (11 if train else 4),
        transcendental=b * h * pairs * (2 if train else 1),
    )


MECHANISM = Mechanism(
    name="synthesizer-dense",
    build=SynthesizerDense,
    title="Synthesizer, dense",
    paper="Tay et al. 2021, arXiv:2005.00743",
    reference=reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="n d"),
    flops=flops,
    fixed_length=True,
)
