"""The running average with weights exp(k): AFT-simple's causal form."""

from __future__ import annotations

import torch
from torch import Tensor

from effbench.mechanisms import _gate, _parts

STEPS = 8  # rows whose running sums are taken one after the other, all such groups of rows at once
TILE = 1 << 19  # elements of a tile, whose few temporaries stay in cache


def running_average(q: Tensor, k: Tensor, v: Tensor, gate: _gate.Gate) -> Tensor:
    """gate(q) times the running average of v [b, n, d] with weights exp(k), causal."""
    b, n, d = k.shape
    tile, wide = max(1, TILE // (b * d), -(-n // 256)), _parts.accumulator(k.dtype)
    shifts, rises = _parts.key_shifts(k, tile)
    shifts = shifts.unsqueeze(2)  # [tiles, b, 1, d]
    reached = _parts.occurs(rises > _parts.REACH)
    moving = reached or _parts.occurs(shifts != shifts[:1])

    def pack(k: Tensor, v: Tensor, shift: Tensor) -> Tensor:
        weights = _parts.exp_keys(k, shift)
        return torch.cat([weights * v, weights], -1)

    def step(i: int, state: Tensor, k: Tensor, v: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        shift = shifts[i]
        sums = _RunningSum.apply(pack(k, v, shift), state)
        numerator, denominator = sums.split(d, -1)
        after = sums[:, -1:].clone()  # a view would keep the whole tile
        if moving and i + 1 < len(shifts):
            # Keys out of reach of this tile's shift are within reach of the next one's, which they moved.
            new = shifts[i + 1]
            again = state * (shift - new).exp().repeat(1, 1, 2) + pack(k, v, new).sum(1, keepdim=True)
            after = torch.where((new == shift).repeat(1, 1, 2), after, again)
        flags = _parts.out_of_reach(k, shift) if reached else torch.zeros_like(k, dtype=torch.bool)
        mean = numerator / denominator
        return (gate(q.to(wide)) * mean).to(v.dtype), flags, after

    start = shifts.new_zeros(b, 1, 2 * d)
    y, bad, _ = _parts.scan(step, start, (k, v, q), tile=tile)

    def exact(batch: Tensor, t: Tensor, channel: Tensor) -> Tensor:
        mean = _parts.average(k[batch, :, channel].to(wide), v[batch, :, channel], t)
        return mean * gate(q[batch, t, channel])

    return _parts.rescue(y, bad, exact, n)


class _RunningSum(torch.autograd.Function):
    """``before`` plus the running sum of x along dimension 1; x is overwritten."""

    @staticmethod
    def forward(ctx, x, before):
        ctx.mark_dirty(x)
        x[:, :1] += before
        return accumulate_(x)

    @staticmethod
    def backward(ctx, grad):
        to_x = accumulate_(grad.flip(1)).flip(1)
        return to_x, to_x[:, :1]


def accumulate_(x: Tensor) -> Tensor:
    """The running sum along dimension 1 of x [b, rows, c], in place.

    torch's cumsum along that dimension takes ten times as long on a CPU, a product with a triangle of ones
    three times.
    """
    rows = x.shape[1]
    if x.device.type != "cpu":
        return x.copy_(x.cumsum(1))
    whole = rows // STEPS * STEPS
    if whole > STEPS:
        groups = x[:, :whole].unflatten(1, (-1, STEPS))
        for i in range(1, STEPS):
            groups[:, :, i] += groups[:, :, i - 1]
        ends = accumulate_(groups[:, :, -1].clone())
        groups[:, 1:] += ends[:, :-1].unsqueeze(2)
    for i in range(whole if whole > STEPS else 1, rows):
        x[:, i] += x[:, i - 1]
    return x
