"""AFT-simple, not causal: all tokens share one average per channel. Two passes over tiles, memory that of y.

The first pass takes the keys as they are. Only where a sum of their exponentials lies beyond exp(REACH) or
below exp(-REACH) is the largest key looked for and subtracted: within, the weights that matter are normal.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from effbench.mechanisms import _gate, _parts, _shares

TILE = 1 << 18  # elements of a tile, whose few temporaries stay in cache


def pooled(q: Tensor, k: Tensor, v: Tensor, gate: _gate.Gate) -> Tensor:
    """gate(q) times the average of v with weights exp(k); q k v [b, n, d]."""
    return _parts.apply(_Pooled, q, k, v, gate)


class _Pooled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, gate):
        shift, numerator, denominator = _average(k, v)
        mean, y = numerator / denominator, torch.empty_like(q)
        for queries, out in _parts.pieces(_tile(q), 1, q, y):
            _gate.scale(gate, queries, mean, out)
        ctx.save_for_backward(q, k, v, shift, mean, denominator)
        ctx.gate = gate
        return y

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad):
        q, k, v, shift, mean, denominator = ctx.saved_tensors
        to_q, to_k, to_v = (torch.empty_like(x) for x in (q, k, v))
        top = None  # of the average
        for queries, slope, out in _parts.pieces(_tile(q), 1, q, grad, to_q):
            slope = slope.to(mean.dtype)
            gate, _ = _gate.with_slope(ctx.gate, queries.to(mean.dtype), slope * mean, out)
            top = _shares.add_over_tokens(top, gate.mul_(slope))
        top = _shares.joined(top).div_(denominator)
        for weights, values, key, value in _weights(k, shift, mean.dtype, v, to_k, to_v):
            if key.dtype == value.dtype == mean.dtype:  # without a pass for what would be rounded
                torch.mul(weights, top, out=value)
                torch.sub(values, mean, out=key).mul_(value)
            else:
                value.copy_(weights.mul_(top))
                torch.mul(weights, values - mean, out=key)
        return to_q, to_k, to_v, None


def _average(k: Tensor, v: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
    """The shift of the keys, if they need one, and the numerator and denominator at it, [b, 1, d]."""
    numerator, denominator = _sums(k, v, None)
    # 0 times a numerator that is not finite is not a number, and so not within reach.
    furthest = torch.linalg.vector_norm(torch.add(denominator.log(), numerator, alpha=0), torch.inf)
    if not _parts.outside(furthest, 0, _parts.REACH):
        return None, numerator, denominator
    shift = k.amax(1, keepdim=True).to(denominator.dtype)
    return shift, *_sums(k, v, shift)


def _sums(k: Tensor, v: Tensor, shift: Tensor | None) -> tuple[Tensor, Tensor]:
    rows = denominator = None  # the first rows of all tiles added up, the second ones, ...
    for weights, values in _weights(k, shift, _parts.accumulator(k.dtype), v):
        denominator = _shares.add_over_tokens(denominator, weights)
        if rows is None:
            rows = weights * values
        else:
            rows[:, : values.shape[1]].addcmul_(weights, values.to(rows.dtype))
    return _shares.joined(_shares.add_over_tokens(None, rows)), _shares.joined(denominator)


def _weights(k: Tensor, shift: Tensor | None, dtype: torch.dtype, *others: Tensor) -> Iterator[tuple]:
    """exp(k - shift) of each tile, in a buffer that the next one overwrites, and that tile of the others."""
    room = None
    for keys, *rest in _parts.pieces(_tile(k), 1, k, *others):
        keys = keys.to(dtype)
        room = torch.empty_like(keys) if room is None else room[:, : keys.shape[1]]
        if shift is None:
            yield torch.exp(keys, out=room), *rest
        else:
            yield torch.sub(keys, shift, out=room).clamp_(min=_parts.faintest(dtype)).exp_(), *rest


def _tile(x: Tensor) -> int:
    """Tokens of a tile of x [b, n, d]."""
    b, n, d = x.shape
    return _shares.in_parts(max(1, _parts.tile_elements(x, TILE) // (b * d), -(-n // 256)))
