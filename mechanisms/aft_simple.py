"""AFT-simple: AFT without a position bias.

    y_t = sigmoid(q_t) * sum_s exp(k_s) v_s / sum_s exp(k_s)        causal: s <= t

Not causal, all tokens share one average per channel; causal, it is a running one.

Paper: Zhai et al. 2021, arXiv:2105.14103, equation 5. Wq, Wk, Wv and no output projection, as in AFT-full.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from effbench.mechanisms import _decode, _gate, _parts, _pooling, _running
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def aft_simple(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, gate: _gate.Gate = torch.sigmoid
) -> Tensor:
    """q k v [b, n, d]."""
    return _running.running_average(q, k, v, gate) if causal else _pooling.pooled(q, k, v, gate)


class AFTSimple(_decode.Stepwise):
    def __init__(self, shape: Shape, *, causal: bool = False, gate: str = "sigmoid"):
        super().__init__()
        self.causal, self.gate = causal, _gate.named(gate)
        self.query, self.key, self.value = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(3))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return aft_simple(q, k, v, causal=self.causal, gate=self.gate)

    def remember(self, _: Tensor, k: Tensor, v: Tensor) -> _decode.WeightedSum:
        wide = _parts.accumulator(k.dtype)
        return _decode.WeightedSum.over(k.transpose(0, 1).to(wide), v.transpose(0, 1).to(wide))

    def follow(
        self, state: _decode.WeightedSum, q: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, _decode.WeightedSum]:
        wide = state.shift.dtype
        state = state.add(k[:, 0].to(wide), v[:, 0].to(wide))
        return (self.gate(q.to(wide)) * state.mean().unsqueeze(1)).to(q.dtype), state


def reference(module: AFTSimple, x: Tensor) -> Tensor:
    """The printed formula in log space, channel by channel."""
    n = x.shape[1]
    q, k, v = x @ module.query.weight.T, x @ module.key.weight.T, x @ module.value.weight.T
    unseen = torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1) if module.causal else x.new_zeros(1, 1)
    means = []
    for channel in range(x.shape[2]):
        logits = k[:, None, :, channel] + unseen  # [b, t or 1, s]
        weights = torch.exp(logits - logits.logsumexp(-1, keepdim=True))
        means.append((weights @ v[:, :, channel, None]).squeeze(-1))
    return module.gate(q) * torch.stack(means, dim=-1)


def flops(shape: Shape, *, causal: bool = False, mode: str = "forward", gate: str = "sigmoid") -> Flops:
    b, n, d, train = shape.batch, shape.seq, shape.dim, mode == "train"
    project = 3 * 2 * b * n * d * d
    return Flops(
        matmul=project * (3 if train else 1),
        elementwise=b * n * d * (9 if causal else 6) * (3 if train else 1),
        transcendental=(1 + (gate in _gate.TRANSCENDENTAL)) * b * n * d * (2 if train else 1),
    )


MECHANISM = Mechanism(
    name="aft-simple",
    build=AFTSimple,
    title="AFT-simple",
    paper="Zhai et al. 2021, arXiv:2105.14103",
    reference=reference,
    complexity=Complexity(time="n d^2", memory="n d"),
    flops=flops,
)
