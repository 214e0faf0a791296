"""AFT-conv: a bias that depends on relative position only, within reach of a kernel, per head.

    y_t = sigmoid(q_t) * sum_t' exp(k_t' + w_(t'-t)) v_t' / sum_t' exp(k_t' + w_(t'-t))        causal: t' <= t

with w = 0 out of the kernel's reach, and one key channel per head. It is the paper's form, a convolution with
exp(w) - 1 plus global pooling, with a way out where that cancels (``_line``, and ``_plane`` on a grid); in
causal form, where rows would often cancel, keys in reach and out of it are added up apart.

Paper: Zhai et al. 2021, arXiv:2105.14103, equation 6. The kernel is gamma (w - mean) / std + beta per head,
gamma and beta 0 at the start. Wq and Wv are d x d, Wk is d x h; no output projection, as in AFT-full.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from effbench.mechanisms import _decode, _gate, _line, _parts, _plane, _taps
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def aft_conv(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    kernel: Tensor,
    *,
    causal: bool = False,
    grid: tuple[int, int] | None = None,
    gate: _gate.Gate = torch.sigmoid,
) -> Tensor:
    """q v [b, n, d]; k [b, n, h]; kernel [h, s], s odd: tap i weighs key t-(s-1)/2+i (causal: t-s+1+i).

    kernel [h, s, s] with grid = (height, width), n = height * width, rows first.
    """
    n, s = q.shape[1], kernel.shape[-1]
    if s % 2 == 0:
        raise ValueError(f"a kernel of {s} taps: an odd number is accepted")
    if (grid is None) != (kernel.dim() == 2) or (grid is not None and grid[0] * grid[1] != n):
        raise ValueError(f"kernel {tuple(kernel.shape)}, grid {grid} and {n} tokens do not fit together")
    if grid is not None and causal:
        raise ValueError("aft_conv on a grid has no causal form")
    if grid is None:
        y, bad = _parts.apply(_line.Line, q, k, v, kernel, causal, gate)
    else:
        y, bad = _parts.apply(_plane.Plane, q, k, v, kernel, grid, gate)
    y, q, values = (x.unflatten(2, (k.shape[2], -1)) for x in (y, q, v))  # [b, n, h, e]

    def exact(batch: Tensor, t: Tensor, head: Tensor) -> Tensor:
        bias = _bias_rows(kernel, t, head, n, causal, grid)
        logits = k[batch, :, head].to(_parts.accumulator(v.dtype)) + bias
        mean = _parts.average(logits, values[batch, :, head], t if causal else None)
        return mean * gate(q[batch, t, head])

    return _parts.rescue(y, bad, exact, n * values.shape[3]).flatten(2)


def _bias_rows(
    kernel: Tensor, t: Tensor, head: Tensor, n: int, causal: bool, grid: tuple[int, int] | None
) -> Tensor:
    """w of rows t and all n keys, [f, n], for the rows that are done again."""
    s, key = kernel.shape[-1], torch.arange(n, device=t.device)
    if grid is None:
        tap = key - t[:, None] + (s - 1 if causal else (s - 1) // 2)
        inside = (tap >= 0) & (tap < s)
        return torch.where(inside, kernel[head].gather(1, tap.clamp(0, s - 1)), 0.0)
    row = key // grid[1] - (t // grid[1])[:, None] + s // 2
    column = key % grid[1] - (t % grid[1])[:, None] + s // 2
    inside = (row >= 0) & (row < s) & (column >= 0) & (column < s)
    tap = row.clamp(0, s - 1) * s + column.clamp(0, s - 1)
    return torch.where(inside, kernel[head].flatten(1).gather(1, tap), 0.0)


class AFTConv(_decode.Stepwise):
    def __init__(
        self,
        shape: Shape,
        *,
        causal: bool = False,
        kernel: int = 11,
        dims: int = 1,
        gate: str = "sigmoid",
    ):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0 or dims not in (1, 2) or (causal and dims == 2):
            raise ValueError(
                f"kernel {kernel}, dims {dims}: an odd kernel, 1 or 2 dimensions are accepted; causal only 1"
            )
        self.causal, self.heads, self.dims, self.gate = causal, shape.heads, dims, _gate.named(gate)
        self.query, self.value = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(2))
        self.key = nn.Linear(shape.dim, shape.heads, bias=False)
        self.weight = nn.Parameter(torch.randn(shape.heads, *[kernel] * dims))
        self.gamma, self.beta = (nn.Parameter(torch.zeros(shape.heads)) for _ in range(2))

    def kernel(self) -> Tensor:
        """gamma (w - mean) / std + beta per head; a single tap does not vary, so it is beta."""
        flat = self.weight.flatten(1)
        flat = flat - flat.mean(1, keepdim=True)
        if flat.shape[1] > 1:
            flat = flat / flat.std(1, correction=0, keepdim=True)
        return (self.gamma[:, None] * flat + self.beta[:, None]).view_as(self.weight)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        grid = square(q.shape[1]) if self.dims == 2 else None
        return aft_conv(q, k, v, self.kernel(), causal=self.causal, grid=grid, gate=self.gate)

    def remember(self, _: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, _decode.Logits]:
        """The kernel's taps [s, 1, h, 1], and the keys in its reach."""
        wide = _parts.accumulator(k.dtype)
        taps = self.kernel().to(wide).t()[:, None, :, None].contiguous()
        return taps, _decode.Logits.of(*self._rows(k, v, wide), len(taps))

    def follow(
        self, state: tuple[Tensor, _decode.Logits], q: Tensor, k: Tensor, v: Tensor
    ) -> tuple[Tensor, tuple[Tensor, _decode.Logits]]:
        taps, keys = state
        keys = keys.add(*self._rows(k, v, taps.dtype))
        mean = keys.average(taps[len(taps) - keys.near.count :]).view(q.shape)
        return (self.gate(q.to(mean.dtype)) * mean).to(q.dtype), (taps, keys)

    def _rows(self, k: Tensor, v: Tensor, wide: torch.dtype) -> Iterator[Tensor]:
        """Keys [n, b, h, 1] and values [n, b, h, e]."""
        return (x.to(wide).transpose(0, 1).unflatten(2, (self.heads, -1)) for x in (k, v))


