"""Linear attention where every token sees all: one state for each head, two passes over tiles.

With f = phi(q), g = phi(k) and the state S = sum of g^T [v, 1], a row is [numerator, denominator] = f S. With
p = [dy, -(dy . y)] / denominator the gradients are

    dS = f^T p    df = p S^T    dg = [v, 1] dS^T    dv = g dS without its last column    phi' = min(phi, 1)

What is made of a tile lies token by token, the heads of each side by side. So do q, k and v in a layer: an
operation on all of them is then one run, not one for each head of each token, and the products take heads as
they lie. No shift of a tile is looked for before all are done and a denominator asks for it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _linear, _parts

TILE = 1 << 18  # elements of a tile of q: what is made of it stays in cache
LEAST = 64  # rows of a tile
PART = 512  # tokens of a part of a sum over them, on a GPU
FAINT = 1e-9  # keys whose features all sum to less than this are shifted


class BothWays(torch.autograd.Function):
    """y [b, h, n, e], and which rows [b, h, n, 1] have to be done again: their denominator was lost.

    None where no row can be.
    """

    @staticmethod
    def forward(ctx, q, k, v):
        work, shift = _Work(q, v), None
        state = _state(work, k, v, None)
        if _parts.occurs(state[..., -1].amax(-1) < FAINT):
            shift = k.amax((2, 3), keepdim=True).to(work.dtype).clamp_(max=0)
            state = _state(work, k, v, shift)
        y = torch.empty_like(v)
        denominator = y.new_empty(*y.shape[:-1], 1, dtype=work.dtype)
        for a, b in work.bounds:
            _read(work, a, b, q, None, state, y, denominator)
        low = denominator < _parts.smallest(work.dtype)
        odd = _parts.occurs(low | (denominator == torch.inf))  # one look where all is well
        shifts = _shifts(work, q, low) if odd and _parts.occurs(low) else None
        if shifts is not None:
            for a, b in work.bounds:
                _read(work, a, b, q, shifts, state, y, denominator)
            # A row that is lost all the same gets an infinite denominator, and so no gradient.
            lost = denominator < _parts.smallest(work.dtype)
            denominator.masked_fill_(lost, torch.inf)
            y.masked_fill_(lost, 0)
        ctx.save_for_backward(q, k, v, y, denominator, state)
        ctx.shift, ctx.shifts = shift, shifts
        if not odd:
            return y, None
        bad = denominator == torch.inf
        ctx.mark_non_differentiable(bad)
        return y, bad

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad, _):
        q, k, v, y, denominator, state = ctx.saved_tensors
        work, to_state = _Work(q, v), torch.zeros_like(state)
        to_q, to_k, to_v = (torch.empty_like(x) for x in (q, k, v))
        for a, b in work.bounds:
            f = work.features(q, a, b, _tile(ctx.shifts, a, b))
            p = _slopes(work, a, b, grad, y, denominator)
            _add_over_tokens(to_state.flatten(0, 1), f.flatten(0, 1), p)
            slope = products.bmm(p, state.flatten(0, 1).mT, out=work.spare(b - a).flatten(0, 1))
            torch.mul(slope.view_as(f), f.clamp_(max=1), out=to_q[:, :, a:b])
        to_sums, to_ones = to_state.split([v.shape[-1], 1], -1)
        for a, b in work.bounds:
            g = work.features(k, a, b, ctx.shift)
            to_v[:, :, a:b] = products.bmm(g.flatten(0, 1), to_sums.flatten(0, 1)).view(to_v[:, :, a:b].shape)
            slope = products.bmm(
                v[:, :, a:b].to(work.dtype).flatten(0, 1),
                to_sums.flatten(0, 1).mT,
                out=work.spare(b - a).flatten(0, 1),
            )
            torch.mul(slope.view_as(g).add_(to_ones.mT), g.clamp_(max=1), out=to_k[:, :, a:b])
        return to_q, to_k, to_v


class _Work:
    """The tiles, and the rooms that each of them uses again."""

    def __init__(self, q: Tensor, v: Tensor):
        b, h, n, e = q.shape
        self.dtype = _parts.accumulator(q.dtype)
        tile = max(LEAST, _parts.tile_elements(q, TILE) // (b * h * e), -(-n // 256))
        self.bounds = list(_parts.tiles(n, tile))
        self.rooms = q.new_empty(2, min(n, tile), b, h, e, dtype=self.dtype).movedim(1, 3)
        self.sums = q.new_empty(b * h * min(n, tile) * (v.shape[-1] + 1), dtype=self.dtype)

    def spare(self, rows: int) -> Tensor:
        """A second room for what is made of a tile, [b, h, rows, e]."""
        return self.rooms[1, :, :, :rows]

    def both(self, rows: int) -> Tensor:
        """A room for numerators and denominators, or their slopes, [b h, rows, .]."""
        b, h, longest, _ = self.rooms.shape[1:]
        return self.sums[: self.sums.numel() // longest * rows].view(b * h, rows, -1)

    def features(self, x: Tensor, a: int, b: int, shift: Tensor | None) -> Tensor:
        rows = b - a
        return _linear.features(
            x[:, :, a:b].to(self.dtype), shift, self.rooms[0, :, :, :rows], self.spare(rows)
        )


def _state(work: _Work, k: Tensor, v: Tensor, shift: Tensor | None) -> Tensor:
    """The sum of g^T [v, 1] over all tiles, [b, h, e, .]."""
    b, h, _, e = k.shape
    total = v.new_zeros(b * h, e, v.shape[-1], dtype=work.dtype)
    ones = total.new_zeros(b * h, e)
    for start, stop in work.bounds:
        g = work.features(k, start, stop, shift).flatten(0, 1)
        ones += g.sum(1)
        _add_over_tokens(total, g, v[:, :, start:stop].to(work.dtype).flatten(0, 1))
    return torch.cat([total, ones.unsqueeze(-1)], -1).unflatten(0, (b, h))


def _add_over_tokens(total: Tensor, f: Tensor, p: Tensor) -> None:
    """total += f^T p, for f [b h, rows, e] and p [b h, rows, .].

    On a GPU by parts of the tokens: a product with a small result and a long sum leaves most of it idle.
    """
    parts = 1 if _parts.on_cpu(f) else f.shape[1] // PART
    whole = parts * PART if parts > 1 else 0
    if whole:
        f_parts, p_parts = (x[:, :whole].unflatten(1, (parts, -1)).flatten(0, 1) for x in (f, p))
        total += products.bmm(f_parts.mT, p_parts).unflatten(0, (-1, parts)).sum(1)
    if whole < f.shape[1]:
        products.baddbmm_(total, f[:, whole:].mT, p[:, whole:])


def _read(
    work: _Work,
    a: int,
    b: int,
    q: Tensor,
    shifts: Tensor | None,
    state: Tensor,
    y: Tensor,
    denominator: Tensor,
) -> None:
    """Write tokens a to b of y and of the denominators."""
    f = work.features(q, a, b, _tile(shifts, a, b)).flatten(0, 1)
    total = products.bmm(f, state.flatten(0, 1), out=work.both(b - a)).view(*y.shape[:2], b - a, -1)
    below = total[..., -1:]
    denominator[:, :, a:b] = below
    torch.div(total[..., :-1], below, out=y[:, :, a:b])


def _shifts(work: _Work, q: Tensor, low: Tensor) -> Tensor:
    """For rows whose denominators were too ``low``: their largest query, if it is negative; else 0."""
    return q.amax(-1, keepdim=True).to(work.dtype).clamp_(max=0).masked_fill_(~low, 0)


def _tile(shifts: Tensor | None, a: int, b: int) -> Tensor | None:
    return None if shifts is None else shifts[:, :, a:b]


def _slopes(work: _Work, a: int, b: int, grad: Tensor, y: Tensor, denominator: Tensor) -> Tensor:
    """p, the gradient of a tile's numerators and denominators, [b h, rows, .]."""
    p = work.both(b - a)
    parts = p.view(*y.shape[:2], b - a, -1)
    top = torch.div(grad[:, :, a:b], denominator[:, :, a:b], out=parts[..., :-1])
    along = torch.mul(top, y[:, :, a:b], out=work.spare(b - a))
    torch.sum(along, -1, keepdim=True, out=parts[..., -1:]).neg_()
    return p
