"""Multi-head softmax attention, written out as the textbook has it: the scores [b, h, n, n] are materialised.

    y = softmax(q k^T / sqrt(e)) v per head,    then the heads are joined and projected

Paper: Vaswani et al. 2017, arXiv:1706.03762, equation 1, section 3.2.2. Projections q, k, v, out; no biases.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _decode, _parts
from effbench.plugin import Complexity, Flops, Mechanism, Shape


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """q k v [b, h, n, e]."""
    scores = products.matmul(q, k.mT) / math.sqrt(q.shape[-1])  # [b, h, n, n]
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
        scores = scores.masked_fill(future, -torch.inf)
    return products.matmul(scores.softmax(-1), v)


class MultiHeadAttention(_decode.Stepwise, _parts.MultiHead):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return softmax_attention(q, k, v, causal=self.causal)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """One query [b, h, 1, e], which sees all keys."""
        return softmax_attention(q, k, v)

    def remember(self, _: Tensor, k: Tensor, v: Tensor) -> _decode.Rows:
        return _decode.Rows.hold(k, v, dim=2)

    def follow(self, state: _decode.Rows, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, _decode.Rows]:
        state = state.append(k, v)
        return self.attend(q, *state.held()), state


def reference(module: MultiHeadAttention, x: Tensor) -> Tensor:
    """Head by head."""
    n, e = x.shape[1], x.shape[2] // module.heads
    heads = []
    for h in range(module.heads):
        mine = slice(h * e, (h + 1) * e)
        q, k, v = (x @ layer.weight[mine].T for layer in (module.query, module.key, module.value))
        logits = torch.einsum("bte,bse->bts", q, k) * e**-0.5
        if module.causal:
            logits = logits + torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1)
        heads.append(torch.exp(logits - logits.logsumexp(-1, keepdim=True)) @ v)
    return torch.cat(heads, dim=-1) @ module.out.weight.T


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    pairs: Callable[..., int] = _parts.all_pairs,
) -> Flops:
    """The written-out form computes the future too, and masks it."""
    b, n, d, h = shape.batch, shape.seq, shape.dim, shape.heads
    times, held = 3 if mode == "train" else 1, pairs(n, causal=causal)
    scores = b * h * held
    return Flops(
        matmul=times * (4 * 2 * b * n * d * d + 4 * b * held * d),
        elementwise=(5 + 4 * (mode == "train")) * scores,
        transcendental=scores,
    )


def step_flops(shape: Shape, *, elementwise: int = 5) -> Flops:
    """One more token, which sees itself and the ``shape.seq`` before it; ``elementwise`` of a score."""
    b, d, held = shape.batch, shape.dim, shape.seq + 1
    return Flops(
        matmul=4 * 2 * b * d * d + 4 * b * held * d,
        elementwise=elementwise * b * shape.heads * held,
        transcendental=b * shape.heads * held,
    )


MECHANISM = Mechanism(
    name="mha",
    build=MultiHeadAttention,
    title="MHA, written out",
    paper="Vaswani et al. 2017, arXiv:1706.03762",
    reference=reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="h n^2 + n d"),
    flops=flops,
    needed=partial(flops, pairs=_parts.visible_pairs),
    step_flops=step_flops,
)
