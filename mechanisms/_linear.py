"""Causal linear attention's kernel: by tiles whose buffers are used again, and the gradient by hand.

With f = phi(q), g = phi(k), u = [v, 1] and the state S = sum of g^T u, a row is
[numerator, denominator] = f S. With p = [dy, -(dy . y)] / denominator the gradients are

    dS = f^T p    df = p S^T    dg = u dS^T    dv = g dS without its last column    phi' = min(phi, 1)

S moves from chunk to chunk, and the pairs within a chunk are a masked product. A tile is seen as
[chunks, b, h, rows, .]. The form in which every token sees all is ``_linear_pooled``.

Shifts keep features from underflow: phi(x) exp(-shift), where the shift is that of a row of q or of all the
keys of a head, and not positive. A decision about a row looks only at tokens that the row sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts, _scan

CHUNK = 64  # tokens whose pairs are computed one by one
TILE = 1 << 18  # elements of a tile of q: what is made of it stays in cache
TILES = 4  # on a GPU: what is made of one takes seven times its memory
LOW, LOWEST = -16.0, -40.0  # keys are shifted if the first one lies below LOW, and not below LOWEST


def tile_bounds(q: Tensor) -> list[tuple[int, int]]:
    """(start, stop) of each tile; they hold whole chunks, and what remains is a tile of one chunk."""
    n, columns = q.shape[2], q.shape[:2].numel() * q.shape[3]
    size = max(
        CHUNK,
        _parts.tile_elements(q, TILE, TILES) // columns // CHUNK * CHUNK,
        -(-n // 256) // CHUNK * CHUNK,
    )
    whole = n - n % CHUNK
    return [*_parts.tiles(whole, size), *([(whole, n)] if whole < n else [])]


def pairs(n: int) -> int:
    """How many pairs of tokens the chunks hold."""
    return n // CHUNK * CHUNK**2 + (n % CHUNK) ** 2


def visible_pairs(n: int) -> int:
    """Those of them that are not of the future."""
    return (pairs(n) + n) // 2


class Rooms:
    """Memory by name for what is made of a tile; each is overwritten by the next tile's."""

    def __init__(self, like: Tensor):
        self.dtype = _parts.accumulator(like.dtype)
        self.like, self._rooms = like, dict[str, Tensor]()

    def room(self, name: str, *shape: int) -> Tensor:
        size = torch.Size(shape).numel()
        if name not in self._rooms or self._rooms[name].numel() < size:
            self._rooms[name] = self.like.new_empty(size, dtype=self.dtype)
        room = self._rooms[name]
        return (room if room.numel() == size else room[:size]).view(shape)

    def features(self, name: str, x: Tensor, shift: Tensor | None = None) -> Tensor:
        """elu(x) + 1 without its cancellation, divided by exp(shift); to the bit the same where that is 0."""
        x, f = x.to(self.dtype), self.room(name, *x.shape)
        # elu's gradient: the slope that it is given where x > 0, and exp(x) of it elsewhere.
        torch.clamp(x, min=0, out=f).add_(1)
        torch.ops.aten.elu_backward.grad_input(f, 1, 1, 1, False, x, grad_input=f)
        if shift is None:
            return f
        # Where its factor is not exp(-shift), no x is positive.
        high = x.clamp(min=0).mul_((-shift).clamp(max=80).exp())
        return torch.where(shift == 0, f, x.clamp(max=0).sub_(shift).exp_().add_(high), out=f)


