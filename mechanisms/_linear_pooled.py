"""Linear attention where every token sees all: one state for each head, two passes over tiles.

With f = phi(q), g = phi(k) and the state S = sum of g^T [v, 1], a row is [numerator, denominator] = f S. With
p = [dy, -(dy . y)] / denominator the gradients are

    dS = f^T p    df = p S^T    dg = [v, 1] dS^T    dv = g dS without its last column    phi' = min(phi, 1)

What is made of a tile lies token by token, the heads of each side by side. So do q, k and v in a layer: an
operation on all of them is then one run, not one for each head of each token, and the products take heads as
they lie. No shift of a tile is looked for before all are done and a denominator asks for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _linear, _parts

TILE = 1 << 18  # elements of a tile of q: what is made of it stays in cache
LEAST = 64  # rows of a tile
PART = 512  # tokens of a part of a sum over them, on a GPU


class BothWays(torch.autograd.Function):
    """y [b, h, n, e], and which rows [b, h, n] have to be done again (their denominator was lost), if any."""

    @staticmethod
    def forward(ctx, q, k, v):
        work = _Work(q, v)
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
        work, to_state = _Work(q, v), None
        to_q, to_k, to_v = (torch.empty_like(x) for x in (q, k, v))
        of_rows = [q, grad, y, denominator, to_q, *([] if ctx.shifts is None else [ctx.shifts])]
        for x, slope, mean, below, out, *shifts in work.tiles(*of_rows):
            f = work.features(x, *shifts)
            p = _slopes(work, slope, mean, below)
            to_state = _add_over_tokens(to_state, f.flatten(0, 1), p)
            slope = products.bmm(p, state.flatten(0, 1).mT, out=work.spare(x.shape[2]).flatten(0, 1))
            torch.mul(slope.view_as(f), f.clamp_(max=1), out=out)
        to_sums, to_ones = to_state.split([v.shape[-1], 1], -1)
        for x, values, out, to_values in work.tiles(k, v, to_k, to_v):
            g = work.features(x, ctx.shift)
            to_values.copy_(products.bmm(g.flatten(0, 1), to_sums).view(values.shape))
            slope = products.bmm(
                values.to(work.dtype).flatten(0, 1),
                to_sums.mT,
                out=work.spare(x.shape[2]).flatten(0, 1),
            )
            torch.mul(slope.view_as(g).add_(to_ones.mT.view(*g.shape[:2], 1, -1)), g.clamp_(max=1), out=out)
        return to_q, to_k, to_v


class _Work:
    """The tiles, and the rooms that each of them uses again."""

    def __init__(self, q: Tensor, v: Tensor):
        b, h, n, e = q.shape
        self.dtype = _parts.accumulator(q.dtype)
        self.tile = max(LEAST, _parts.tile_elements(q, TILE) // (b * h * e), -(-n // 256))
        longest = min(n, self.tile)
        self.rooms = q.new_empty(2, longest, b, h, e, dtype=self.dtype).movedim(1, 3).unbind(0)
        self.sums = q.new_empty(b * h * longest * (v.shape[-1] + 1), dtype=self.dtype)

    def tiles(self, *tensors: Tensor) -> Iterable[tuple[Tensor, ...]]:
        """The tiles of all tensors [b, h, n, .], side by side."""
        return _parts.pieces(self.tile, 2, *tensors)

    def room(self, i: int, rows: int) -> Tensor:
        """For what is made of a tile, [b, h, rows, e]."""
        return self.rooms[i] if rows == self.rooms[i].shape[2] else self.rooms[i][:, :, :rows]

    def spare(self, rows: int) -> Tensor:
        return self.room(1, rows)

    def both(self, rows: int) -> Tensor:
        """A room for numerators and denominators, or their slopes, [b h, rows, .]."""
        b, h, longest, _ = self.rooms[0].shape
        return self.sums[: self.sums.numel() // longest * rows].view(b * h, rows, -1)

    def features(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """Those of a tile of q or k."""
        rows = x.shape[2]
        return _linear.features(x.to(self.dtype), shift, self.room(0, rows), self.spare(rows))


def _state(work: _Work, k: Tensor, v: Tensor, shift: Tensor | None) -> Tensor:
    """The sum of g^T [v, 1] over all tiles, [b, h, e, .]."""
    total = ones = None
    for keys, values in work.tiles(k, v):
        g = work.features(keys, shift).flatten(0, 1)
        own = g.sum(1)
        ones = own if ones is None else ones.add_(own)
        total = _add_over_tokens(total, g, values.to(work.dtype).flatten(0, 1))
    return torch.cat([total, ones.unsqueeze(-1)], -1).unflatten(0, k.shape[:2])


def _add_over_tokens(total: Tensor | None, f: Tensor, p: Tensor) -> Tensor:
    """f^T p added to ``total``, if there is one, for f [b h, rows, e] and p [b h, rows, .].

    On a GPU by parts of the tokens: a product with a small result and a long sum leaves most of it idle.
    """
    parts = 1 if _parts.on_cpu(f) else f.shape[1] // PART
    whole = parts * PART if parts > 1 else 0
    if whole:
        f_parts, p_parts = (x[:, :whole].unflatten(1, (parts, -1)).flatten(0, 1) for x in (f, p))
        own = products.bmm(f_parts.mT, p_parts).unflatten(0, (-1, parts)).sum(1)
        total = own if total is None else total.add_(own)
    if whole < f.shape[1]:
        if total is None:
            return products.bmm(f.mT, p)
        products.baddbmm_(total, f[:, whole:].mT, p[:, whole:])
    return total


def _rows(work: _Work, q: Tensor, v: Tensor, shifts: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """y and the denominators."""
    y = torch.empty_like(v)
    denominator = y.new_empty(*y.shape[:-1], 1, dtype=work.dtype)
    for x, out, below, *shift in work.tiles(q, y, denominator, *([] if shifts is None else [shifts])):
        f = work.features(x, *shift).flatten(0, 1)
        total = products.bmm(f, state.flatten(0, 1), out=work.both(x.shape[2])).view(*x.shape[:3], -1)
        torch.div(total[..., :-1], below.copy_(total[..., -1:]), out=out)
    return y, denominator


def _shift(x: Tensor, dtype: torch.dtype, dims: int | tuple[int, ...]) -> Tensor:
    """The largest x along ``dims``, if it is negative; else 0."""
    return x.amax(dims, keepdim=True).to(dtype).clamp_(max=0)


def _slopes(work: _Work, grad: Tensor, y: Tensor, denominator: Tensor) -> Tensor:
    """p, the gradient of a tile's numerators and denominators, [b h, rows, .]."""
    rows = y.shape[2]
    p = work.both(rows)
    parts = p.view(*y.shape[:3], -1)
    top = torch.div(grad, denominator, out=parts[..., :-1])
    along = torch.mul(top, y, out=work.spare(rows))
    torch.sum(along, -1, keepdim=True, out=parts[..., -1:]).neg_()
    return p
