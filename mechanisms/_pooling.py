"""AFT-simple, not causal: all tokens share one average per channel. Two passes over tiles, memory that of y.

The first pass takes the first key as the shift of all: its own weight is then 1, so no denominator can
underflow, and only where another key lies far above it is the largest one looked for.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from effbench.mechanisms import _gate, _parts

TILE = 1 << 19  # elements of a tile, whose few temporaries stay in cache


def pooled(q: Tensor, k: Tensor, v: Tensor, gate: _gate.Gate) -> Tensor:
    """gate(q) times the average of v with weights exp(k); q k v [b, n, d]."""
    return _Pooled.apply(q, k, v, gate)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, gate):
        shift, sums = _average(k, v)
        mean, y = sums[0] / sums[1], torch.empty_like(q)
        for a, b in _tiles(q):
            torch.mul(gate(q[:, a:b].to(mean.dtype)), mean, out=y[:, a:b])
        ctx.save_for_backward(q, k, v, shift, mean, sums[1])
        ctx.gate = gate
        return y

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad):
        q, k, v, shift, mean, denominator = ctx.saved_tensors
        to_q, to_k, to_v = (torch.empty_like(x) for x in (q, k, v))
        top = torch.zeros_like(mean)  # of the average
        for a, b in _tiles(q):
            slope = grad[:, a:b].to(mean.dtype)
            gate, to_q[:, a:b] = _gate.with_slope(ctx.gate, q[:, a:b].to(mean.dtype), slope * mean)
            top += gate.mul_(slope).sum(1, keepdim=True)
        top /= denominator
        for a, b in _tiles(k):
            weights = _parts.exp_(k[:, a:b] - shift).mul_(top)
            to_v[:, a:b] = weights
            torch.mul(weights, v[:, a:b] - mean, out=to_k[:, a:b])
        return to_q, to_k, to_v, None


def _average(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """The shift of the keys, and the numerator and the denominator [2, b, 1, d] as it has them."""
    shift = k[:, :1].to(_parts.accumulator(k.dtype))
    sums = _sums(k, v, shift)
    if _parts.occurs((sums[1] >= math.exp(_parts.REACH)) | ~sums[0].isfinite()):
        shift = k.amax(1, keepdim=True).to(shift.dtype)
        sums = _sums(k, v, shift)
    return shift, sums


def _sums(k: Tensor, v: Tensor, shift: Tensor) -> Tensor:
    sums = shift.new_zeros(2, *shift.shape)
    for a, b in _tiles(k):
        weights = _parts.exp_(k[:, a:b] - shift)
        sums[1] += weights.sum(1, keepdim=True)
        sums[0] += weights.mul_(v[:, a:b]).sum(1, keepdim=True)
    return sums


def _tiles(x: Tensor):
    b, n, d = x.shape
    return _parts.tiles(n, max(1, _parts.tile_elements(x, TILE) // (b * d), -(-n // 256)))
