"""softmax(scores) @ v by tiles of whole rows, with memory linear in n: shared by the Synthesizers."""

from __future__ import annotations

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts


def softmax_rows(left: Tensor, right: Tensor | None, v: Tensor, *, causal: bool) -> Tensor:
    """softmax(scores) @ v for each of g groups, by tiles of whole rows: never more than a tile of scores.

    scores = left @ right.T with left [g, n, r] and right [g or fewer, n, r] (group i takes right i modulo
    their number), or left itself, [g, n, n], where right is None; v [g, n, c].
    """
    return _SoftmaxRows.apply(left, right, v, causal)


def row_tile(n: int) -> int:
    """Rows whose scores fill 8 MiB in float32, but enough for an efficient product and not too many tiles."""
    return min(n, max(256 if n < 32768 else 512, (1 << 21) // n))


def row_pairs(n: int, *, causal: bool) -> int:
    """How many scores the tiles of one group hold."""
    return sum((b - a) * (b if causal else n) for a, b in _parts.tiles(n, row_tile(n)))


class _SoftmaxRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right, v, causal):
        ctx.save_for_backward(left, right, v)
        ctx.causal = causal
        y = torch.empty_like(v)
        space = _space(v)
        for g in range(len(v)):
            values, keys = _wide(v[g]), None if right is None else _wide(right[g % len(right)])
            for a, b in _parts.tiles(v.shape[1], row_tile(v.shape[1])):
                stop = b if causal else v.shape[1]
                weights = _weights(left[g, a:b], keys, a, stop, causal, space)
                y[g, a:b] = products.mm(weights, values[:stop])
        return y

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad):
        left, right, v = ctx.saved_tensors
        n, causal = v.shape[1], ctx.causal
        wide = _parts.accumulator(v.dtype)
        to_left = torch.zeros_like(left)
        to_right = None if right is None else torch.zeros_like(right, dtype=wide)
        to_v = torch.empty_like(v)
        space = _space(v)
        for g in range(len(v)):
            values, keys = _wide(v[g]), None if right is None else _wide(right[g % len(right)])
            total = torch.zeros_like(values)
            for a, b in _parts.tiles(n, row_tile(n)):
                stop = b if causal else n
                weights = _weights(left[g, a:b], keys, a, stop, causal, space)
                top = _wide(grad[g, a:b])
                products.addmm_(total[:stop], weights.t(), top)
                slope = products.mm(top, values[:stop].t())
                slope = torch._softmax_backward_data(slope, weights, 1, wide)
                if right is None:
                    to_left[g, a:b, :stop] = slope
                else:
                    to_left[g, a:b] = products.mm(slope, keys[:stop])
                    target = to_right[g % len(right)][:stop]
                    products.addmm_(target, slope.t(), _wide(left[g, a:b]))
            to_v[g] = total
        return to_left, None if right is None else to_right.to(right.dtype), to_v, None


def _wide(x: Tensor) -> Tensor:
    return x.to(_parts.accumulator(x.dtype)).contiguous()


def _space(v: Tensor) -> Tensor:
    """Memory for one tile of scores, used for every tile: fresh pages would cost more than exp does."""
    n = v.shape[1]
    return v.new_empty(row_tile(n) * n, dtype=_parts.accumulator(v.dtype))


def _weights(left: Tensor, keys: Tensor | None, start: int, stop: int, causal: bool, space: Tensor) -> Tensor:
    """softmax, made in ``space``, of the rows from ``start`` on, which see the keys before ``stop``."""
    scores = space[: len(left) * stop].view(len(left), stop)
    if keys is None:
        scores.copy_(left[:, :stop])
    else:
        scores = products.mm(_wide(left), keys[:stop].t(), out=scores)
    if causal:
        own = scores[:, start:]  # only a tile's own keys can lie in the future of its rows
        own.masked_fill_(torch.ones(own.shape, dtype=torch.bool, device=own.device).triu_(1), -torch.inf)
    return torch.softmax(scores, 1, out=scores)
