"""softmax(scores) @ v: the choice of a form by size and terms, and the form by tiles of whole rows.

Whole rows, and torch's softmax in place: it was measured against tiles of keys with exp alone (no maximum,
rows divided at the end), which lose to it by a tenth, for torch's products and for oneDNN's.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts, _tiled, _whole
from effbench.mechanisms._scores import Product, Term, wide

TIMES = 4  # on a GPU, scores at once for each element of v


def synthesize(terms: Sequence[Term], v: Tensor, *, causal: bool) -> Tensor:
    """softmax(sum of the terms) @ v, per head: v [b, h, n, e], terms of b h groups or of h.

    Scores that do not depend on the input have h groups, and their softmax is made once for the batch.
    """
    b, h, n, e = v.shape
    if max(x.shape[0] for term in terms for x in term.tensors) > h:
        return softmax(terms, v.flatten(0, 1), causal=causal).view_as(v)
    y = softmax(terms, v.permute(1, 2, 0, 3).reshape(h, n, b * e), causal=causal)
    return y.view(h, n, b, e).permute(2, 0, 1, 3)


def softmax(terms: Sequence[Term], v: Tensor, *, causal: bool) -> Tensor:
    """softmax(sum of the terms) @ v for each of g groups, v [g, n, c], at once or by tiles.

    Tiles of a single product can be cut along the keys too: memory does not grow with their number.
    """
    if _whole.fits(v.shape[0], v.shape[1]):
        return _whole.softmax_whole(terms, v, causal=causal)
    if len(terms) == 1 and terms[0].kind is Product:
        return _tiled.tiled_softmax(*terms[0].tensors, v, causal=causal)
    return softmax_rows(terms, v, causal=causal)


def softmax_rows(terms: Sequence[Term], v: Tensor, *, causal: bool) -> Tensor:
    """softmax(scores) @ v for each of g groups, v [g, n, c]: never more than a tile of scores at once."""
    kinds = [(term.kind, len(term.tensors)) for term in terms]
    return _SoftmaxRows.apply(kinds, causal, v, *(x for term in terms for x in term.tensors))


def row_tile(n: int) -> int:
    """Rows whose scores fill 8 MiB in float32, but enough for an efficient product and not too many tiles."""
    return min(n, max(256 if n < 32768 else 512, (1 << 21) // n))


def tile_rows(v: Tensor, terms: int) -> int:
    """Rows of a tile of scores over v [g, n, c]: on a GPU those of all terms hold TIMES what v does."""
    rows = row_tile(v.shape[1])
    return rows if _parts.on_cpu(v) else min(v.shape[1], max(rows, TIMES * len(v) * v.shape[2] // terms))


def row_pairs(n: int, *, causal: bool) -> int:
    """How many scores the tiles of one group hold."""
    return sum((b - a) * (b if causal else n) for a, b in _parts.tiles(n, row_tile(n)))


class _SoftmaxRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, kinds, causal, v, *tensors):
        ctx.save_for_backward(v, *tensors)
        ctx.kinds, ctx.causal = kinds, causal
        y = torch.empty_like(v)
        space = _space(v, len(kinds))
        for g in range(len(v)):
            values, sources = wide(v[g]), _sources(kinds, tensors, g)
            for a, b in _parts.tiles(v.shape[1], tile_rows(v, len(kinds))):
                stop = b if causal else v.shape[1]
                weights = _weights(sources, a, b, stop, causal, space)
                y[g, a:b] = products.mm(weights, values[:stop])
        return y

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad):
        v, *tensors = ctx.saved_tensors
        n, causal, dtype = v.shape[1], ctx.causal, _parts.accumulator(v.dtype)
        grads = _empty_gradients(ctx.kinds, tensors, len(v))
        to_v = torch.empty_like(v)
        space = _space(v, len(ctx.kinds))
        for g in range(len(v)):
            values, sources = wide(v[g]), _sources(ctx.kinds, tensors, g)
            total = torch.zeros_like(values.t(), memory_format=torch.contiguous_format)  # [c, n]
            for a, b in _parts.tiles(n, tile_rows(v, len(ctx.kinds))):
                stop = b if causal else n
                weights = _weights(sources, a, b, stop, causal, space)
                top = wide(grad[g, a:b])
                products.addmm_(total[:, :stop], top.t(), weights)
                slope = products.mm(top, values[:stop].t())
                torch._softmax_backward_data(slope, weights, 1, dtype, grad_input=slope)
                targets = iter([x[g % len(x)] for x in grads])
                for source, (_, count) in zip(sources, ctx.kinds, strict=True):
                    source.back(a, b, stop, slope, *(next(targets) for _ in range(count)))
            to_v[g] = total.t()
        return None, None, to_v, *(x.to(like.dtype) for x, like in zip(grads, tensors, strict=True))


def _sources(kinds, tensors, g: int) -> list:
    mine = iter([x[g % len(x)] for x in tensors])
    return [kind(*(next(mine) for _ in range(count))) for kind, count in kinds]


def _empty_gradients(kinds, tensors, groups: int) -> list[Tensor]:
    """Zeros, in the accumulator's dtype where several groups or tiles add to one number."""
    summed = [each for kind, count in kinds for each in kind.summed[:count]]
    turned = [each for kind, count in kinds for each in kind.turned[:count]]
    grads = []
    for x, adds, turns in zip(tensors, summed, turned, strict=True):
        dtype = _parts.accumulator(x.dtype) if adds or len(x) < groups else x.dtype
        shape = x.mT.shape if turns else x.shape
        zeros = x.new_zeros(shape, dtype=dtype)
        grads.append(zeros.mT if turns else zeros)
    return grads


def _space(v: Tensor, terms: int) -> Tensor:
    """Memory for a tile of scores and for one of a term that is added to it.

    It is used for every tile: fresh pages would cost more than exp does.
    """
    return v.new_empty(min(2, terms), tile_rows(v, terms) * v.shape[1], dtype=_parts.accumulator(v.dtype))


def _weights(sources, a: int, b: int, stop: int, causal: bool, space: Tensor) -> Tensor:
    """softmax, made in ``space``, of the rows ``a`` to ``b``, which see the keys before ``stop``."""
    places = [part[: (b - a) * stop].view(b - a, stop) for part in space]
    scores = sources[0].write(a, b, stop, places[0])
    for source in sources[1:]:
        scores += source.write(a, b, stop, places[1])
    if causal:
        own = scores[:, a:]  # only a tile's own keys can lie in the future of its rows
        own.masked_fill_(torch.ones(own.shape, dtype=torch.bool, device=own.device).triu_(1), -torch.inf)
    return torch.softmax(scores, 1, out=scores)
