"""The running average with weights exp(k), AFT-simple's causal form, and its gradient by hand.

By tiles, with the sums of all earlier tiles as the state. With w = exp(k - shift), N and D the running sums
of w v and w, y = g N / D, and p = dy g / D, whose sums over the rows from s on are P and, times N / D, R:

    dv = w P    dk = w (v P - R)

A tile whose shift lies above that of the tile before takes what it carries to the new shift.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from effbench.mechanisms import _gate, _parts

STEPS, STEPS_ELSEWHERE = 16, 128  # rows whose running sums are taken in turn, by many groups at once
TILE = 1 << 20  # elements of a tile: larger ones gain little more


def running_average(q: Tensor, k: Tensor, v: Tensor, gate: _gate.Gate) -> Tensor:
    """gate(q) times the running average of v [b, n, d] with weights exp(k), causal."""
    shifts = _Shifts(k)
    y = _RunningAverage.apply(q, k, v, gate, shifts)

    def exact(batch: Tensor, t: Tensor, channel: Tensor) -> Tensor:
        mean = _parts.average(k[batch, :, channel].to(shifts.dtype), v[batch, :, channel], t)
        return mean * gate(q[batch, t, channel])

    return _parts.rescue(y, shifts.out_of_reach(k), exact, k.shape[1]) if shifts.reached else y


class _Shifts:
    """The tiles, the shift of each [tiles, b, 1, d], and what the keys ask for beyond that."""

    def __init__(self, k: Tensor):
        b, n, d = k.shape
        tile = max(1, _parts.tile_elements(k, TILE) // (b * d), -(-n // 256))
        self.bounds, self.dtype = list(_parts.tiles(n, tile)), _parts.accumulator(k.dtype)
        first, self.move, self.reached = k.detach()[:, :1].to(self.dtype), False, False
        self.shifts = first.expand(len(self.bounds), *first.shape)
        if _parts.occurs(k.detach().amax() - first.amin() >= _parts.STEP):  # else no tile's shift is another
            shifts, rises = _parts.key_shifts(k, tile)
            self.shifts = shifts.unsqueeze(2)
            self.reached = _parts.occurs(rises > _parts.REACH)
            self.move = self.reached or _parts.occurs(self.shifts != self.shifts[:1])

    def out_of_reach(self, k: Tensor) -> Tensor:
        """Where y [b, n, d] is to be computed again."""
        tiles = zip(self.bounds, self.shifts, strict=True)
        return torch.cat([_parts.out_of_reach(k[:, a:b], shift) for (a, b), shift in tiles], 1)


class _RunningAverage(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, gate, shifts):
        work, y = _Work(k, v, shifts), torch.empty_like(q)
        states = [work.start()]
        for i, (a, b) in enumerate(shifts.bounds):
            mean, _, after = work.average(i, states[-1])
            _gate.scale(gate, q[:, a:b], mean, y[:, a:b])
            states.append(after)
        ctx.save_for_backward(q, k, v, *states[:-1])
        ctx.gate, ctx.shifts = gate, shifts
        return y

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad):
        q, k, v, *states = ctx.saved_tensors
        work, later = _Work(k, v, ctx.shifts), torch.zeros_like(states[0])
        to_q, to_k, to_v = (torch.empty_like(x) for x in (q, k, v))
        for i, (a, b) in reversed(list(enumerate(ctx.shifts.bounds))):
            mean, denominator, _ = work.average(i, states[i])
            slope = grad[:, a:b].to(mean.dtype)
            gate, to_q[:, a:b] = _gate.with_slope(ctx.gate, q[:, a:b].to(mean.dtype), slope * mean)
            top = work.room("slopes", b - a)
            p, r = top
            torch.mul(torch.mul(gate, slope, out=p).div_(denominator), mean, out=r)
            rise = work.rise(i)
            if rise is None:
                top[:, :, -1:] += later
            accumulate_(top.flatten(0, 1), reverse=True)
            own = top[:, :, :1].clone()
            to_v[:, a:b], to_k[:, a:b] = _slopes(work.weights(i, work.shifts[i]), v[:, a:b], p, r)
            if rise is None:
                later = own
            else:
                more = _slopes(work.weights(i, work.shifts[i + 1]), v[:, a:b], *later)
                to_v[:, a:b] += more[0]
                to_k[:, a:b] += more[1]
                later = own.addcmul_(later, rise)
        return to_q, to_k, to_v, None, None


def _slopes(weights: Tensor, v: Tensor, p: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of v and k."""
    to_v = weights * p
    return to_v, (to_v * v).sub_(weights.mul_(r))


