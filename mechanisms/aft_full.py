"""AFT-full: each token gates a position-weighted average of the values.

    y_t = sigmoid(q_t) * sum_s exp(k_s + w_ts) v_s / sum_s exp(k_s + w_ts)        causal: s <= t

w_ts is one number per pair, for all channels and sequences; k is per channel. Factorised, w_ts = u_t . w_s
with factors of rank r drawn from N(0, 0.01).

Paper: Zhai et al. 2021, arXiv:2105.14103, equation 2; causal form: footnote 2. The paper prints projections
Wq, Wk and Wv, and its parameter counts (table 3) are 3 d^2 and w: there is no output projection.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from effbench import products
from effbench.mechanisms import _aft, _decode, _gate, _parts, _tiles
from effbench.plugin import Complexity, Flops, Mechanism, Shape

State = tuple[int, _decode.Exponentials | _decode.Logits]  # the tokens seen, and their keys


def aft_full(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position_bias: _aft.Bias,
    *,
    causal: bool = False,
    gate: _gate.Gate = torch.sigmoid,
) -> Tensor:
    """q k v [b, n, d]; position_bias [n, n] (query t, key s), or factors (u [n, r], w [n, r]): u @ w.T."""
    return _aft.position_weighted(q, k, v, position_bias, window=None, causal=causal, gate=gate)


class AFTFull(_decode.Stepwise):
    window: int | None = None

    def __init__(self, shape: Shape, *, causal: bool = False, rank: int | None = 64, gate: str = "sigmoid"):
        super().__init__()
        self.causal, self.length, self.gate = causal, shape.seq, _gate.named(gate)
        self.query, self.key, self.value = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(3))
        width = rank or shape.seq
        self.position = nn.Parameter(0.01 * torch.randn(shape.seq, width))  # w itself, or its factor u
        self.position_key = nn.Parameter(0.01 * torch.randn(shape.seq, width)) if rank else None

    def position_bias(self, n: int) -> _aft.Bias:
        _parts.check_length(n, self.length)
        if self.position_key is None:
            return self.position[:n, :n]
        return self.position[:n], self.position_key[:n]

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        _parts.check_length(x.shape[1], self.length)
        return super().project(x)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, position_bias: _aft.Bias | None = None) -> Tensor:
        bias = self.position_bias(q.shape[1]) if position_bias is None else position_bias
        return aft_full(q, k, v, bias, causal=self.causal, gate=self.gate)

    def forward(self, x: Tensor, position_bias: _aft.Bias | None = None) -> Tensor:
        """x [b, n, d]; a bias given from outside, [n, n] or factors, takes the place of the module's own."""
        return self.combine(self.mix(*self.project(x), position_bias))

    def remember(self, _: Tensor, k: Tensor, v: Tensor) -> State:
        n, wide = k.shape[1], _parts.accumulator(k.dtype)
        kind = _decode.Exponentials if self._is_tame() else _decode.Logits
        rows = (x.transpose(0, 1).flatten(1).to(wide) for x in (k, v))  # [n, b d]
        return n, kind.of(*rows, self.length if self.window is None else self.window)

    def follow(self, state: State, q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, State]:
        seen, keys = state
        _parts.check_length(seen + 1, self.length)
        wide = _parts.accumulator(k.dtype)
        keys = keys.add(k.to(wide).view(1, -1), v.to(wide).view(1, -1))
        bias = self._bias_of(seen, seen + 1 - keys.near.count).to(wide)
        return (self.gate(q.to(wide)) * keys.average(bias).view(q.shape)).to(q.dtype), (seen + 1, keys)

    def _bias_of(self, t: int, first: int) -> Tensor:
        """w of token t and the keys from ``first`` to itself, [keys, 1]."""
        if self.position_key is None:
            return self.position[t, first : t + 1, None]
        wide = _parts.accumulator(self.position.dtype)
        return products.mm(self.position_key[first : t + 1].to(wide), self.position[t, :, None].to(wide))

    def _is_tame(self) -> bool:
        return not _parts.occurs(_tiles.largest(self.position, self.position_key) > _tiles.TAME)


def reference(module: AFTFull, x: Tensor) -> Tensor:
    """The printed formula in log space, channel by channel."""
    n = x.shape[1]
    q, k, v = x @ module.query.weight.T, x @ module.key.weight.T, x @ module.value.weight.T
    w = (
        module.position[:n, :n]
        if module.position_key is None
        else module.position[:n] @ module.position_key[:n].T
    )
    t, s = torch.arange(n)[:, None], torch.arange(n)[None, :]
    if module.window is not None:
        w = torch.where((t - s).abs() < module.window, w, torch.zeros_like(w))
    if module.causal:
        w = w.masked_fill(s > t, -torch.inf)
    means = []
    for channel in range(x.shape[2]):
        logits = k[:, None, :, channel] + w  # [b, t, s]
        weights = torch.exp(logits - logits.logsumexp(-1, keepdim=True))
        means.append((weights @ v[:, :, channel, None]).squeeze(-1))
    return module.gate(q) * torch.stack(means, dim=-1)


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    rank: int | None = 64,
    gate: str = "sigmoid",
    window: int | None = None,
    pairs: Callable[..., int] = _tiles.pairs,
) -> Flops:
    """Projections, tiles of exp(w), and their products with [exp(k) v, exp(k)]."""
    train, c, n = mode == "train", shape.batch * shape.dim, shape.seq
    held = pairs(n, c, window, causal=causal)
    r = rank or 0
    project = 3 * 2 * n * c * shape.dim
    # Backward: exp(w) again; the gradients of keys and of w; those of both factors.
    mix = held * (4 * c + 2 * r) + train * held * (8 * c + 6 * r)
    own = n * c * (10 + 30 * train)
    return Flops(
        matmul=project * (3 if train else 1) + mix,
        elementwise=own + train * held,
        transcendental=(held + (1 + (gate in _gate.TRANSCENDENTAL)) * n * c) * (2 if train else 1),
    )


MECHANISM = Mechanism(
    name="aft-full",
    build=AFTFull,
    title="AFT-full",
    paper="Zhai et al. 2021, arXiv:2105.14103",
    reference=reference,
    complexity=Complexity(time="n^2 d + n^2 r + n d^2", memory="n d + n r"),
    flops=flops,
    needed=partial(flops, pairs=_tiles.visible_pairs),
    fixed_length=True,
    positional=True,
)
