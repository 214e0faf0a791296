"""softmax(left @ right.T) @ v by tiles of scores, with a running sum: for mha-tiled and synthesizer-dense.

A tile is small enough for the cache, whatever the length. Where norms bound the scores of a row, its
exponentials are in range as they are and are simply added up. Causal, they are the norms of keys that the row
sees: its rounding must not depend on the rest of its tile. The exponentials of other rows are taken below the
largest score so far.

On a GPU each tile's average over its keys joins the average so far by the share that its weights have, which
the logarithms of the two sums of weights tell.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts, _row_blocks, _whole

#: The sides of a tile of scores on a CPU: rows and keys forward, keys and rows backward.
TALL, WIDE, SHARED = products.TALL, products.WIDE, products.SHARED
ELSEWHERE = 1024  # both sides, on a GPU

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
    wide = _sides(n, TALL, WIDE)[1]
    return sum((b - a) * (b if causal else n) for a, b in _parts.tiles(n, wide))


def column_flops(groups: int, n: int, held: int, *, mode: str) -> int:
    """Of one column more in two of backward's products, by tiles that hold ``held`` scores of a group."""
    return 4 * groups * held if mode == "train" and not _whole.fits(groups, n) else 0


def _sides(n: int, tall: int, wide: int) -> tuple[int, int]:
    """Of the tiles of n tokens: one tile, where fewer groups would be made whole."""
    return (n, n) if n <= _whole.LONGEST else (min(n, tall), min(n, wide))


class _TiledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right, v, causal):
        y, sums = torch.empty_like(v), v.new_empty(*v.shape[:2], 1, dtype=_parts.accumulator(v.dtype))
        for work in _groups(left, right, v, causal):
            for a, b in work.tall_tiles():
                y[work.mine, a:b], sums[work.mine, a:b] = work.average(a, b)
        ctx.save_for_backward(left, right, v, y, sums)
        ctx.causal = causal
        return y

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad):
        left, right, v, y, sums = ctx.saved_tensors
        to_left, to_v = torch.empty_like(left), torch.empty_like(v)
        to_right = torch.zeros_like(right, dtype=sums.dtype)
        for work in _groups(left, right, v, ctx.causal):
            top = grad[work.mine].to(sums.dtype).contiguous()
            mean = (top * y[work.mine]).sum(-1, keepdim=True)
            to_both = to_right[work.its], to_v[work.mine]
            to_left[work.mine] = work.gradients(top, mean, sums[work.mine], *to_both)
        return to_left, to_right.to(right.dtype), to_v, None