class Work(Rooms):
    """The pieces of a tile that forward and backward share."""

    def __init__(self, q: Tensor, k: Tensor, v: Tensor):
        super().__init__(q)
        self.q, self.k, self.v = q, k, v
        self.bounds = tile_bounds(q)

    def chunks(self, x: Tensor, i: int) -> Tensor:
        """A view of tile i of x [b, h, n, .]."""
        a, b = self.bounds[i]
        tile = x if len(self.bounds) == 1 else x[:, :, a:b]
        return tile.unflatten(2, (-1, min(CHUNK, b - a))).movedim(2, 0)

    def product(self, name: str, a: Tensor, b: Tensor) -> Tensor:
        out = self.room(name, *a.shape[:-1], b.shape[-1])
        products.bmm(a.flatten(0, 2), b.flatten(0, 2), out=out.flatten(0, 2))
        return out

    def keys(self, i: int, shift: Tensor | None) -> tuple[Tensor, Tensor]:
        """g and u of a tile."""
        v = self.chunks(self.v, i)
        u = self.room("u", *v.shape[:-1], v.shape[-1] + 1)
        u[..., :-1] = v
        u[..., -1] = 1
        return self.features("g", self.chunks(self.k, i), shift), u

    def start(self) -> Tensor:
        """The sum over no keys, [b, h, e, .]."""
        b, h, _, e = self.q.shape
        return self.q.new_zeros(b, h, e, self.v.shape[-1] + 1, dtype=self.dtype)

    def states(self, start: Tensor, g: Tensor, u: Tensor) -> Tensor:
        """The sums of g^T u before each chunk and, last, after all: [chunks + 1, b, h, e, .]."""
        states = self.room("states", len(g) + 1, *start.shape)
        states[0] = start
        products.bmm(g.mT.flatten(0, 2), u.flatten(0, 2), out=states[1:].flatten(0, 2))
        _scan.accumulate_(states.flatten(1)[None])
        return states

    def later(self, last: Tensor, f: Tensor, p: Tensor) -> Tensor:
        """The sums of f^T p from each chunk on and, last, after all: [chunks + 1, b, h, e, .]."""
        later = self.room("later", len(f) + 1, *last.shape)
        later[-1] = last
        products.bmm(f.mT.flatten(0, 2), p.flatten(0, 2), out=later[:-1].flatten(0, 2))
        _scan.accumulate_(later.flatten(1)[None], reverse=True)
        return later

    def sums(self, f: Tensor, states: Tensor, g: Tensor, u: Tensor) -> Tensor:
        """Numerators and denominators of a tile: from the states before its chunks and the pairs in them."""
        total = self.product("sums", f, states)
        add(total, self.product("pairs", f, g.mT).tril_(), u)
        return total

    def read(self, i: int, states: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, None]:
        """The sums of tile i, without a shift of its rows."""
        return self.sums(self.features("f", self.chunks(self.q, i)), states, g, u), None

    def read_low(self, i: int, states: Tensor, g: Tensor, u: Tensor) -> tuple[Tensor, Tensor | None]:
        """Likewise, and the shift of the rows if there was one to make: where a denominator is too low.

        A row whose denominator is lost all the same gets an infinite one, and so no gradient.
        """
        (total, shift), q = self.read(i, states, g, u), self.chunks(self.q, i)
        low = total[..., -1:] < _parts.smallest(self.dtype)
        if _parts.occurs(low):
            shift = q.amax(-1, keepdim=True).to(self.dtype).clamp_(max=0).masked_fill_(~low, 0)
            total = self.sums(self.features("f", q, shift), states, g, u)
            below = total[..., -1:]
            below.masked_fill_(below < _parts.smallest(self.dtype), torch.inf)
        return total, shift

    def slopes(self, i: int, grad: Tensor, y: Tensor, denominator: Tensor) -> Tensor:
        """p, the gradient of a tile's numerators and denominators."""
        grad, y, denominator = (self.chunks(x, i) for x in (grad, y, denominator))
        p = self.room("p", *y.shape[:-1], y.shape[-1] + 1)
        top = torch.div(grad, denominator, out=p[..., :-1])
        along = torch.mul(top, y, out=self.room("spare", *y.shape))
        torch.sum(along, -1, keepdim=True, out=p[..., -1:]).neg_()
        return p

    def put(self, out: Tensor, i: int, slope: Tensor, f: Tensor, cap: Tensor | float = 1.0) -> None:
        """The gradient of q or k from that of its features, which are overwritten."""
        torch.mul(slope, f.clamp_(max=cap), out=self.chunks(out, i))


def add(total: Tensor, a: Tensor, b: Tensor) -> None:
    products.baddbmm_(total.flatten(0, 2), a.flatten(0, 2), b.flatten(0, 2))