class _Work:
    """The pieces that forward and backward share; each is overwritten by the next tile's."""

    def __init__(self, k: Tensor, v: Tensor, shifts: _Shifts):
        self.k, self.v, self.bounds, self.shifts = k, v, shifts.bounds, shifts.shifts
        self.move, self.reached = shifts.move, shifts.reached
        self.rooms: dict[str, Tensor] = {}

    def room(self, name: str, rows: int) -> Tensor:
        """[2, b, rows, d], for sums or slopes of numerators and of denominators."""
        if name not in self.rooms:
            b, _, d = self.v.shape
            self.rooms[name] = self.shifts.new_empty(2, b, self.bounds[0][1], d)
        return self.rooms[name][:, :, :rows]

    def start(self) -> Tensor:
        b, _, d = self.v.shape
        return self.shifts.new_zeros(2, b, 1, d)

    def weights(self, i: int, shift: Tensor, out: Tensor | None = None) -> Tensor:
        """exp(k - shift) of a tile; a key out of reach of the shift is not for this tile's rows."""
        a, b = self.bounds[i]
        logits = torch.sub(self.k[:, a:b], shift, out=out)
        return (logits.clamp_(max=_parts.REACH) if self.reached else logits).exp_()

    def rise(self, i: int) -> Tensor | None:
        """What turns sums at the shift of a tile into sums at that of the next one, if any moves."""
        if not self.move or i + 1 == len(self.bounds):
            return None
        return (self.shifts[i] - self.shifts[i + 1]).exp()

    def average(self, i: int, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """N / D and D of a tile, and the sums [2, b, 1, d] before the next one."""
        (a, b), rise = self.bounds[i], self.rise(i)
        sums = self.room("sums", b - a)
        numerator, denominator = sums
        torch.mul(self.weights(i, self.shifts[i], denominator), self.v[:, a:b], out=numerator)
        sums[:, :, :1] += before
        accumulate_(sums.flatten(0, 1))
        after = sums[:, :, -1:].clone()  # a view would keep the whole tile
        if rise is not None:
            # Keys out of reach of this tile's shift are within reach of the next one's, which they moved.
            weights = self.weights(i, self.shifts[i + 1])
            moved = torch.stack([weights * self.v[:, a:b], weights]).sum(2, keepdim=True)
            after = torch.where(rise == 1, after, moved.addcmul_(before, rise))
        return numerator.div_(denominator), denominator, after


def accumulate_(x: Tensor, *, reverse: bool = False) -> Tensor:
    """The running sum along dimension 1 of x [b, rows, c], from the last row on if ``reverse``; in place.

    Within groups of rows, all groups at once, then over the groups' ends, likewise. torch's cumsum along that
    dimension takes ten times as long on a CPU, a product with a triangle of ones three times; on a GPU it has
    only the c columns to share out among its threads.
    """
    rows, size = x.shape[1], STEPS if _parts.on_cpu(x) else STEPS_ELSEWHERE
    whole = rows // size * size
    if whole > size:
        groups = (x[:, rows - whole :] if reverse else x[:, :whole]).unflatten(1, (-1, size))
        _accumulate_each(groups, 2, reverse)
        ends = accumulate_(groups.select(2, 0 if reverse else -1).clone(), reverse=reverse).unsqueeze(2)
        if reverse:
            groups[:, :-1] += ends[:, 1:]
        else:
            groups[:, 1:] += ends[:, :-1]
    rest = x[:, : rows - whole + 1] if reverse else x[:, whole - 1 :]
    _accumulate_each(rest if whole > size else x, 1, reverse)
    return x


def _accumulate_each(x: Tensor, dim: int, reverse: bool) -> None:
    """The running sum along a short dimension: row by row, or where each row would be a launch by cumsum."""
    if not _parts.on_cpu(x):
        x.copy_(x.flip(dim).cumsum(dim).flip(dim) if reverse else x.cumsum(dim))
        return
    rows = x.unbind(dim)
    for before, after in itertools.pairwise(rows[::-1] if reverse else rows):
        after += before
