"""softmax(left @ right.T) @ v by tiles of scores, with a running sum: for mha-tiled and synthesizer-dense.

A tile is small enough for the cache, whatever the length. Each tile's average over its keys joins the average
so far by the share that its weights have, which the logarithms of the two sums of weights tell.

Where the norms of left and right bound every score, the exponentials are in range as they are and are simply
added up. Not causal: it would depend on the future which way a row is computed, and so how it is rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts, _row_blocks

BATCH, BATCH_ELSEWHERE = 2, 16  # groups whose tiles are one batched product: torch gives each thread one

TAME_TILE = 512  # where exponentials are only added up


def tiled_softmax(left: Tensor, right: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """left [g, n, r]; right [g or fewer, n, r]: group i takes right i modulo their number; v [g, n, c]."""
    if not _parts.on_cpu(v):
        return _row_blocks.softmax_blocks(left, right, v, causal=causal)
    return _TiledSoftmax.apply(left, right, v, causal)


def tile_size(n: int, *, causal: bool) -> int:
    """Rows and keys of a tile of scores: 2048 ran 1.2 to 1.9 times longer; 512 holds less of the future."""
    return 512 if causal and n <= 16384 else 1024


def pairs(n: int, *, causal: bool) -> int:
    """How many scores the tiles of one group hold."""
    return sum((b - a) * (b if causal else n) for a, b in _parts.tiles(n, tile_size(n, causal=causal)))


class _TiledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right, v, causal):
        y, sums = torch.empty_like(v), v.new_empty(*v.shape[:2], 1, dtype=_parts.accumulator(v.dtype))
        for work in _groups(left, right, v, causal):
            if work.tame():
                _add_up(work, y, sums)
                continue
            for a, b in work.tiles():
                mean = total = None
                for c, d in work.keys_of(b):
                    weights, log_sum = work.softmax(a, b, c, d)
                    part = _product(weights, work.v[:, c:d])
                    if mean is None:
                        mean, total = part, log_sum
                    else:
                        mean.lerp_(part, (log_sum - total).sigmoid_().expand_as(mean))
                        total = torch.logaddexp(total, log_sum)
                y[work.mine, a:b], sums[work.mine, a:b] = mean, total
        ctx.save_for_backward(left, right, v, y, sums)
        ctx.causal = causal
        return y

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad):
        """Tiles of weights are [keys, rows] here: then one product of five, not two, has to turn a tile."""
        left, right, v, y, sums = ctx.saved_tensors
        to_left, to_v = torch.empty_like(left), torch.empty_like(v)
        to_right = torch.zeros_like(right, dtype=sums.dtype)
        for work in _groups(left, right, v, ctx.causal):
            top = grad[work.mine].to(sums.dtype).contiguous()
            mean = (top * y[work.mine]).sum(-1, keepdim=True).mT  # of the slopes, under the weights
            logits, log_sums = work.left * _parts.LOG2_E, sums[work.mine].mT * _parts.LOG2_E
            rows, slope_space = _turned_zeros(work.left), torch.empty_like(work.space)
            for c, d in work.tiles():
                keys, values = torch.zeros_like(work.right[:, c:d]), torch.zeros_like(work.v[:, c:d])
                for a, b in work.rows_that_see(c):
                    weights = _product(work.right[:, c:d], logits[:, a:b].mT, work.space)
                    weights.sub_(log_sums[:, :, a:b]).exp2_()
                    if work.causal and c == a:
                        weights.triu_()
                    _add_product(values, weights, top[:, a:b])
                    slope = _product(work.v[:, c:d], top[:, a:b].mT, slope_space)
                    slope.sub_(mean[:, :, a:b]).mul_(weights)
                    _add_product(keys, slope, work.left[:, a:b])
                    _add_turned(rows[:, :, a:b], work.right[:, c:d], slope)
                to_right[work.its, c:d] += keys
                to_v[work.mine, c:d] = values
            to_left[work.mine] = rows.mT
        return to_left, to_right.to(right.dtype), to_v, None


def _add_up(work: _Group, y: Tensor, sums: Tensor) -> None:
    """The forward pass of a tame group: no shift, and a row is divided once."""
    logits = work.left * _parts.LOG2_E
    for a, b in _parts.tiles(work.n, TAME_TILE):
        mean, total = torch.zeros_like(work.v[:, a:b]), torch.zeros_like(sums[work.mine, a:b])
        for c, d in _parts.tiles(work.n, TAME_TILE):
            weights = _product(logits[:, a:b], work.right[:, c:d].mT, work.space).exp2_()
            total += weights.sum(-1, keepdim=True)
            _add_product(mean, weights, work.v[:, c:d])
        y[work.mine, a:b], sums[work.mine, a:b] = mean.div_(total), total.log_()


def _groups(left: Tensor, right: Tensor, v: Tensor, causal: bool):
    batch = 1 if products.choice(left) == "onednn" else BATCH if _parts.on_cpu(v) else BATCH_ELSEWHERE
    while len(right) % batch:
        batch -= 1
    tile = min(v.shape[1], tile_size(v.shape[1], causal=causal and _parts.on_cpu(v)))
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
        self.tile = tile_size(self.n, causal=causal and _parts.on_cpu(v))

    def tame(self) -> bool:
        """Whether no score is beyond exp's reach; on a CPU only, where a look at values does not stop it."""
        if self.causal or not _parts.on_cpu(self.v):
            return False
        bound = self.left.norm(dim=2).amax(1) * self.right.norm(dim=2).amax(1)
        return not _parts.occurs(~(bound <= _parts.REACH))

    def tiles(self):
        return _parts.tiles(self.n, self.tile)

    def rows_that_see(self, start: int):
        """The tiles of rows that see something of the keys from ``start``, the start of a tile, on."""
        return ((a, b) for a, b in self.tiles() if not self.causal or a >= start)

    def keys_of(self, stop: int):
        """The tiles of keys that rows before ``stop``, the end of a tile, see something of."""
        return _parts.tiles(stop if self.causal else self.n, self.tile)

    def scores(self, a: int, b: int, c: int, d: int, space: Tensor | None = None) -> Tensor:
        return _product(self.left[:, a:b], self.right[:, c:d].mT, space)

    def softmax(self, a: int, b: int, c: int, d: int) -> tuple[Tensor, Tensor]:
        """The softmax within a tile, and the logarithm of each row's sum of exponentials."""
        scores = self._without_future(self.scores(a, b, c, d, self.space), a, c)
        if not _parts.on_cpu(scores):  # a look at ``lost`` would stop the device at every tile
            top, place = scores.max(-1, keepdim=True)
            weights = torch.softmax(scores, -1, out=scores)
            return weights, top.sub_(weights.gather(-1, place).log_())
        first = scores[..., :1].clone()  # every row sees the first key of every tile that it sees
        weights = torch.softmax(scores, -1, out=scores)
        share = weights[..., :1]
        log_sum = first.sub_(share.log())
        lost = share < _parts.smallest(weights.dtype)
        if _parts.occurs(lost):
            again = self._without_future(self.scores(a, b, c, d), a, c).logsumexp(-1, keepdim=True)
            log_sum = torch.where(lost, again, log_sum)
        return weights, log_sum

    def _without_future(self, scores: Tensor, a: int, c: int) -> Tensor:
        if self.causal and c + scores.shape[2] > a + 1:
            future = torch.ones(scores.shape[1:], dtype=torch.bool, device=scores.device).triu_(a - c + 1)
            scores.masked_fill_(future, -torch.inf)
        return scores


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


def _turned_zeros(x: Tensor) -> Tensor:
    """For a sum like x transposed, laid out as _add_turned wants it."""
    return x.new_zeros(x.mT.shape) if len(x) == 1 else torch.zeros_like(x).mT


def _add_turned(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a.T @ b.

    oneDNN runs at a third of its rate where the large operand, b, would be a transposed left one; torch's
    batches are slow where the result is a slice of rows.
    """
    if len(a) == 1:
        products.addmm_(total[0], a[0].t(), b[0])
    else:
        products.baddbmm_(total.mT, b.mT, a)
