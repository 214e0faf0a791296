"""AFT-conv along a line: a depth-wise convolution (``_taps``), a chunk of tokens at a time, memory n d.

[exp(k) v, exp(k)] of the keys that a chunk of rows reaches is made in a buffer; row t adds up taps times the
s rows of the buffer that begin at its own. Not causal, the taps are exp(w) - 1 and what all tokens share is
pooled once; a row is trusted where its denominator keeps at least ``KEPT`` of the pooled one (as in
``_plane``). Causal, where early rows would often cancel, the taps are exp(w), and the keys before a row's
window are a running sum: every term is positive.

``c = d + h`` columns: the values' and then the denominators'. Windows start ``left`` keys before their row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effbench.mechanisms import _gate, _parts, _scan, _shares, _taps

CHUNK = 1 << 20  # elements of a chunk's values: smaller ones, in cache, took longer for their many steps
KEPT = 0.125


class Line(torch.autograd.Function):
    """q k v, kernel and gate of aft_conv: y [b, n, d], and bad [b, n, h] where it is to be computed again."""

    @staticmethod
    def forward(ctx, q, k, v, kernel, causal, gate):
        work = _Work(k, v, kernel, causal)
        y, bad = torch.empty_like(v), torch.empty_like(k, dtype=torch.bool)
        means = torch.empty_like(v) if _gate.needs_mean(gate) else None
        denominators = torch.empty_like(k, dtype=work.wide)
        only = work.keys(0) if len(work.bounds) == 1 else None  # packed once for all that asks for it
        far = work.start() if causal else work.pooled(only) * work.outside
        inputs = [q, k, y, denominators, bad, *([] if means is None else [means])]
        for i, (queries, own, out, below, flags, *kept) in enumerate(_parts.pieces(work.chunk, 1, *inputs)):
            keys = work.keys(i) if only is None else only
            sums = work.running(keys, far) if causal else None
            total = work.near(keys, far if sums is None else sums[:, :-1] * work.outside)
            total, denominator = total.split([v.shape[2], k.shape[2]], 2)
            if causal:
                torch.lt(denominator, _parts.smallest(work.wide), out=flags)
                if work.reached:
                    flags |= _parts.out_of_reach(own, work.shifts[i])
                far = work.advance(i, far, sums[:, -1:].clone())
            else:
                least = (far[:, :, v.shape[2] :] * KEPT).clamp_(min=_parts.smallest(work.wide))
                torch.lt(denominator, least, out=flags)
            below.copy_(denominator).masked_fill_(flags, torch.inf)  # then these rows get no gradient here
            mean = work.split(total).div_(below.unsqueeze(3)).flatten(2)
            _gate.scale(gate, queries, mean, out)
            for room in kept:
                room.copy_(mean)
        ctx.save_for_backward(q, k, v, kernel, y if means is None else means, denominators)
        ctx.causal, ctx.gate = causal, gate
        ctx.mark_non_differentiable(bad)
        return y, bad

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad, _):
        q, k, v, kernel, kept, denominators = ctx.saved_tensors
        work = _Work(k, v, kernel, ctx.causal)
        to_q, to_k, to_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        slopes = [_slopes(work, ctx.gate, a, b, grad, q, kept, denominators, to_q) for a, b in work.bounds]
        far = _far_rows(work, slopes)
        to_taps = torch.zeros_like(work.taps)
        for i, slope in enumerate(slopes):
            keys = work.keys(i)
            found, part = _taps.gradients(slope, keys, work.taps, ctx.needs_input_grad[3])
            if part is not None:
                to_taps += part
            _key_gradients(work, i, keys, found, slope, far[i], to_k, to_v)
        return to_q, to_k, to_v, work.to_kernel(to_taps).to(kernel.dtype), None, None


def flops(b: int, n: int, d: int, h: int, s: int, *, train: bool) -> int:
    """FLOPs of the taps: forward; and backward of keys and of taps."""
    return 2 * b * n * s * (d + h) * (3 if train else 1)


class _Work:
    """The pieces that forward and backward share."""

    def __init__(self, k: Tensor, v: Tensor, kernel: Tensor, causal: bool):
        (batch, n, self.heads), s = k.shape, kernel.shape[1]
        self.k, self.v, self.causal, self.n, self.halo = k, v, causal, n, s - 1
        self.left, self.wide = s - 1 if causal else s // 2, _parts.accumulator(v.dtype)
        self.chunk = max(_parts.tile_elements(v, CHUNK) // max(1, batch * v.shape[2]), -(-n // 256), s)
        self.bounds = list(_parts.tiles(n, self.chunk))
        self.columns = v.shape[2] + self.heads
        longest = min(n, self.bounds[0][1]) + self.halo
        self.keys_space = v.new_empty(batch, longest, self.columns, dtype=self.wide)
        base = kernel.amax(1).clamp(min=0).to(self.wide)  # exp(w) is divided by exp(base)
        outside, kernel = (-base).exp_(), kernel.to(self.wide)
        taps = self.exponentials = (kernel - base[:, None]).exp_()
        if not causal:
            small, large = kernel.expm1().mul_(outside[:, None]), taps - outside[:, None]
            taps = torch.where(kernel > 1, large, small)  # where expm1 might overflow
        wide = self.widened(torch.cat([taps.t(), outside[None]]))
        self.taps, self.outside = wide[:-1], wide[-1]  # [s, c], [c]
        self.shifts, self.reached = self._shifts()
        self.moved = None
        if causal and len(self.bounds) > 1:
            moved = self.shifts[1:] != self.shifts[:-1]
            self.moved = list(moved.unbind(0)) if _parts.occurs(moved) else None

    def _shifts(self) -> tuple[Tensor, bool]:
        """[chunks, b, 1, h], and whether a key is out of their reach."""
        if self.causal:
            shifts, rises = _parts.key_shifts(self.k, self.bounds[0][1])
            return shifts.unsqueeze(2), _parts.occurs(rises > _parts.REACH)
        top = self.k.amax(1, keepdim=True).to(self.wide)
        return top.expand(len(self.bounds), *top.shape), False

    def widened(self, x: Tensor) -> Tensor:
        """[..., h] -> [..., c]: to every column what belongs to its head."""
        e = self.v.shape[2] // self.heads
        return torch.cat([x.repeat_interleave(e, -1), x], -1)

    def split(self, x: Tensor) -> Tensor:
        """[b, n, d] -> [b, n, h, e]."""
        return x.unflatten(2, (self.heads, -1))

    def keys_of(self, i: int) -> tuple[int, int, int]:
        """(first, start, stop): the windows of chunk i begin at ``first`` and hold keys start to stop."""
        a, b = self.bounds[i]
        return a - self.left, max(0, a - self.left), min(self.n, b - self.left + self.halo)

    def keys(self, i: int, shift: Tensor | None = None) -> Tensor:
        """[exp(k) v, exp(k)] of the windows of chunk i, [b, keys, c], 0 out of the sequence; a buffer."""
        (first, a, b), (start, stop) = self.keys_of(i), self.bounds[i]
        out = self.keys_space[:, : stop - start + self.halo]
        for edge in (out[:, : a - first], out[:, b - first :]):
            if edge.shape[1]:
                edge.zero_()
        self._pack(a, b, self.shifts[i] if shift is None else shift, out[:, a - first : b - first])
        return out

    def _pack(self, a: int, b: int, shift: Tensor, out: Tensor) -> Tensor:
        values, weights = out.split([self.v.shape[2], self.heads], 2)
        weights.copy_(_parts.exp_keys(self.k[:, a:b], shift))  # where they lie, exp takes four times as long
        torch.mul(weights.unsqueeze(3), self.split(self.v[:, a:b]), out=self.split(values))
        return out

    def pooled(self, only: Tensor | None) -> Tensor:
        """The sums over all keys, [b, 1, c]; ``only`` are those of the one chunk, if there is one."""
        if only is not None:
            return _shares.joined(_shares.add_over_tokens(None, only))
        total = None
        for i, (a, b) in enumerate(self.bounds):
            keys = self._pack(a, b, self.shifts[i], self.keys_space[:, : b - a])
            total = _shares.add_over_tokens(total, keys)
        return _shares.joined(total)

    def start(self) -> Tensor:
        return self.shifts.new_zeros(len(self.k), 1, self.columns)

    def near(self, keys: Tensor, base: Tensor) -> Tensor:
        """``base`` [b, rows or 1, c] and the taps of each row's window, [b, rows, c]."""
        return _taps.convolve(keys, self.taps, base)

    def running(self, keys: Tensor, before: Tensor) -> Tensor:
        """The sums over the keys before each row's window, and at last before the next chunk's first."""
        return _scan.accumulate_(torch.cat([before, keys[:, : keys.shape[1] - self.halo]], 1))

    def advance(self, i: int, before: Tensor, after: Tensor) -> Tensor:
        """The sums over the keys before the windows of chunk i + 1, as that chunk's shift has them."""
        if self.moved is None or i + 1 == len(self.bounds):
            return after
        # Keys out of reach of this chunk's shift are within reach of the next one's, which they moved.
        scale = self.widened((self.shifts[i] - self.shifts[i + 1]).exp())
        again = before * scale + self.moved_keys(i).sum(1, keepdim=True)
        return torch.where(self.widened(self.moved[i]), again, after)

    def moved_keys(self, i: int) -> Tensor:
        """What chunk i adds to the running sum, as the next chunk's shift has it; the same buffer."""
        keys = self.keys(i, self.shifts[i + 1])
        return keys[:, : keys.shape[1] - self.halo]

    def to_kernel(self, to_taps: Tensor) -> Tensor:
        """The gradient of the kernel [h, s] from that of the taps [s, c]."""
        values, weights = to_taps.split([self.v.shape[2], self.heads], 1)
        return (values.unflatten(1, (self.heads, -1)).sum(2) + weights).t() * self.exponentials