def first_shift(k: Tensor, dtype: torch.dtype) -> Tensor | None:
    """The shift of each head's keys, from the one key that all rows see."""
    top = k[:, :, :1].amax(-1, keepdim=True).to(dtype)
    shifted = top < LOW
    return torch.where(shifted, top.clamp(min=LOWEST), 0.0) if _parts.occurs(shifted) else None


def finish(work: Work, i: int, total: Tensor, y: Tensor, denominator: Tensor) -> None:
    below = total[..., -1:]
    work.chunks(denominator, i).copy_(below)
    torch.div(total[..., :-1], below, out=work.chunks(y, i))


def results(work: Work) -> tuple[Tensor, Tensor]:
    y = torch.empty_like(work.v)
    return y, y.new_empty(*y.shape[:-1], 1, dtype=work.dtype)


def sweep(
    work: Work, shift: Tensor | None, read: Callable[..., Any], y: Tensor, denominator: Tensor
) -> tuple[list[Tensor], list[Tensor | None]]:
    """Write y and the denominators; the state before each tile, and the shift of each one's rows."""
    starts, shifts = [work.start()], []
    for i in range(len(work.bounds)):
        g, u = work.keys(i, shift)
        states = work.states(starts[-1], g, u)
        total, moved = read(i, states[:-1], g, u)
        finish(work, i, total, y, denominator)
        shifts.append(moved)
        if i + 1 < len(work.bounds):
            starts.append(states[-1].clone())
    return starts, shifts


def margin(k: Tensor, denominator: Tensor) -> Tensor:
    """At least ``smallest``, one value, if no first key is shifted and no denominator is too low."""
    first = k[:, :, 0].amax(-1).to(denominator.dtype) - LOW
    return torch.minimum(first.amin(), denominator.amin())


class Causal(torch.autograd.Function):
    """y [b, h, n, e], and which rows [b, h, n] have to be done again (their denominator was lost), if any.

    Whether a shift is called for is looked at once, when all is done. Where it is, all is done again: rows
    that need none come out the same to the bit, so that those which do may be of the future.
    """

    @staticmethod
    def forward(ctx, q, k, v):
        work, shift, bad = Work(q, k, v), None, None
        y, denominator = results(work)
        starts, shifts = sweep(work, None, work.read, y, denominator)
        if _parts.outside(margin(k, denominator), _parts.smallest(work.dtype), math.inf):
            shift = first_shift(k, work.dtype)
            starts, shifts = sweep(work, shift, work.read_low, y, denominator)
            bad = (denominator == torch.inf).squeeze(-1)
            ctx.mark_non_differentiable(bad)
        ctx.save_for_backward(q, k, v, y, denominator, *starts)
        ctx.shift, ctx.shifts = shift, shifts
        return y, bad

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad, _):
        q, k, v, y, denominator, *starts = ctx.saved_tensors
        work, after = Work(q, k, v), torch.zeros_like(starts[0])
        cap = 1.0 if ctx.shift is None else (-ctx.shift).exp()
        to_q, to_k, to_v = (torch.empty_like(x) for x in (q, k, v))
        for i in reversed(range(len(work.bounds))):
            g, u = work.keys(i, ctx.shift)
            f = work.features("f", work.chunks(q, i), ctx.shifts[i])
            p = work.slopes(i, grad, y, denominator)
            to_f = work.product("to f", p, work.states(starts[i], g, u)[:-1].mT)
            later = work.later(after, f, p)
            after = later[0].clone()
            to_g = work.product("to g", u, later[1:].mT)
            values = work.product("values", g, later[1:, ..., :-1])
            slope = work.product("pairs", p, u.mT).tril_()
            add(to_f, slope, g)
            add(to_g, slope.mT, f)
            add(values, work.product("pairs", f, g.mT).tril_().mT, p[..., :-1])
            work.chunks(to_v, i).copy_(values)
            work.put(to_q, i, to_f, f)
            work.put(to_k, i, to_g, g, cap)
        return to_q, to_k, to_v
