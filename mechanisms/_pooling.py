"""AFT-simple, not causal: all tokens share one average per channel. Two passes over tiles, memory that of y.

The first pass takes the keys as they are. Only where a sum of their exponentials lies beyond exp(REACH) or
below exp(-REACH) is the largest key looked for and subtracted: within, the weights that matter are normal.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from effbench.mechanisms import _gate, _parts

TILE = 1 << 18  # elements of a tile, whose few temporaries stay in cache


def pooled(q: Tensor, k: Tensor, v: Tensor, gate: _gate.Gate) -> Tensor:
    """gate(q) times the average of v with weights exp(k); q k v [b, n, d]."""
    return _Pooled.apply(q, k, v, gate)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, gate):
        shift, sums = _average(k, v)
        mean, y = sums[0] / sums[1], torch.empty_like(q)
        for a, b in _tiles(q):
            _gate.scale(gate, q[:, a:b], mean, y[:, a:b])
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
        for a, b, weights in _weights(k, shift, mean.dtype):
            torch.mul(weights, top, out=to_v[:, a:b])
            torch.mul(weights.mul_(top), v[:, a:b] - mean, out=to_k[:, a:b])
        return to_q, to_k, to_v, None


def _average(k: Tensor, v: Tensor) -> tuple[Tensor | None, Tensor]:
    """The shift of the keys, if they need one, and the numerator and denominator at it, [2, b, 1, d]."""
    sums = _sums(k, v, None)
    far = (sums[1] >= math.exp(_parts.REACH)) | (sums[1] <= math.exp(-_parts.REACH)) | ~sums[0].isfinite()
    if not _parts.occurs(far):
        return None, sums
    shift = k.amax(1, keepdim=True).to(sums.dtype)
    return shift, _sums(k, v, shift)


def _sums(k: Tensor, v: Tensor, shift: Tensor | None) -> Tensor:
    b, _, d = k.shape
    sums = k.new_zeros(2, b, 1, d, dtype=_parts.accumulator(k.dtype))
    rows = None  # the first rows of all tiles added up, the second ones, ...
    for start, stop, weights in _weights(k, shift, sums.dtype):
        sums[1] += weights.sum(1, keepdim=True)
        rows = torch.zeros_like(weights) if rows is None else rows
        rows[:, : stop - start].addcmul_(weights, v[:, start:stop].to(sums.dtype))
    if rows is not None:
        sums[0] = rows.sum(1, keepdim=True)
    return sums


def _weights(k: Tensor, shift: Tensor | None, dtype: torch.dtype) -> Iterator[tuple[int, int, Tensor]]:
    """(start, stop) of each tile and its exp(k - shift), in a buffer that the next one overwrites."""
    room = None
    for a, b in _tiles(k):
        keys = k[:, a:b].to(dtype)
        room = torch.empty_like(keys) if room is None else room[:, : b - a]
        if shift is None:
            yield a, b, torch.exp(keys, out=room)
        else:
            yield a, b, torch.sub(keys, shift, out=room).clamp_(min=_parts.faintest(dtype)).exp_()


def _tiles(x: Tensor):
    b, n, d = x.shape
    return _parts.tiles(n, max(1, _parts.tile_elements(x, TILE) // (b * d), -(-n // 256)))