def square(n: int) -> tuple[int, int]:
    side = math.isqrt(n)
    if side * side != n:
        raise ValueError(f"{n} tokens do not fill a square grid")
    return side, side


def supports(cell: Any) -> str | None:
    """Two dimensions need a square number of tokens, and have no order in time."""
    if cell.options.get("dims", 1) == 1:
        return None
    if cell.causal:
        return "AFT-conv on a grid has no causal form"
    return None if math.isqrt(cell.seq) ** 2 == cell.seq else f"{cell.seq} tokens do not fill a square grid"


def reference(module: AFTConv, x: Tensor) -> Tensor:
    """All pairs, head by head: a bias matrix of the kernel's taps, 0 elsewhere."""
    n, d, h = *x.shape[1:], module.heads
    q, k, v = x @ module.query.weight.T, x @ module.key.weight.T, x @ module.value.weight.T
    s = module.weight.shape[1]
    means = []
    for head in range(h):
        raw = module.weight[head]
        deviation = raw.std(correction=0) if raw.numel() > 1 else 1.0
        taps = module.gamma[head] * (raw - raw.mean()) / deviation + module.beta[head]
        if module.dims == 1:
            tap = torch.arange(n)[None, :] - torch.arange(n)[:, None] + (s - 1 if module.causal else s // 2)
            w = torch.where((tap >= 0) & (tap < s), taps[tap.clamp(0, s - 1)], 0.0)
        else:
            place = torch.arange(math.isqrt(n))
            tap = place[None, :] - place[:, None] + s // 2
            ok, tap = (tap >= 0) & (tap < s), tap.clamp(0, s - 1)
            w = taps[tap[:, None, :, None], tap[None, :, None, :]]
            w = torch.where(ok[:, None, :, None] & ok[None, :, None, :], w, 0.0).reshape(n, n)
        logits = k[:, None, :, head] + w
        if module.causal:
            logits = logits + torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1)
        weights = torch.exp(logits - logits.logsumexp(-1, keepdim=True))
        means.append(weights @ v[:, :, head * d // h : (head + 1) * d // h])
    return module.gate(q) * torch.cat(means, dim=-1)


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    kernel: int = 11,
    dims: int = 1,
    gate: str = "sigmoid",
) -> Flops:
    b, n, d, h, train = shape.batch, shape.seq, shape.dim, shape.heads, mode == "train"
    project = 2 * b * n * d * (2 * d + h)
    if dims == 2:
        taps = 2 * b * n * (kernel**2 * (d + h) * (3 if train else 1) + d * train)
    else:
        taps = _line.flops(b, n, d, h, kernel, train=train)
    convolved = dims == 2 or _taps.convolves(torch.float32)
    return Flops(
        matmul=project * (3 if train else 1) + taps * convolved,
        elementwise=taps * (not convolved) + b * n * d * 12 * (3 if train else 1),
        transcendental=b * n * (d * (gate in _gate.TRANSCENDENTAL) + 3 * h),
    )


MECHANISM = Mechanism(
    name="aft-conv",
    build=AFTConv,
    title="AFT-conv",
    paper="Zhai et al. 2021, arXiv:2105.14103",
    reference=reference,
    complexity=Complexity(time="n s d + n d^2", memory="n d"),
    flops=flops,
    positional=True,
    supports=supports,
)
