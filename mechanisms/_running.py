"""The running average with weights exp(k), AFT-simple's causal form, and its gradient by hand.

By tiles, with the sums of all earlier tiles as the state. With w = exp(k - shift), N and D the running sums
of w v and w, y = g N / D, and p = dy g / D, whose sums over the rows from s on are P and, times N / D, R:

    dv = w P    dk = w (v P - R)

A tile whose shift lies above that of the tile before takes what it carries to the new shift. Keys out of
reach of their own tile's shift are added by levels (``_levels``).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from effbench.mechanisms import _gate, _levels, _parts, _scan

TILE = 1 << 20  # elements of a tile: larger ones gain little more
COLUMNS = 64  # of a tile whose levels are looked at at once: what that takes is little beside the tile


def running_average(q: Tensor, k: Tensor, v: Tensor, gate: _gate.Gate) -> Tensor:
    """gate(q) times the running average of v [b, n, d] with weights exp(k), causal."""
    return _RunningAverage.apply(q, k, v, gate, _Shifts(k))


class _Shifts:
    """The tiles, the shift of each [tiles, b, 1, d], and what the keys ask for beyond that."""

    def __init__(self, k: Tensor):
        b, n, d = k.shape
        tile = max(1, _parts.tile_elements(k, TILE) // (b * d), -(-n // 256))
        self.bounds, self.dtype = list(_parts.tiles(n, tile)), _parts.accumulator(k.dtype)
        first, self.move, self.reached = k.detach()[:, :1].to(self.dtype), False, [False] * len(self.bounds)
        self.shifts = first.expand(len(self.bounds), *first.shape)
        low, high = k.detach().aminmax()
        self.faint = _parts.occurs(high - low >= -_parts.faintest(self.dtype))
        if _parts.occurs(high - first.amin() >= _parts.STEP):  # else no tile's shift is another
            shifts, rises = _parts.key_shifts(k, tile)
            self.shifts = shifts.unsqueeze(2)
            self.lasts = _levels.levels(rises).unsqueeze(2)  # of the last rows
            self.reached = (self.lasts > 0).flatten(1).any(1).tolist()
            self.move = _parts.occurs(self.shifts != self.shifts[:1])


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
            torch.mul(torch.mul(gate, slope, out=top[0]).div_(denominator), mean, out=top[1])
            later = work.back(i, top, later, to_k[:, a:b], to_v[:, a:b])
        return to_q, to_k, to_v, None, None


class _Work:
    """The pieces that forward and backward share; each is overwritten by the next tile's."""

    def __init__(self, k: Tensor, v: Tensor, shifts: _Shifts):
        self.k, self.v, self.bounds, self.shifts, self.keys = k, v, shifts.bounds, shifts.shifts, shifts
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

    def weights(self, i: int, out: Tensor | None = None) -> Tensor:
        """exp(k - shift) of the keys of a tile that are in reach of its shift, next to nothing of others."""
        a, b = self.bounds[i]
        faintest = _parts.faintest(self.shifts.dtype)
        logits = torch.sub(self.k[:, a:b], self.shifts[i], out=out)
        if self.keys.reached[i]:
            logits.masked_fill_(logits > _parts.REACH, faintest)
        return (logits.clamp_(min=faintest) if self.keys.faint else logits).exp_()

    def levels(self, i: int) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Some columns of a tile at a time, of those that have keys out of reach of its shift.

        With exp(k - shift - J) and J [b, rows, columns], the highest level that a row has seen.
        """
        (a, b), d = self.bounds[i], self.v.shape[2]
        for start, stop in _parts.tiles(d, COLUMNS) if self.keys.reached[i] else ():
            some = slice(start, stop)
            if _parts.occurs(self.keys.lasts[i][..., some] > 0):
                rises = self.k[:, a:b, some] - self.shifts[i][..., some]
                tops = _levels.tops(rises)
                yield some, rises.sub_(tops).clamp_(min=_parts.faintest(rises.dtype)).exp_(), tops

    def rise(self, i: int) -> Tensor | None:
        """What turns sums at the end of a tile into sums at the shift of the next one, if any moves."""
        if not self.keys.move or i + 1 == len(self.bounds):
            return None
        return (self.shifts[i] + self.keys.lasts[i] - self.shifts[i + 1]).exp_()

    def average(self, i: int, before: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """N / D and D of a tile, and the sums [2, b, 1, d] before the next one."""
        a, b = self.bounds[i]
        sums = self.room("sums", b - a)
        numerator, denominator = sums
        torch.mul(self.weights(i, denominator), self.v[:, a:b], out=numerator)
        sums[:, :, :1] += before
        _scan.accumulate_(sums.flatten(0, 1))
        for some, weights, tops in self.levels(i):
            own = torch.empty_like(sums[..., some])
            torch.mul(weights, self.v[:, a:b, some], out=own[0])
            own[1] = weights
            own[:, :, :1] += before[..., some]
            _levels.accumulate_(own, tops)
            sums[..., some] = torch.where(tops > 0, own, sums[..., some])
        after, rise = sums[:, :, -1:].clone(), self.rise(i)  # a view would keep the whole tile
        return numerator.div_(denominator), denominator, after if rise is None else after.mul_(rise)

    def back(self, i: int, slopes: Tensor, later: Tensor, to_k: Tensor, to_v: Tensor) -> Tensor:
        """Fill the gradients of a tile's keys and values; give the slopes' sum before it, as ``later``.

        slopes: P and R's terms, in the units of each row's sums; ``later`` their sum over later tiles. They
        are overwritten.
        """
        (a, b), rise = self.bounds[i], self.rise(i)
        slopes[:, :, -1:] += later if rise is None else later * rise
        found = []
        for some, weights, tops in self.levels(i):
            own = _levels.accumulate_(slopes[..., some].clone(), tops, reverse=True)
            found.append((some, own[:, :, :1].clone(), _slopes(weights, self.v[:, a:b, some], *own)))
        _scan.accumulate_(slopes.flatten(0, 1), reverse=True)
        to_v[:], to_k[:] = _slopes(self.weights(i), self.v[:, a:b], *slopes)
        before = slopes[:, :, :1].clone()
        for some, earlier, gradients in found:
            before[..., some], (to_v[..., some], to_k[..., some]) = earlier, gradients
        return before


def _slopes(weights: Tensor, v: Tensor, p: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of v and k; the weights are overwritten."""
    to_v = weights * p
    return to_v, (to_v * v).sub_(weights.mul_(r))