def _slopes(
    work: _Work,
    gate: _gate.Gate,
    a: int,
    b: int,
    grad: Tensor,
    q: Tensor,
    kept: Tensor,
    denominators: Tensor,
    to_q: Tensor,
) -> Tensor:
    """The gradient of a chunk's sums, [b, rows, c]; ``kept`` is what _gate.backward asks for."""
    top = grad[:, a:b].to(work.wide)
    gated, through, to_q[:, a:b] = _gate.backward(gate, q[:, a:b].to(work.wide), top, kept[:, a:b])
    slope = top.new_empty(*top.shape[:2], work.columns)
    values, weights = slope.split([top.shape[2], work.heads], 2)
    torch.mul(top, gated, out=values)
    work.split(values).div_(denominators[:, a:b].unsqueeze(3))
    weights.copy_(work.split(through).sum(3).neg_().div_(denominators[:, a:b]))
    return slope


def _far_rows(work: _Work, slopes: list[Tensor]) -> list[tuple[Tensor, Tensor | None]]:
    """For every chunk what the rows of others mean for its keys, [b, 1, c].

    Not causal, all rows mean the same for all keys. Causal, the later chunks' rows; where the shift moves
    after a chunk, those count its keys as of the next shift, and come second.
    """
    if not work.causal:
        pooled = sum(slope.sum(1, keepdim=True) for slope in slopes) * work.outside
        return [(pooled, None)] * len(slopes)
    found: list[tuple[Tensor, Tensor | None]] = []
    after = work.start()
    for i in reversed(range(len(slopes))):
        near, moved_part = after, None
        if work.moved is not None and i + 1 < len(slopes):
            moved = work.widened(work.moved[i])
            near, moved_part = after.masked_fill(moved, 0.0), after.masked_fill(~moved, 0.0)
            after = after * work.widened((work.shifts[i] - work.shifts[i + 1]).exp())
        found.append((near, moved_part))
        after = after + (slopes[i] * work.outside).sum(1, keepdim=True)
    return found[::-1]


