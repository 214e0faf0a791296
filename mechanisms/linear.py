"""Linear attention with the feature map phi(x) = elu(x) + 1.

    y_t = phi(q_t) sum_s phi(k_s)^T v_s / (phi(q_t) . sum_s phi(k_s))        causal: s <= t

No epsilon in the denominator; phi(x) is exp(x) for x < 0, since elu(x) + 1 cancels there.

Paper: Katharopoulos et al. 2020, arXiv:2006.16236, equations 4-7; causal form: equations 9-12, by chunks:
a masked product within a chunk, the sum over earlier chunks as an e x e state. Projections as in MHA.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _decode, _parts
from effbench.plugin import Complexity, Flops, Mechanism, Shape

CHUNK = 64  # tokens whose pairs are computed one by one


@_parts.eager
def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """q k v [b, h, n, e]."""
    b, h, n, e = q.shape
    start = q.new_zeros(b, h, e, v.shape[-1] + 1, dtype=_parts.accumulator(q.dtype))
    tile = scan_tile(n, b * h * e)
    if causal:
        y, bad, _ = _parts.scan(_causal_step, start, (q, k, v), tile=tile)
    else:
        _, _, sums = _parts.scan(_gather, start, (k, v), tile=tile)
        y, bad, _ = _parts.scan(_read, sums, (q,), tile=tile)

    def exact(batch: Tensor, head: Tensor, t: Tensor) -> Tensor:
        wide = start.dtype
        logits = log_features(q[batch, head, t].to(wide))[:, None] + log_features(k[batch, head].to(wide))
        return _parts.average(logits.logsumexp(-1), v[batch, head], t if causal else None)

    return _parts.rescue(y, bad.squeeze(-1), exact, n * e)


def features(x: Tensor, shift: Tensor | float = 0.0) -> Tensor:
    """elu(x) + 1, divided by exp(shift) where shift < 0 (then no x is positive)."""
    return (x.clamp(max=0) - shift).exp() + x.relu()


def query_features(q: Tensor, wide: torch.dtype) -> Tensor:
    """Only the ratios within a row matter, so the largest feature of a row is kept from underflow."""
    q = q.to(wide)
    return features(q, q.detach().amax(-1, keepdim=True).clamp(max=0))


def log_features(x: Tensor) -> Tensor:
    return torch.where(x > 0, x.clamp(min=0).log1p(), x.clamp(max=0))


def with_ones(v: Tensor, wide: torch.dtype) -> Tensor:
    """The values and a column of ones, which sums to the denominator."""
    return torch.nn.functional.pad(v.to(wide), (0, 1), value=1.0)


def scan_tile(n: int, columns: int) -> int:
    """Tokens of a tile whose few temporaries stay in cache: a multiple of CHUNK."""
    rows = max(CHUNK, (1 << 16) // columns // CHUNK * CHUNK, -(-n // 128) // CHUNK * CHUNK)
    return min(rows, -(-n // CHUNK) * CHUNK)


def _divide(sums: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    numerator, denominator = sums[..., :-1], sums[..., -1:]
    bad = denominator.detach() < _parts.smallest(sums.dtype)
    return (numerator / denominator.masked_fill(bad, 1.0)).to(dtype), bad


def _gather(_: int, state: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    pairs = products.matmul(features(k.to(state.dtype)).mT, with_ones(v, state.dtype))
    return k[..., :0], k[..., :0] > 0, state + pairs


def _read(_: int, state: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return *_divide(products.matmul(query_features(q, state.dtype), state), q.dtype), state


def _causal_step(_: int, state: Tensor, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rows, wide = q.shape[2], state.dtype
    left, right, values = query_features(q, wide), features(k.to(wide)), with_ones(v, wide)
    if rows % CHUNK:
        left, right, values = (
            torch.nn.functional.pad(x, (0, 0, 0, -rows % CHUNK)) for x in (left, right, values)
        )
    left, right, values = (
        x.unflatten(2, (-1, CHUNK)) for x in (left, right, values)
    )  # [b, h, chunks, CHUNK, .]
    states = torch.cat([state.unsqueeze(2), products.matmul(right.mT, values)], 2).cumsum(2)
    within = products.matmul(left, right.mT).tril()
    sums = products.matmul(within, values) + products.matmul(left, states[:, :, :-1])
    return *_divide(sums.flatten(2, 3)[:, :, :rows], q.dtype), states[:, :, -1]


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


def flops(shape: Shape, *, causal: bool = False, mode: str = "forward") -> Flops:
    b, n, d, train = shape.batch, shape.seq, shape.dim, mode == "train"
    e = d // shape.heads
    project = 4 * 2 * b * n * d * d
    if causal:
        n = -(-n // CHUNK) * CHUNK
        mix = 2 * b * n * d * (2 * (e + 1) + CHUNK) + 2 * b * n * shape.heads * CHUNK * (e + 1)
    else:
        mix = 2 * b * n * d * 2 * (e + 1)
    return Flops(
        matmul=project * (3 if train else 1) + mix * (4 if train else 1),
        elementwise=b * n * d * 7 * (4 if train else 1),
        transcendental=2 * b * n * d * (2 if train else 1),
    )


MECHANISM = Mechanism(
    name="linear",
    build=LinearAttention,
    title="Linear attention",
    paper="Katharopoulos et al. 2020, arXiv:2006.16236",
    reference=reference,
    complexity=Complexity(time="n d^2", memory="n d"),
    flops=flops,
)
