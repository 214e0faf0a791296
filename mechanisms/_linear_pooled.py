"""Linear attention where every token sees all: one state for each head, two passes over tiles.

With f = phi(q), g = phi(k) and the state S = sum of g^T [v, 1], a row is [numerator, denominator] = f S. With
p = [dy, -(dy . y)] / denominator the gradients are

    dS = f^T p    df = p S^T    dg = [v, 1] dS^T    dv = g dS without its last column    phi' = min(phi, 1)

A tile is seen as [parts, b, h, rows, .], and what is made of it lies so: an operation on it, of which each
thread does a stretch, and a batch of products, of which each does some, then give a thread the same memory.
Else threads hand each other every result, which takes half as long again where their caches are far apart.
No shift of a tile is looked for before all are done and a denominator asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _linear, _parts, _shares

TILE = 1 << 19  # elements of a tile of q: fewer operations, each of which threads begin and end together
LEAST = 64  # rows of a tile
PART = 512  # tokens of a part of a sum over them, on a GPU


class BothWays(torch.autograd.Function):
    """y [b, h, n, e], and which rows [b, h, n] have to be done again (their denominator was lost), if any."""

    @staticmethod
    def forward(ctx, q, k, v):
        work = _Work(q)
        shift = shifts = bad = None
        state = _state(work, k, v, None)
        y, denominator = _rows(work, q, v, None, state)
        if _parts.outside(denominator.amin(), _parts.smallest(work.dtype), math.inf):
            shift, shifts = _shift(k, work.dtype, (2, 3)), _shift(q, work.dtype, 3)
            state = _state(work, k, v, shift)
            y, denominator = _rows(work, q, v, shifts, state)
            # A row that is lost all the same gets an infinite denominator, and so no gradient.
            lost = denominator < _parts.smallest(work.dtype)
            denominator.masked_fill_(lost, torch.inf)
            y.masked_fill_(lost, 0)
            bad = lost.squeeze(-1)
            ctx.mark_non_differentiable(bad)
        ctx.save_for_backward(q, k, v, y, denominator, state)
        ctx.shift, ctx.shifts = shift, shifts
        return y, bad

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad, _):
        q, k, v, y, denominator, state = ctx.saved_tensors
        work = _Work(q)
        to_q, to_k, to_v = (torch.empty_like(x) for x in (q, k, v))
        of_rows = [q, grad, y, denominator, to_q, *([] if ctx.shifts is None else [ctx.shifts])]
        to_state, state = None, work.for_each_part(state)
        for x, slope, mean, below, out, *shifts in work.tiles(*of_rows):
            f = work.features("f", work.laid("spare", x), *shifts)
            p = _slopes(work, slope, mean, below)
            to_state = work.add_over_tokens(to_state, f, p)
            torch.mul(work.product("spare", p, state.mT), f.clamp_(max=1), out=out)
        to_state = work.whole(to_state)
        to_sums, to_ones = work.for_each_part(to_state[..., :-1]), to_state[..., -1:].mT
        for x, values, out, to_values in work.tiles(k, v, to_k, to_v):
            g = work.features("f", work.laid("spare", x), ctx.shift)
            to_values.copy_(work.product("sums", g, to_sums))
            to_g = work.product("spare", work.laid("sums", values), to_sums.mT)
            torch.mul(to_g.add_(to_ones), g.clamp_(max=1), out=out)
        return to_q, to_k, to_v


class _Work(_linear.Rooms):
    """The tiles, and what is done with one."""

    def __init__(self, q: Tensor):
        super().__init__(q)
        b, h, n, e = q.shape
        self.heads, self.on_cpu = (b, h), _parts.on_cpu(q)
        self.tile = _shares.in_parts(max(LEAST, _parts.tile_elements(q, TILE) // (b * h * e), -(-n // 256)))
        self.parts = _shares.shares(q, min(n, self.tile))  # of a tile, at most

    def tiles(self, *tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
        """The tiles of all tensors [b, h, n, .] side by side, each [parts, b, h, rows, .]."""
        for pieces in _parts.pieces(self.tile, 2, *tensors):
            parts = _shares.shares(pieces[0], pieces[0].shape[2])
            if parts == 1:
                yield tuple(x.unsqueeze(0) for x in pieces)
            else:
                yield tuple(x.unflatten(2, (parts, -1)).movedim(2, 0) for x in pieces)

    def laid(self, name: str, x: Tensor) -> Tensor:
        """x [parts, b, h, rows, .] in one piece, if there are several."""
        return self.room(name, *x.shape).copy_(x) if len(x) > 1 else x.to(self.dtype)

    def for_each_part(self, x: Tensor) -> Tensor:
        """x [b, h, ., .] as often as there are parts, [parts b h, ., .]."""
        return _parts.spread(x.flatten(0, 1), self.parts * math.prod(self.heads))

    def whole(self, sums: Tensor) -> Tensor:
        """The sum over the parts, [b, h, ., .]."""
        sums = sums.unflatten(0, (-1, *self.heads))
        return sums.squeeze(0) if len(sums) == 1 else sums.sum(0)

    def product(self, name: str, f: Tensor, state: Tensor) -> Tensor:
        """f [parts, b, h, rows, .] times what was made ``for_each_part``."""
        out, f = self.room(name, *f.shape[:-1], state.shape[-1]), f.flatten(0, 2)
        products.bmm(f, state[: len(f)], out=out.flatten(0, 2))
        return out

    def add_over_tokens(self, total: Tensor | None, f: Tensor, p: Tensor) -> Tensor:
        """f^T p, of f and p [parts, b, h, rows, .], added to ``total`` if there is one.

        On a GPU by parts of the tokens: a product with a small result and a long sum leaves most of it idle.
        """
        f, p = f.flatten(0, 2), p.flatten(0, 2)
        parts = 1 if self.on_cpu else f.shape[1] // PART
        whole = parts * PART if parts > 1 else 0
        if whole:
            f_parts, p_parts = (x[:, :whole].unflatten(1, (parts, -1)).flatten(0, 1) for x in (f, p))
            own = products.bmm(f_parts.mT, p_parts).unflatten(0, (-1, parts)).sum(1)
            total = own if total is None else total.add_(own)
        if whole < f.shape[1]:
            if total is None:
                return products.bmm(f.mT, p)
            products.baddbmm_(total[: len(f)], f[:, whole:].mT, p[:, whole:])
        return total


def _state(work: _Work, k: Tensor, v: Tensor, shift: Tensor | None) -> Tensor:
    """The sum of g^T [v, 1] over all tiles, [b, h, e, .]."""
    total = ones = None
    for keys, values in work.tiles(k, v):
        g = work.features("f", work.laid("spare", keys), shift)
        total = work.add_over_tokens(total, g, work.laid("sums", values))
        own = g.flatten(0, 2).sum(1, keepdim=True)
        if ones is None:
            ones = own
        else:
            ones[: len(own)].add_(own)
    return work.whole(torch.cat([total, ones.mT], -1))


def _rows(work: _Work, q: Tensor, v: Tensor, shifts: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """y and the denominators."""
    y, state = torch.empty_like(v), work.for_each_part(state)
    denominator = y.new_empty(*y.shape[:-1], 1, dtype=work.dtype)
    for x, out, below, *shift in work.tiles(q, y, denominator, *([] if shifts is None else [shifts])):
        total = work.product("sums", work.features("f", work.laid("spare", x), *shift), state)
        torch.div(total[..., :-1], below.copy_(total[..., -1:]), out=out)
    return y, denominator


def _shift(x: Tensor, dtype: torch.dtype, dims: int | tuple[int, ...]) -> Tensor:
    """The largest x along ``dims``, if it is negative; else 0."""
    return x.amax(dims, keepdim=True).to(dtype).clamp_(max=0)


def _slopes(work: _Work, grad: Tensor, y: Tensor, denominator: Tensor) -> Tensor:
    """p, the gradient of a tile's numerators and denominators, [parts, b, h, rows, .]."""
    p = work.room("sums", *y.shape[:-1], y.shape[-1] + 1)
    top = torch.div(grad, denominator, out=p[..., :-1])
    along = torch.mul(top, y, out=work.room("spare", *y.shape))
    torch.sum(along, -1, keepdim=True, out=p[..., -1:]).neg_()
    return p