def _key_gradients(
    work: _Work,
    i: int,
    keys: Tensor,
    found: Tensor,
    slope: Tensor,
    far: tuple[Tensor, Tensor | None],
    to_k: Tensor,
    to_v: Tensor,
) -> None:
    """Add what the sums of chunk i mean for its windows' keys and values: ``found`` through the taps."""
    rows, width = slope.shape[1], to_v.shape[2]
    if work.causal:  # the rows of this chunk whose windows begin after the key, and the later chunks'
        found[:, : rows - 1] += _scan.accumulate_(slope.flip(1))[:, :-1].flip(1) * work.outside
    own = 0 if work.causal else work.left  # where the keys begin that this chunk, and no other, counts as far
    found[:, own : own + rows] += far[0]
    value = (work.split(found[:, :, :width]) * keys[:, :, width:].unsqueeze(3)).flatten(2)
    key = found.mul_(keys)
    if far[1] is not None:
        again = work.moved_keys(i)
        value[:, :rows] += (work.split(far[1][:, :, :width]) * again[:, :, width:].unsqueeze(3)).flatten(2)
        key[:, :rows] += far[1] * again
    key = work.split(key[:, :, :width]).sum(3) + key[:, :, width:]
    first, a, b = work.keys_of(i)
    seam = 0 if i == 0 else first + work.halo  # the chunk before has written the keys up to here
    for target, x in ((to_v, value), (to_k, key)):
        x = x[:, a - first : b - first]
        if seam > a:
            target[:, a:seam] += x[:, : seam - a]
        target[:, max(a, seam) : b] = x[:, max(0, seam - a) :]
