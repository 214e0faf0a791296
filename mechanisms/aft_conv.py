"""AFT-conv: a bias that depends on relative position only, within reach of a kernel, per head.

    y_t = sigmoid(q_t) * sum_t' exp(k_t' + w_(t'-t)) v_t' / sum_t' exp(k_t' + w_(t'-t))        causal: t' <= t

with w = 0 out of the kernel's reach, and one key channel per head. The paper's form is a convolution with
exp(w) - 1 plus global pooling; that cancels where a dominant key has a large negative w, so here the sum over
keys in reach (with exp(w)) and the sum over those out of reach are kept apart: every weight is positive.

Paper: Zhai et al. 2021, arXiv:2105.14103, equation 6. The kernel is gamma (w - mean) / std + beta per head,
gamma and beta 0 at the start. Wq and Wv are d x d, Wk is d x h; no output projection, as in AFT-full.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from effbench import products
from effbench.mechanisms import _parts, _running
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
    values = v.unflatten(2, (k.shape[2], -1))  # [b, n, h, e]
    mean, bad = _line(k, values, kernel, causal) if grid is None else _plane(k, values, kernel, grid)
    gate = q.unflatten(2, (k.shape[2], -1)).to(mean.dtype).sigmoid()

    def exact(batch: Tensor, t: Tensor, head: Tensor) -> Tensor:
        logits = k[batch, :, head].to(mean.dtype) + _bias_rows(kernel, t, head, n, causal, grid)
        found = _parts.average(logits, values[batch, :, head], t if causal else None)
        return found * gate[batch, t, head]

    return _parts.rescue((mean * gate).to(q.dtype), bad, exact, n * values.shape[3]).flatten(2)


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


def _line(k: Tensor, v: Tensor, kernel: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    """By tiles: pairs of a tile and its neighbours as products with a band of exp(w), the rest as sums."""
    n, wide = v.shape[1], _parts.accumulator(v.dtype)
    size = line_tile(kernel.shape[1])
    k = functional.pad(k.to(wide), (0, 0, 0, -n % size), value=-torch.inf).unflatten(1, (-1, size))
    v = functional.pad(v.to(wide), (0, 0, 0, 0, 0, -n % size)).unflatten(
        1, (-1, size)
    )  # [b, tiles, size, h, e]
    if causal:
        tops, firsts = k.detach().amax(2).transpose(0, 1), k.detach()[:, :, 0].transpose(0, 1)
        shift = _parts.shifts_from(tops, firsts)[0].transpose(0, 1)  # [b, tiles, h]
        numerator, denominator, bad = _earlier(k, v, shift)
        bad = bad | _parts.out_of_reach(k.detach(), shift.unsqueeze(2))
    else:
        shift = k.detach().amax((1, 2), keepdim=True).squeeze(2).expand(-1, k.shape[1], -1)
        numerator, denominator = _elsewhere(k, v, shift)
        bad = torch.zeros_like(k, dtype=torch.bool)
    base = kernel.detach().amax(1).clamp(min=0).to(wide)  # exp(w) is divided by exp(base)
    outside = (-base).exp()
    numerator, denominator = (numerator * outside[:, None]).unsqueeze(2), (denominator * outside).unsqueeze(2)
    for offset in (-1, 0) if causal else (-1, 0, 1):
        band = _band(kernel.to(wide), base, offset, size, causal)
        keys, values = _neighbour(k, offset, -torch.inf), _neighbour(v, offset, 0.0)
        weights = _parts.exp_keys(keys, shift.unsqueeze(2))
        numerator = numerator + _apply(band, weights.unsqueeze(-1) * values)
        denominator = denominator + _apply(band, weights.unsqueeze(-1)).squeeze(-1)
    bad = (bad | (denominator.detach() < _parts.smallest(wide))).flatten(1, 2)[:, :n]
    numerator, denominator = numerator.flatten(1, 2)[:, :n], denominator.flatten(1, 2)[:, :n]
    return numerator / denominator.masked_fill(bad, 1.0).unsqueeze(-1), bad


def line_tile(s: int) -> int:
    """Tokens of a tile: its neighbours on either side must hold the whole kernel."""
    return max(16, 1 << (s - 1).bit_length())


def _neighbour(x: Tensor, offset: int, value: float) -> Tensor:
    """Tile i + offset in the place of tile i; ``value`` where there is none."""
    if offset == 0:
        return x
    edge = torch.full_like(x[:, :1], value)
    return torch.cat([edge, x[:, :-1]], 1) if offset < 0 else torch.cat([x[:, 1:], edge], 1)


def _band(kernel: Tensor, base: Tensor, offset: int, size: int, causal: bool) -> Tensor:
    """exp(w - base) of a tile of rows and the tile of keys ``offset`` further on, [h, size, size]."""
    s, place = kernel.shape[1], torch.arange(size, device=kernel.device)
    distance = place + offset * size - place[:, None]
    tap = distance + (s - 1 if causal else (s - 1) // 2)
    inside = (tap >= 0) & (tap < s)
    w = torch.where(inside, kernel[:, tap.clamp(0, s - 1)], 0.0)
    weights = (w - base[:, None, None]).exp()
    return weights.masked_fill(distance > 0, 0.0) if causal else weights


def _apply(band: Tensor, x: Tensor) -> Tensor:
    """band [h, r, k] times x [b, tiles, k, h, e], per head."""
    b, tiles, size, h, e = x.shape
    y = products.matmul(band, x.permute(3, 2, 0, 1, 4).reshape(h, size, -1))
    return y.view(h, size, b, tiles, e).permute(2, 3, 1, 0, 4)


def _elsewhere(k: Tensor, v: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """For each tile, the sums over tiles that are not its neighbours: [b, tiles, h, e] and [b, tiles, h]."""
    weights = _parts.exp_keys(k, shift.unsqueeze(2))
    sums = torch.cat([(weights.unsqueeze(-1) * v).sum(2), weights.sum(2).unsqueeze(-1)], -1)
    none = torch.zeros_like(sums[:, :2])
    before = torch.cat([none, sums.cumsum(1)[:, :-2]], 1)[:, : sums.shape[1]]
    after = torch.cat([sums.flip(1).cumsum(1).flip(1)[:, 2:], none], 1)[:, : sums.shape[1]]
    total = before + after
    return total[..., :-1], total[..., -1]


def _earlier(k: Tensor, v: Tensor, shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Causal: for each tile the sums over the tiles before its neighbour, and where not to trust them.

    Each tile is one token to AFT-simple: its key the logarithm of its weight, its value its average.
    """
    b, tiles, _, h, e = v.shape
    mine = k.detach().amax(2)
    weights = (k - mine.unsqueeze(2)).exp()
    total = weights.sum(2)
    value = ((weights.unsqueeze(-1) * v).sum(2) / total.unsqueeze(-1)).flatten(2)
    key = (total.log() + mine).unsqueeze(-1).expand(-1, -1, -1, e).flatten(2)
    mean, weight, bad = _running.running_average(None, key, value).split(h * e, -1)
    mean, weight, bad = (x.view(b, tiles, h, e) for x in (mean, weight, bad))
    edge = mean.new_zeros(b, min(2, tiles), h, e)
    mean, bad = (torch.cat([edge, x], 1)[:, :tiles] for x in (mean, bad.detach()))
    weight = torch.cat([edge - torch.inf, weight], 1)[:, :tiles]
    denominator = (weight - shift.unsqueeze(-1)).exp()
    return denominator * mean, denominator[..., 0], (bad[..., 0] > 0).unsqueeze(2)