def _groups(left: Tensor, right: Tensor, v: Tensor, causal: bool):
    batch, tall, wide = BATCH, ELSEWHERE, ELSEWHERE
    if _parts.on_cpu(v):
        batch, tall, wide = min(BATCH, torch.get_num_threads()), TALL, WIDE
    full, like = tall * wide, v.new_empty(0, dtype=_parts.accumulator(v.dtype))
    shared = products.choice_by_heads(like) == "onednn"
    if shared:
        batch, tall = 1, SHARED * tall
    sides = _sides(v.shape[1], tall, wide)
    batch = max(batch, full // math.prod(sides))  # of short sequences as many as fill a tile
    while len(right) % batch:
        batch -= 1
    space = like.new_empty(batch * math.prod(sides))
    for g in range(0, len(v), batch):
        its = slice(g % len(right), g % len(right) + batch)
        yield _Group(left, right, v, causal, slice(g, g + batch), its, sides, space, shared)


class _Group:
    """Some groups side by side: their tensors in the accumulator's dtype, and space for a tile.

    ``shared``: one group by itself is multiplied by the provider of other products, not by torch's batched
    ones, which for one pair too are the faster of torch's.
    """

    def __init__(
        self,
        left: Tensor,
        right: Tensor,
        v: Tensor,
        causal: bool,
        mine: slice,
        its: slice,
        sides: tuple[int, int],
        space: Tensor,
        shared: bool,
    ):
        self.mine, self.its, self.causal, self.space, self.shared = mine, its, causal, space, shared
        each = (left[mine], right[its], v[mine])
        self.left, self.right, self.v = (x.to(space.dtype).contiguous() for x in each)
        self.n = v.shape[1]
        self.tall, self.wide = sides

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
        """By exponentials as they are."""
        power, unit = _parts.quick_exp(self.left)
        logits = self.left[:, a:b] * unit
        total, sums = torch.zeros_like(self.v[:, a:b]), logits.new_zeros(*logits.shape[:2], 1)
        for keys, values, own, (rows, its_total, its_sum) in self._seen(a, b, logits, total, sums):
            weights = power(self._product(rows, keys, self.space))
            if own:
                weights[:, : keys.shape[2]].tril_()
            its_sum.add_(weights.sum(-1, keepdim=True))
            self._add_product(its_total, weights, values)
        return total.div_(sums), sums.log_()

    def _by_shifts(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """By exponentials below a row's largest score so far: when it rises, what was added up shrinks."""
        power, unit = _parts.quick_exp(self.left)
        logits = self.left[:, a:b] * unit
        total, sums = torch.zeros_like(self.v[:, a:b]), logits.new_zeros(*logits.shape[:2], 1)
        tops = torch.full_like(sums, -torch.inf)
        for keys, values, own, (rows, its_total, its_sum, top) in self._seen(a, b, logits, total, sums, tops):
            scores = self._product(rows, keys, self.space)
            square = scores[:, : keys.shape[2]]
            if own:
                square.masked_fill_(_above_diagonal(square), -torch.inf)
            before = top.clone()
            torch.maximum(before, scores.amax(-1, keepdim=True), out=top)
            drop = before.sub_(top)
            lost = drop < -FAINT * unit
            shrunk = power(drop).masked_fill_(lost, 0)
            weights = power(scores.sub_(top).clamp_(min=-FAINT * unit))
            if own:
                square.tril_()
            its_sum.mul_(shrunk).add_(weights.sum(-1, keepdim=True))
            self._add_product(its_total.mul_(shrunk), weights, values)
        return total.div_(sums), sums.log_().add_(tops, alpha=1 / unit)

    def _seen(self, a: int, b: int, *mine: Tensor) -> Iterator[tuple[Tensor, Tensor, bool, Sequence[Tensor]]]:
        """The tiles of keys that the rows a to b see: (keys, turned; values; own; ``mine`` of rows that do).

        ``own``: causal, the first of these rows see a part of the tile.
        """
        for (c, _), keys, values in self._tiles_of_keys:
            if self.causal and c >= b:
                return
            own = self.causal and c >= a
            yield keys, values, own, [x[:, c - a :] for x in mine] if own else mine

    @cached_property
    def _tiles_of_keys(self) -> list[tuple[tuple[int, int], Tensor, Tensor]]:
        return list(zip(self.wide_tiles(), self.turned(self.right), self.cut(self.v), strict=True))

    def cut(self, x: Tensor) -> list[Tensor]:
        """The wide tiles of x [groups, n, ...]."""
        return [x[:, a:b] for a, b in self.wide_tiles()]

    def turned(self, x: Tensor) -> list[Tensor]:
        """The same, turned and dense: once for many products, which are the quicker for it."""
        return [tile.mT.contiguous() for tile in self.cut(x)]

    def _by_shares(self, a: int, b: int) -> tuple[Tensor, Tensor]:
        """By the softmax of each tile, joined by the shares of their sums: without a look at values."""
        mean = total = None
        for c, d in _parts.tiles(b if self.causal else self.n, self.wide):
            scores = self._product(self.left[:, a:b], self.right[:, c:d].mT, self.space)
            if self.causal and c == a:
                scores.masked_fill_(_above_diagonal(scores), -torch.inf)
            top, place = scores.max(-1, keepdim=True)
            weights = torch.softmax(scores, -1, out=scores)
            part, log_sum = self._product(weights, self.v[:, c:d]), top.sub_(weights.gather(-1, place).log_())
            if mean is None:
                mean, total = part, log_sum
            else:
                mean.lerp_(part, (log_sum - total).sigmoid_().expand_as(mean))
                total = torch.logaddexp(total, log_sum)
        return mean, total

    def gradients(
        self, top: Tensor, mean: Tensor, log_sums: Tensor, to_right: Tensor, to_v: Tensor
    ) -> Tensor:
        """From the gradient of y, ``top``, and its mean under the weights: that of left.

        Those of v are written, those of right added. Tiles of weights are [keys, rows]: then no product of
        five has to turn one. On a CPU what is taken from scores and slopes is one column more of the factors
        of their products; elsewhere these may have TF32's digits, which would not do.
        """
        power, unit = _parts.quick_exp(self.left)
        logits, tops, keys, values, log_sums = self.left * unit, top, self.right, self.v, log_sums * unit
        if folded := _parts.on_cpu(top):
            logits, tops = torch.cat([logits, -log_sums], 2), torch.cat([tops, -mean], 2)
            keys, values = (torch.cat([x, torch.ones_like(mean)], 2) for x in (keys, values))
        sides = self.turned(logits), self.turned(tops), self.cut(self.left), self.cut(top)
        rows = [top.new_zeros(x.mT.shape) for x in self.cut(self.left)]
        wild = folded and _parts.occurs(~self.tame)
        other_space = torch.empty_like(self.space)
        for c, d in self.tall_tiles():
            its = [x[:, c:d] for x in (keys, values)]
            its.append(self.right[:, c:d].mT.contiguous().mT)  # a product's first factor, turned
            its += [torch.zeros_like(x[:, c:d]) for x in (self.right, self.v)]
            for (a, b), *of_rows, to_rows in zip(self.wide_tiles(), *sides, rows, strict=True):
                if self.causal and b <= c:
                    continue
                seen = [x[:, : b - c] for x in its] if self.causal and b < d else its
                its_keys, its_values, its_right, to_keys, to_values = seen
                its_logits, its_tops, its_left, its_top = of_rows
                weights = self._product(its_keys, its_logits, self.space)
                slope = self._product(its_values, its_tops, other_space)
                if not folded:
                    weights.sub_(log_sums[:, a:b].mT)
                    slope.sub_(mean[:, a:b].mT)
                power(weights.clamp_(min=-FAINT * unit) if wild else weights)
                if self.causal and a < d:
                    weights[:, a - c :].triu_()
                self._add_product(to_values, weights, its_top)
                self._add_product(to_keys, slope.mul_(weights), its_left)
                self._add_product(to_rows, its_right.mT, slope)
            to_right[:, c:d] += its[3]
            to_v[:, c:d] = its[4]
        return torch.cat(rows, 2).mT

    def _product(self, a: Tensor, b: Tensor, space: Tensor | None = None) -> Tensor:
        """a @ b, one pair or several, in ``space`` where the product can be put anywhere."""
        groups, rows, columns = a.shape[0], a.shape[1], b.shape[2]
        out = None
        if space is not None:
            out = space.as_strided((groups, rows, columns), (rows * columns, columns, 1))
        if self.shared and groups == 1:
            return products.mm(a[0], b[0], out=None if out is None else out[0])[None]
        return products.bmm(a, b, out=out)

    def _add_product(self, total: Tensor, a: Tensor, b: Tensor) -> None:
        if self.shared and a.shape[0] == 1:
            products.addmm_(total[0], a[0], b[0])
        else:
            products.baddbmm_(total, a, b)

    def tall_tiles(self) -> Iterator[tuple[int, int]]:
        return _parts.tiles(self.n, self.tall)

    def wide_tiles(self) -> Iterator[tuple[int, int]]:
        return _parts.tiles(self.n, self.wide)


def _above_diagonal(scores: Tensor) -> Tensor:
    """The future, in a tile [groups, rows, keys] on the diagonal."""
    return torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu_(1)
