"""softmax(left @ right.T) @ v by tiles of scores, with a running sum: for mha-tiled and synthesizer-dense.

A tile is small enough for the cache, whatever the length. Where norms bound the scores of a row, its
exponentials are in range as they are and are simply added up. Causal, they are the norms of keys that the row
sees: its rounding must not depend on the rest of its tile. The exponentials of other rows are taken below the
largest score so far.

On a GPU each tile's average over its keys joins the average so far by the share that its weights have, which
the logarithms of the two sums of weights tell.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts, _row_blocks

TILE, TILE_ELSEWHERE = 512, 1024  # rows and keys of a tile of scores: on a CPU 1 MiB in float32

#: exp(-FAINT) of the largest weight is as good as 0, and is what weights below it are taken for: denormal
#: numbers take a CPU's exp and its products up to a hundred times as long.
FAINT = 60.0

BATCH = 16  # groups, at most, whose tiles are one batched product: on a CPU, one for each thread


def tiled_softmax(left: Tensor, right: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """left [g, n, r]; right [g or fewer, n, r]: group i takes right i modulo their number; v [g, n, c]."""
    if products.widens(v):
        return _row_blocks.softmax_blocks(left, right, v, causal=causal)
    return _TiledSoftmax.apply(left, right, v, causal)


def pairs(n: int, *, causal: bool) -> int:
    """How many scores the tiles of one group hold."""
    return sum((b - a) * (b if causal else n) for a, b in _parts.tiles(n, TILE))


class _TiledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right, v, causal):
        y, sums = torch.empty_like(v), v.new_empty(*v.shape[:2], 1, dtype=_parts.accumulator(v.dtype))
        for work in _groups(left, right, v, causal):
            for a, b in work.tiles():
                y[work.mine, a:b], sums[work.mine, a:b] = work.average(a, b)
        ctx.save_for_backward(left, right, v, y, sums)
        ctx.causal = causal
        return y

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad):
        """Tiles of weights are [keys, rows]: then no product of five has to turn one."""
        left, right, v, y, sums = ctx.saved_tensors
        to_left, to_v = torch.empty_like(left), torch.empty_like(v)
        to_right = torch.zeros_like(right, dtype=sums.dtype)
        for work in _groups(left, right, v, ctx.causal):
            top = grad[work.mine].to(sums.dtype).contiguous()
            mean = (top * y[work.mine]).sum(-1, keepdim=True).mT  # of the slopes, under the weights
            power, unit = _parts.quick_exp(work.left)
            logits, log_sums = work.left * unit, sums[work.mine].mT * unit
            wild = _parts.on_cpu(v) and _parts.occurs(~work.tame)
            slope_space = torch.empty_like(work.space)
            rows = {a: top.new_zeros(work.left[:, a:b].mT.shape) for a, b in work.tiles()}
            for c, d in work.tiles():
                keys, values = torch.zeros_like(work.right[:, c:d]), torch.zeros_like(work.v[:, c:d])
                for a, b in work.rows_that_see(c):
                    weights = _product(work.right[:, c:d], logits[:, a:b].mT, work.space)
                    weights.sub_(log_sums[:, :, a:b])
                    power(weights.clamp_(min=-FAINT * unit) if wild else weights)
                    if work.causal and c == a:
                        weights.triu_()
                    _add_product(values, weights, top[:, a:b])
                    slope = _product(work.v[:, c:d], top[:, a:b].mT, slope_space)
                    slope.sub_(mean[:, :, a:b]).mul_(weights)
                    _add_product(keys, slope, work.left[:, a:b])
                    _add_product(rows[a], work.right[:, c:d].mT, slope)
                to_right[work.its, c:d] += keys
                to_v[work.mine, c:d] = values
            for a, b in work.tiles():
                to_left[work.mine, a:b] = rows[a].mT
        return to_left, to_right.to(right.dtype), to_v, None


def _groups(left: Tensor, right: Tensor, v: Tensor, causal: bool):
    batch = 1 if products.choice(left) == "onednn" else BATCH
    if _parts.on_cpu(v):
        batch = min(batch, torch.get_num_threads())
    side = TILE if _parts.on_cpu(v) else TILE_ELSEWHERE
    tile = min(v.shape[1], side)
    batch = max(batch, (side // tile) ** 2)  # of short sequences as many as fill a tile
    while len(right) % batch:
        batch -= 1
    space = v.new_empty(batch * tile**2, dtype=_parts.accumulator(v.dtype))
    for g in range(0, len(v), batch):
        its = slice(g % len(right), g % len(right) + batch)
        yield _Group(left, right, v, causal, slice(g, g + batch), its, space)


class _Group:
    """Some groups side by side: their tensors in the accumulator's dtype, and space for a tile."""

    def __init__(
        self,
        left: Tensor,
        right: Tensor,
        v: Tensor,
        causal: bool,
        mine: slice,
        its: slice,
        space: Tensor,
    ):
        self.mine, self.its, self.causal, self.space = mine, its, causal, space
        each = (left[mine], right[its], v[mine])
        self.left, self.right, self.v = (x.to(space.dtype).contiguous() for x in each)
        self.n = v.shape[1]
        self.tile = TILE if _parts.on_cpu(v) else TILE_ELSEWHERE

    def average(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """The rows a to b of y, and the logarithms of their sums of exponentials."""
        if not _parts.on_cpu(self.v):  # a look at values would stop the device at every tile
            return self._by_shares(a, b)
        tame = self.tame[:, a:b]
        if not _parts.occurs(~tame):
            return self._by_sums(a, b)
        if not _parts.occurs(tame):
            return self._by_shifts(a, b)
        (mean, log_sum), (other, other_log_sum) = self._by_sums(a, b), self._by_shifts(a, b)
        return torch.where(tame, mean, other), torch.where(tame, log_sum, other_log_sum)

    @cached_property
    def tame(self) -> Tensor:
        """Whether norms keep all scores of a row and of those before it within exp's reach, [groups, n, 1].

        Those before, so that a tile hardly ever holds rows of both kinds.
        """
        norms = [x.norm(dim=2, keepdim=True) for x in (self.left, self.right)]
        rows, keys = (x.cummax(1).values if self.causal else x.amax(1, keepdim=True) for x in norms)
        return (rows * keys <= _parts.REACH).expand_as(norms[0])

    def _by_sums(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """By exponentials as they are. Tiles are [keys, rows], and a column of ones beside v sums weights.

        Products ran faster so than with tiles [rows, keys]: by 4 % here, by 8 % with the column.
        """
        power, unit = _parts.quick_exp(self.left)
        logits = (self.left[:, a:b] * unit).mT
        total = self.v.new_zeros(len(self.v), self.v.shape[2] + 1, b - a)
        for c, keys, values in self._tiles_of_keys[: a // self.tile + 1 if self.causal else None]:
            weights = power(_product(keys, logits, self.space))
            if self.causal and c == a:
                weights.triu_()
            _add_product(total, values, weights)
        sums = total[:, -1:]
        return (total[:, :-1] / sums).mT, sums.log().mT

    @cached_property
    def _tiles_of_keys(self) -> list[tuple[int, Tensor, Tensor]]:
        """(start, rows of right, rows of v and ones turned and dense): once, not for every tile of rows."""
        ones = self.v.new_ones(len(self.v), 1, self.tile)
        return [
            (c, self.right[:, c:d], torch.cat([self.v[:, c:d].mT, ones[..., : d - c]], 1))
            for c, d in self.tiles()
        ]

    def _by_shifts(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """By exponentials below a row's largest score so far: when it rises, what was added up shrinks."""
        power, unit = _parts.quick_exp(self.left)
        logits = (self.left[:, a:b] * unit).mT
        total = self.v.new_zeros(len(self.v), self.v.shape[2] + 1, b - a)
        top = self.v.new_full((len(self.v), 1, b - a), -torch.inf)
        for c, keys, values in self._tiles_of_keys[: a // self.tile + 1 if self.causal else None]:
            scores = _product(keys, logits, self.space)
            own = self.causal and c == a
            if own:
                scores.masked_fill_(_above_diagonal(scores).mT, -torch.inf)
            before, top = top, top.maximum(scores.amax(1, keepdim=True))
            drop = before.sub_(top)
            lost = drop < -FAINT * unit
            total.mul_(power(drop).masked_fill_(lost, 0))
            weights = power(scores.sub_(top).clamp_(min=-FAINT * unit))
            if own:
                weights.triu_()
            _add_product(total, values, weights)
        sums = total[:, -1:]
        return (total[:, :-1] / sums).mT, sums.log().add_(top, alpha=1 / unit).mT

    def _by_shares(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """By the softmax of each tile, joined by the shares of their sums: without a look at values."""
        mean = total = None
        for c, d in _parts.tiles(b if self.causal else self.n, self.tile):
            scores = _product(self.left[:, a:b], self.right[:, c:d].mT, self.space)
            if self.causal and c == a:
                scores.masked_fill_(_above_diagonal(scores), -torch.inf)
            top, place = scores.max(-1, keepdim=True)
            weights = torch.softmax(scores, -1, out=scores)
            part, log_sum = _product(weights, self.v[:, c:d]), top.sub_(weights.gather(-1, place).log_())
            if mean is None:
                mean, total = part, log_sum
            else:
                mean.lerp_(part, (log_sum - total).sigmoid_().expand_as(mean))
                total = torch.logaddexp(total, log_sum)
        return mean, total

    def tiles(self):
        return _parts.tiles(self.n, self.tile)

    def rows_that_see(self, start: int):
        """The tiles of rows that see something of the keys from ``start``, the start of a tile, on."""
        return ((a, b) for a, b in self.tiles() if not self.causal or a >= start)


def _above_diagonal(scores: Tensor) -> Tensor:
    """The future, in a tile [groups, rows, keys] on the diagonal."""
    return torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu_(1)


def _product(a: Tensor, b: Tensor, space: Tensor | None = None) -> Tensor:
    """a @ b, one pair or several, in ``space`` where the product can be put anywhere."""
    out = None
    if space is not None:
        out = space[: a.shape[0] * a.shape[1] * b.shape[2]].view(a.shape[0], a.shape[1], b.shape[2])
    if len(a) == 1:
        return products.mm(a[0], b[0], out=None if out is None else out[0])[None]
    return products.bmm(a, b, out=out)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    if len(a) == 1:
        products.addmm_(total[0], a[0], b[0])
    else:
        products.baddbmm_(total, a, b)
