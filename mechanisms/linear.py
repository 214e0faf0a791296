"""Linear attention with the feature map phi(x) = elu(x) + 1.

    y_t = phi(q_t) sum_s phi(k_s)^T v_s / (phi(q_t) . sum_s phi(k_s))        causal: s <= t

No epsilon in the denominator; phi(x) is exp(x) for x < 0, since elu(x) + 1 cancels there.

Paper: Katharopoulos et al. 2020, arXiv:2006.16236, equations 4-7; causal form: equations 9-12, by chunks:
a masked product within a chunk, the sum over earlier chunks as an e x e state. Projections as in MHA.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _decode, _linear, _linear_pooled, _parts
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """q k v [b, h, n, e]."""
    y, bad = _parts.apply(_linear.Causal if causal else _linear_pooled.BothWays, q, k, v)
    wide = _parts.accumulator(q.dtype)

    def exact(batch: Tensor, head: Tensor, t: Tensor) -> Tensor:
        logits = log_features(q[batch, head, t].to(wide))[:, None] + log_features(k[batch, head].to(wide))
        return _parts.average(logits.logsumexp(-1), v[batch, head], t if causal else None)

    return _parts.rescue(y, bad, exact, q.shape[2] * q.shape[3])


def log_features(x: Tensor) -> Tensor:
    return torch.where(x > 0, x.clamp(min=0).log1p(), x.clamp(max=0))


class LinearAttention(_decode.Stepwise, _parts.MultiHead):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linear_attention(q, k, v, causal=self.causal)

    def remember(self, _: Tensor, k: Tensor, v: Tensor) -> _decode.WeightedSum:
        """The e x (e + 1) sums of phi(k)^T [v, 1], a shift for each row: no feature underflows."""
        wide = _parts.accumulator(k.dtype)
        logs = log_features(k.to(wide))
        shift = _decode.largest(logs, 2)
        weights = (logs - shift.unsqueeze(2)).exp_()
        sums = products.matmul(weights.mT, v.to(wide)), weights.sum(2).unsqueeze(-1)
        return _decode.WeightedSum(shift.unsqueeze(-1), *sums)

    def follow(
        self, state: _decode.WeightedSum, q: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, _decode.WeightedSum]:
        wide = state.shift.dtype
        state = state.add(log_features(k.to(wide)).mT, v.to(wide))
        weights = (log_features(q.to(wide)) + state.shift.mT).softmax(-1)  # phi(q) exp(shift), up to a factor
        mean = products.matmul(weights, state.numerator) / products.matmul(weights, state.denominator)
        return mean.to(q.dtype), state


def reference(module: LinearAttention, x: Tensor) -> Tensor:
    """All pairs, head by head, in log space."""
    e = x.shape[2] // module.heads
    heads = []
    for h in range(module.heads):
        mine = slice(h * e, (h + 1) * e)
        q, k, v = (x @ layer.weight[mine].T for layer in (module.query, module.key, module.value))
        # log(elu(x) + 1), without the cancellation
        left, right = (torch.where(y > 0, torch.log1p(y.relu()), -torch.relu(-y)) for y in (q, k))
        logits = torch.full((x.shape[0], x.shape[1], x.shape[1]), -torch.inf, dtype=x.dtype)
        for c in range(e):
            logits = torch.logaddexp(logits, left[:, :, None, c] + right[:, None, :, c])
        if module.causal:
            logits = logits + torch.full(logits.shape[1:], -torch.inf, dtype=x.dtype).triu(1)
        heads.append(torch.exp(logits - logits.logsumexp(-1, keepdim=True)) @ v)
    return torch.cat(heads, dim=-1) @ module.out.weight.T


def flops(
    shape: Shape, *, causal: bool = False, mode: str = "forward", pairs: Callable[[int], int] = _linear.pairs
) -> Flops:
    b, n, d, train = shape.batch, shape.seq, shape.dim, mode == "train"
    e = d // shape.heads
    project = 4 * 2 * b * n * d * d
    state, wide = n * d * (e + 1), shape.heads * (e + 1)  # multiply-adds with a state; columns of [v, 1]
    values = n * d * e  # and with a state's numerators alone
    if causal:
        held = pairs(n)
        mix = 2 * state + held * (d + wide)
        back = 4 * state + values + held * (4 * d + wide)
    else:
        mix, back = state + values, 2 * (state + values)
    return Flops(
        matmul=project * (3 if train else 1) + 2 * b * (mix + (back if train else 0)),
        elementwise=b * n * d * 11 * (3 if train else 1),
        transcendental=2 * b * n * d * (2 if train else 1),
    )


def step_flops(shape: Shape) -> Flops:
    """One more token, whatever came before it: its outer product joins the state, which its query reads."""
    b, d, e = shape.batch, shape.dim, shape.dim // shape.heads
    return Flops(
        matmul=4 * 2 * b * d * d + 2 * b * d * (e + 1),
        elementwise=b * d * (3 * e + 19),
        transcendental=5 * b * d,
    )


MECHANISM = Mechanism(
    name="linear",
    build=LinearAttention,
    title="Linear attention",
    paper="Katharopoulos et al. 2020, arXiv:2006.16236",
    reference=reference,
    complexity=Complexity(time="n d^2", memory="n d"),
    flops=flops,
    needed=partial(flops, pairs=_linear.visible_pairs),
    step_flops=step_flops,
)