def _plane(k: Tensor, v: Tensor, kernel: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """On a grid: a depth-wise convolution with exp(w), and sums over rows and columns out of its reach."""
    (h, e), wide, reach = v.shape[2:], _parts.accumulator(v.dtype), kernel.shape[-1] // 2
    base = kernel.detach().amax((1, 2)).clamp(min=0).to(wide)
    weights = (k.to(wide) - k.detach().amax(1, keepdim=True)).exp().unsqueeze(-1)
    packed = torch.cat([weights * v, weights], -1)  # [b, n, h, e + 1]
    packed = packed.flatten(2).mT.unflatten(2, grid)  # [b, h (e + 1), height, width]
    taps = (kernel.to(wide) - base[:, None, None]).exp().repeat_interleave(e + 1, 0).unsqueeze(1)
    inside = functional.conv2d(packed, taps, padding=reach, groups=taps.shape[0])
    rows, columns = (_within(size, reach, packed) for size in grid)
    above_below = products.matmul(1 - rows, packed.sum(3, keepdim=True))
    beside = products.linear(products.matmul(rows, packed), 1 - columns)
    outside = (above_below + beside) * (-base).exp().repeat_interleave(e + 1)[:, None, None]
    total = (inside + outside).flatten(2).mT.unflatten(2, (h, e + 1))
    bad = total[..., -1].detach() < _parts.smallest(wide)
    return total[..., :-1] / total[..., -1].masked_fill(bad, 1.0).unsqueeze(-1), bad


def _within(size: int, reach: int, like: Tensor) -> Tensor:
    place = torch.arange(size, device=like.device)
    return ((place - place[:, None]).abs() <= reach).to(like.dtype)


class AFTConv(_parts.Mixer):
    def __init__(self, shape: Shape, *, causal: bool = False, kernel: int = 11, dims: int = 1):
        super().__init__()
        if kernel < 1 or kernel % 2 == 0 or dims not in (1, 2) or (causal and dims == 2):
            raise ValueError(
                f"kernel {kernel}, dims {dims}: an odd kernel, 1 or 2 dimensions are accepted; causal only 1"
            )
        self.causal, self.heads, self.dims = causal, shape.heads, dims
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
        return aft_conv(q, k, v, self.kernel(), causal=self.causal, grid=grid)


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
    return torch.sigmoid(q) * torch.cat(means, dim=-1)


def flops(
    shape: Shape, *, causal: bool = False, mode: str = "forward", kernel: int = 11, dims: int = 1
) -> Flops:
    b, n, d, h, train = shape.batch, shape.seq, shape.dim, shape.heads, mode == "train"
    project = 2 * b * n * d * (2 * d + h)
    if dims == 1:
        size = line_tile(kernel)
        rows = -(-n // size) * size
        mix = (2 if causal else 3) * 2 * b * rows * size * (d + h)
        if causal:
            mix += _running.product_flops(rows // size, b, d)
    else:
        side = math.isqrt(n)
        mix = 2 * b * (d + h) * (n * (kernel**2 + 2 * side) + side * side)
    return Flops(
        matmul=(project + mix) * (3 if train else 1),
        elementwise=b * n * d * 12 * (3 if train else 1),
        transcendental=b * n * (d + 3 * h),
    )


MECHANISM = Mechanism(
    name="aft-conv",
    build=AFTConv,
    title="AFT-conv",
    paper="Zhai et al. 2021, arXiv:2105.14103",
    reference=reference,
    complexity=Complexity(time="n s d + n d^2", memory="n d"),
    flops=flops,
    supports=supports,
)
