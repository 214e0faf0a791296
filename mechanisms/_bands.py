"""AFT-conv along a line: products with a band of exp(w), by chunks of tokens, with memory linear in n.

[exp(k) v, exp(k)] of a chunk is made in a buffer that stays in cache. A tile of T rows and the T + s - 1 keys
of its window are one product with a band that all tiles share: exp(w) where a row reaches the key, 1 where it
does not. Two more rows of the band sum the window's first and last T keys, and the keys before and after a
window are sums of those of other tiles: every term is positive, nothing cancels. The gradient is the same
product transposed.

``g = b h`` groups; ``c = d/h + 1`` columns, the denominator last. Windows start ``left`` keys before their
tile, so that tap i of row t weighs key t + i of the window.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts

CHUNK = 1 << 19  # elements of the values of a chunk: a few such buffers stay in cache


class Line(torch.autograd.Function):
    """q k v and kernel of aft_conv: y [b, n, d], and bad [b, n, h] where it is to be computed again."""

    @staticmethod
    def forward(ctx, q, k, v, kernel, causal):
        work = _Work(k, v, kernel, causal)
        y, bad = torch.empty_like(v), torch.empty_like(k, dtype=torch.bool)
        denominators = torch.empty_like(k, dtype=work.wide)
        after = None if causal else work.after()
        before = work.shifts.new_zeros(work.groups, work.columns)
        for i, (a, b) in enumerate(work.bounds):
            sums = _pairs(work.bands(i), work.windows(work.keys(i)))
            total = work.total(sums, before, None if causal else after[i])[:, : b - a]
            denominator = total[..., -1]
            flags = denominator < _parts.smallest(work.wide)
            if causal:
                flags |= _parts.out_of_reach(k[:, a:b], work.shifts[i])
            denominator.masked_fill_(flags, torch.inf)  # then these rows get no gradient here
            denominators[:, a:b], bad[:, a:b] = denominator, flags
            gate = work.split(q[:, a:b].to(work.wide).sigmoid())
            mean = total[..., :-1].div_(denominator.unsqueeze(-1))
            work.split(y[:, a:b]).copy_(gate.mul_(mean))
            before = work.advance(i, before, sums)
        ctx.save_for_backward(q, k, v, kernel, y, denominators)
        ctx.causal = causal
        ctx.mark_non_differentiable(bad)
        return y, bad

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad, _):
        q, k, v, kernel, y, denominators = ctx.saved_tensors
        work = _Work(k, v, kernel, ctx.causal)
        to_q, to_k, to_v = torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)
        slopes = [_slopes(work, i, grad, q, y, denominators, to_q) for i in range(len(work.bounds))]
        later = _far_rows(work, slopes)
        to_band = torch.zeros_like(work.band[:, : work.tile])
        for i, slope in enumerate(slopes):
            keys = work.keys(i)
            if ctx.needs_input_grad[3]:
                pairs = _pairs(slope[:, :, : work.tile], work.windows(keys).mT)
                to_band += pairs.sum(1).unflatten(0, (-1, work.heads)).sum(0)
            _key_gradients(work, i, keys, slope, later[i], to_k, to_v)
        return to_q, to_k, to_v, work.to_taps(to_band).to(kernel.dtype), None


def tile_of(s: int) -> int:
    """Rows of a tile: few, since a band is mostly ones, but no fewer than a window has keys beyond them."""
    return max(32, 1 << (s - 1).bit_length())


def product_flops(b: int, n: int, d: int, h: int, s: int, *, causal: bool, train: bool) -> int:
    """FLOPs of the products with bands, and of the sums over far keys."""
    tile = tile_of(s)
    pairs = (
        -(-n // tile)
        * (tile + s - 1)
        * ((tile + 1 if causal else tile + 2) * (2 if train else 1) + tile * train)
    )
    return 2 * b * (pairs * (d + h) + (0 if causal else n * d))


class _Work:
    """The pieces that forward and backward share."""

    def __init__(self, k: Tensor, v: Tensor, kernel: Tensor, causal: bool):
        (batch, n, self.heads), s = k.shape, kernel.shape[1]
        self.k, self.v, self.causal, self.n, self.halo = k, self.split(v), causal, n, s - 1
        self.left = s - 1 if causal else s // 2
        self.groups, self.columns = batch * self.heads, self.v.shape[3] + 1
        self.wide, self.tile = _parts.accumulator(v.dtype), tile_of(s)
        chunk = max(CHUNK // max(1, v[:, 0].numel()), -(-n // 256), self.tile) // self.tile * self.tile
        self.bounds = list(_parts.tiles(n, min(chunk, -(-n // self.tile) * self.tile)))
        self.space = k.new_empty(0, dtype=self.wide)
        self.base = kernel.amax(1).clamp(min=0).to(self.wide)  # exp(w) is divided by exp(base)
        self.outside = (-self.base).exp()
        self.band = self._band((kernel.to(self.wide) - self.base[:, None]).exp())
        if causal:
            self.shifts = _parts.key_shifts(k, self.bounds[0][1] if len(self.bounds) > 1 else n)[0]
            self.shifts = self.shifts.unsqueeze(2)  # [chunks, b, 1, h]
        else:
            top = k.amax(1, keepdim=True).to(self.wide)
            self.shifts = top.expand(len(self.bounds), *top.shape)
        moved = self.shifts[1:] != self.shifts[:-1]
        self.moved = list(moved.unbind(0)) if causal and _parts.occurs(moved) else None

    def split(self, x: Tensor) -> Tensor:
        """[b, n, d] -> [b, n, h, e]."""
        return x.unflatten(2, (self.heads, -1))

    def tiles(self, i: int) -> int:
        a, b = self.bounds[i]
        return -(-(b - a) // self.tile)

    def _band(self, taps: Tensor) -> Tensor:
        """[h, T + 2, T + s - 1] (causal: T + 1)."""
        tile, s = self.tile, self.halo + 1
        tap = torch.arange(tile + s - 1, device=taps.device) - torch.arange(tile, device=taps.device)[:, None]
        self.tap = tap.clamp(0, s - 1)
        self.inside = (tap >= 0) & (tap < s)
        outside = self.outside[:, None, None]
        near = torch.where(self.inside, taps[:, self.tap], outside)
        if self.causal:
            near = near.masked_fill(tap >= s, 0.0)
        first = torch.arange(tile + s - 1, device=taps.device) < tile
        ends = [first, first.flip(0)][: 1 if self.causal else 2]
        return torch.cat([near, *(outside * end for end in ends)], 1)

    def to_taps(self, to_band: Tensor) -> Tensor:
        """The gradient of the kernel from that of the band's rows [h, T, T + s - 1]."""
        slope = (to_band * self.band[:, : self.tile]).masked_fill(~self.inside, 0.0).flatten(1)
        taps = slope.new_zeros(self.heads, self.halo + 1)
        return taps.index_add_(1, self.tap.flatten(), slope)

    def bands(self, i: int) -> Tensor:
        """The band as every group and tile of chunk i sees it, [g, tiles, T + 2, T + s - 1]."""
        band = self.band.repeat(self.groups // self.heads, 1, 1)
        return band.unsqueeze(1).expand(-1, self.tiles(i), -1, -1)

    def keys_of(self, i: int) -> tuple[int, int, int]:
        """(first, start, stop): the windows of chunk i begin at ``first`` and hold keys start to stop."""
        first = self.bounds[i][0] - self.left
        return first, max(0, first), min(self.n, first + self.tiles(i) * self.tile + self.halo)

    def keys(self, i: int, shift: Tensor | None = None) -> Tensor:
        """[exp(k) v, exp(k)] of the windows of chunk i, [keys, g, c], 0 out of the sequence; a buffer."""
        (first, a, b), length = self.keys_of(i), self.tiles(i) * self.tile + self.halo
        self.space = (
            self.space
            if len(self.space)
            else self.k.new_empty(length, self.groups, self.columns, dtype=self.wide)
        )
        out = self.space[:length]
        if b - a < length:
            out.zero_()
        inside = out[a - first : b - first].unflatten(1, (-1, self.heads))
        weights = _parts.exp_keys(self.k[:, a:b], self.shifts[i] if shift is None else shift).transpose(0, 1)
        inside[..., -1] = weights
        torch.mul(weights.unsqueeze(-1), self.v[:, a:b].transpose(0, 1), out=inside[..., :-1])
        return out

    def windows(self, keys: Tensor) -> Tensor:
        """[g, tiles, T + s - 1, c], overlapping."""
        return keys.unfold(0, self.tile + self.halo, self.tile).permute(1, 0, 3, 2)

    def after(self) -> Tensor:
        """For each chunk, the sums over the keys after all its windows, [chunks, g, c]."""
        found = []
        for i, (a, b) in enumerate(self.bounds):
            a, b = (min(self.n, x + self.halo - self.left) for x in (a, b))
            weights = _parts.exp_keys(self.k[:, a:b], self.shifts[i]).mT.unsqueeze(2)  # [b, h, 1, keys]
            values = products.matmul(weights, self.v[:, a:b].transpose(1, 2).to(self.wide))
            found.append(torch.cat([values, weights.sum(3, keepdim=True)], 3).flatten(0, 2))
        found = torch.stack(found) * self.outside.repeat(self.groups // self.heads)[:, None]
        return _others(found, 0, later=True)

    def total(self, sums: Tensor, before: Tensor, after: Tensor | None) -> Tensor:
        """Numerators and denominators of the rows of a chunk, [b, rows, h, c]."""
        far = before.unsqueeze(1) + _others(sums[:, :, self.tile], 1, later=False)
        if after is not None:
            far += after.unsqueeze(1) + _others(sums[:, :, self.tile + 1], 1, later=True)
        out = sums.new_empty(*sums.shape[:2], self.tile, self.columns)
        torch.add(sums[:, :, : self.tile], far.unsqueeze(2), out=out)
        return out.view(-1, self.heads, sums.shape[1] * self.tile, self.columns).transpose(1, 2)

    def per_group(self, x: Tensor) -> Tensor:
        """[b, 1, h] -> [g, 1]."""
        return x.reshape(-1, 1)

    def advance(self, i: int, before: Tensor, sums: Tensor) -> Tensor:
        """The sums over the keys before the windows of chunk i + 1, as that chunk's shift has them."""
        summed = before + sums[:, :, self.tile].sum(1)
        if self.moved is None or i + 1 == len(self.bounds):
            return summed
        # Keys out of reach of this chunk's shift are within reach of the next one's, which they moved.
        new = self.shifts[i + 1]
        again = before * self.per_group((self.shifts[i] - new).exp()) + self.moved_keys(i).sum(0)
        return torch.where(self.per_group(self.moved[i]), again, summed)

    def moved_keys(self, i: int) -> Tensor:
        """What chunk i adds to ``before``, key by key, as the next chunk's shift has it."""
        keys = self.keys(i, self.shifts[i + 1])[: self.tiles(i) * self.tile]
        return keys * self.outside.repeat(self.groups // self.heads)[:, None]


def _others(x: Tensor, dim: int, *, later: bool) -> Tensor:
    """For each place along ``dim`` the sum over those before it, or over those after it."""
    x = x.flip(dim) if later else x
    none = torch.zeros_like(x.narrow(dim, 0, 1))
    total = torch.cat([none, x.narrow(dim, 0, x.shape[dim] - 1)], dim).cumsum(dim)
    return total.flip(dim) if later else total


def _pairs(left: Tensor, right: Tensor) -> Tensor:
    """left [g, m, i, k] times right [g, m, k, j], views as they are: batches along the longer of g and m."""
    across = left.shape[0] > left.shape[1]
    if across:
        left, right = left.transpose(0, 1), right.transpose(0, 1)
    out = left.new_empty(*left.shape[:3], right.shape[3])
    for target, a, b in zip(out, left, right, strict=True):
        products.bmm(a, b, out=target)
    return out.transpose(0, 1) if across else out


def _slopes(
    work: _Work, i: int, grad: Tensor, q: Tensor, y: Tensor, denominators: Tensor, to_q: Tensor
) -> Tensor:
    """The gradient of a chunk's sums, [g, tiles, T + 2, c]; the last rows of each tile are still 0."""
    (a, b), tiles = work.bounds[i], work.tiles(i)
    out = grad.new_zeros(work.groups, tiles, work.band.shape[1], work.columns, dtype=work.wide)
    rows = grad.new_zeros if b - a < tiles * work.tile else grad.new_empty
    rows = rows(grad.shape[0], tiles * work.tile, work.heads, work.columns, dtype=work.wide)
    gate, top = q[:, a:b].to(work.wide).sigmoid(), grad[:, a:b].to(work.wide)
    inverse = denominators[:, a:b].reciprocal().unsqueeze(-1)
    torch.mul(work.split(top * gate), inverse, out=rows[:, : b - a, :, :-1])
    through = top * y[:, a:b]
    rows[:, : b - a, :, -1:] = -work.split(through).sum(3, keepdim=True) * inverse
    to_q[:, a:b] = through.mul_(1 - gate)
    rows = rows.transpose(1, 2).flatten(0, 1).unflatten(1, (tiles, work.tile))
    out[:, :, : work.tile] = rows
    return out


def _far_rows(work: _Work, slopes: list[Tensor]) -> list[Tensor | None]:
    """Fill in the gradients of the sums of each tile's keys from rows of other tiles that count them.

    Where the shift moves after a chunk, the rows after it count its keys as of the next shift: those are
    returned, [g, c].
    """
    tile = work.tile
    each = [slope[:, :, :tile].sum(2) for slope in slopes]  # [g, tiles, c]
    found: list[Tensor | None] = [None] * len(slopes)
    if not work.causal:
        before = torch.zeros_like(each[0][:, 0])
        for slope, rows in zip(slopes, each, strict=True):
            slope[:, :, tile + 1] = before.unsqueeze(1) + _others(rows, 1, later=False)
            before = before + rows.sum(1)
    after = torch.zeros_like(each[0][:, 0])
    for i in reversed(range(len(slopes))):
        near = after
        if work.moved is not None and i + 1 < len(slopes):
            moved = work.per_group(work.moved[i])
            near, found[i] = after.masked_fill(moved, 0.0), after.masked_fill(~moved, 0.0)
            after = after * work.per_group((work.shifts[i] - work.shifts[i + 1]).exp())
        slopes[i][:, :, tile] = near.unsqueeze(1) + _others(each[i], 1, later=True)
        after = after + each[i].sum(1)
    return found


def _key_gradients(
    work: _Work, i: int, keys: Tensor, slope: Tensor, later: Tensor | None, to_k: Tensor, to_v: Tensor
) -> None:
    """Add what the sums of chunk i mean for the keys and values of its windows."""
    tile, halo, rows = work.tile, work.halo, work.tiles(i) * work.tile
    near = _pairs(work.bands(i).mT, slope)  # [g, tiles, T + s - 1, c]
    near[:, 1:, :halo] += near[:, :-1, tile:]
    found = torch.empty_like(keys)
    found[:rows].unflatten(0, (-1, tile)).copy_(near[:, :, :tile].permute(1, 2, 0, 3))
    found[rows:] = near[:, -1, tile:].transpose(0, 1)
    value = found[..., :-1] * keys[..., -1:]
    key = found.mul_(keys).sum(2)
    if later is not None:
        again = work.moved_keys(i)
        value[:rows] += later[:, :-1] * again[..., -1:]
        key[:rows] += (later * again).sum(2)
    first, a, b = work.keys_of(i)
    seam = 0 if i == 0 else first + halo  # the chunk before has written the keys up to here
    for target, x in ((work.split(to_v), value), (to_k, key)):
        x = x[a - first : b - first].unflatten(1, (-1, work.heads)).transpose(0, 1)
        if seam > a:
            target[:, a:seam] += x[:, : seam - a]
        target[:, max(a, seam) : b] = x[:, max(0, seam - a) :]
