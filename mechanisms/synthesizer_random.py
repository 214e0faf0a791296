"""Random Synthesizer: the attention logits are a parameter and do not depend on the input at all.

    y = softmax(R) V per head,    R [h, N, N],    then the heads are joined and projected

Paper: Tay et al. 2021, arXiv:2005.00743, section 3.1.2. R is drawn from N(0, 1); ``trained=False`` is the
paper's "fixed random". Value and output projections as in MHA.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effbench import products
from effbench.mechanisms import _parts, _rows
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def synthesizer_random(v: Tensor, logits: Tensor, *, causal: bool = False) -> Tensor:
    """v [b, h, n, e]; logits [h, n, n]. A row of the softmax is made once for the whole batch."""
    b, h, n, e = v.shape
    values = v.permute(1, 2, 0, 3).reshape(h, n, b * e)
    y = _rows.softmax_rows(logits, None, values, causal=causal)
    return y.view(h, n, b, e).permute(2, 0, 1, 3)


class SynthesizerRandom(nn.Module):
    def __init__(self, shape: Shape, *, causal: bool = False, trained: bool = True):
        super().__init__()
        self.causal, self.heads, self.length = causal, shape.heads, shape.seq
        self.value, self.out = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(2))
        logits = torch.randn(shape.heads, shape.seq, shape.seq)
        if trained:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)

    def project(self, x: Tensor) -> tuple[Tensor]:
        _parts.check_length(x.shape[1], self.length)
        return (_parts.split_heads(products.linear(x, self.value.weight), self.heads),)

    def mix(self, v: Tensor) -> Tensor:
        n = v.shape[2]
        return synthesizer_random(v, self.logits[:, :n, :n], causal=self.causal)

    def combine(self, y: Tensor) -> Tensor:
        return products.linear(_parts.merge_heads(y), self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.combine(self.mix(*self.project(x)))


def reference(module: SynthesizerRandom, x: Tensor) -> Tensor:
    """Head by head."""
    n, e = x.shape[1], x.shape[2] // module.heads
    heads = []
    for h in range(module.heads):
        logits = module.logits[h, :n, :n]
        if module.causal:
            logits = logits + torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1)
        weights = torch.exp(logits - logits.logsumexp(-1, keepdim=True))
        heads.append(weights @ (x @ module.value.weight[h * e : (h + 1) * e].T))
    return torch.cat(heads, dim=-1) @ module.out.weight.T


def flops(shape: Shape, *, causal: bool = False, mode: str = "forward", trained: bool = True) -> Flops:
    b, n, d, h, train = shape.batch, shape.seq, shape.dim, shape.heads, mode == "train"
    pairs = _rows.row_pairs(n, causal=causal)
    return Flops(
        matmul=2 * 2 * b * n * d * d * (3 if train else 1) + b * pairs * d * (6 if train else 2),
        elementwise=h * pairs * (11 if train else 4),
        transcendental=h * pairs * (2 if train else 1),
    )


MECHANISM = Mechanism(
    name="synthesizer-random",
    build=SynthesizerRandom,
    title="Synthesizer, random",
    paper="Tay et al. 2021, arXiv:2005.00743",
    reference=reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="h n^2 + n d"),
    flops=flops,
    fixed_length=True,
)
