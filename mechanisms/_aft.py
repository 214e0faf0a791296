"""The AFT family's kernel: position-weighted averages by tiles of exp(w), with memory linear in n.

The sums are products of exp(w) [n, n] and [exp(k) v, exp(k)] [n, 2bd]. A tile of exp(w) is made, used for the
whole batch and dropped, forward and backward. Keys for which a tile of rows has no bias at all (AFT-local)
enter as plain sums over tiles: every term is positive, nothing cancels.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _band, _gate, _parts, _tiles

Bias = Tensor | tuple[Tensor, Tensor]


@_parts.eager
def position_weighted(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    position_bias: Bias,
    *,
    window: int | None,
    causal: bool,
    gate: _gate.Gate = torch.sigmoid,
) -> Tensor:
    """AFT with a bias that is 0 where abs(t - s) >= window; None: it counts everywhere."""
    n = q.shape[1]
    left, right = (position_bias, None) if isinstance(position_bias, Tensor) else position_bias
    for name, rows in (("rows", len(left)), ("keys", left.shape[1] if right is None else len(right))):
        if rows != n:
            raise ValueError(f"the position bias has {rows} {name} and the sequence {n} tokens")
    # ctx.needs_input_grad does not know of no_grad.
    keep = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, left, right))
    y, bad = _PositionWeighted.apply(q, k, v, left, right, window, causal, gate, keep)

    def exact(batch: Tensor, t: Tensor, channel: Tensor) -> Tensor:
        bias = left[t] if right is None else left[t] @ right.T
        if window is not None:
            distance = (torch.arange(n, device=q.device) - t[:, None]).abs()
            bias = bias.masked_fill(distance >= window, 0)
        logits = k[batch, :, channel].to(_parts.accumulator(k.dtype)) + bias
        mean = _parts.average(logits, v[batch, :, channel], t if causal else None)
        return mean * gate(q[batch, t, channel])

    return _parts.rescue(y, bad, exact, n)


class _PositionWeighted(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, left, right, window, causal, gate, keep):
        work = _work(k, v, left, right, window, causal)
        y, bad = torch.empty_like(q), torch.empty(q.shape, dtype=torch.bool, device=q.device)
        bounds, means, denominators = [], [], []
        for a, b, sums, lost in work.totals():
            numerator, denominator = sums.split(work.columns, 1)
            flags = denominator < _parts.smallest(work.dtype)
            if lost is not None:
                flags |= lost
            denominator = denominator.masked_fill(flags, torch.inf)  # then these rows get no gradient here
            mean = numerator / denominator
            _tiles.put_rows(y, a, b, mean * gate(_tiles.rows_of(q, a, b).to(work.dtype)))
            _tiles.put_rows(bad, a, b, flags)
            if keep:
                bounds.append((a, b))
                means.append(mean)
                denominators.append(denominator)
        if keep:
            ctx.save_for_backward(q, k, v, left, right, *means, *denominators)
            ctx.window, ctx.causal, ctx.gate, ctx.bounds = window, causal, gate, bounds
        ctx.mark_non_differentiable(bad)
        return y, bad

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad, _):
        q, k, v, left, right, *saved = ctx.saved_tensors
        work = _work(k, v, left, right, ctx.window, ctx.causal)
        to_q = torch.empty_like(q)
        slopes = k.new_empty(work.n, 2 * work.columns, dtype=work.factors)  # of numerator and denominator
        halves = saved[: len(ctx.bounds)], saved[len(ctx.bounds) :]
        for (a, b), mean, denominator in zip(ctx.bounds, *halves, strict=True):
            top = _tiles.rows_of(grad, a, b).to(work.dtype)
            gate, to_gated = _gate.with_slope(ctx.gate, _tiles.rows_of(q, a, b).to(work.dtype), top * mean)
            _tiles.put_rows(to_q, a, b, to_gated)
            top = top * gate
            top /= denominator
            slopes[a:b, : work.columns] = top
            slopes[a:b, work.columns :] = top.mul_(mean).neg_()
        to_k, to_v = torch.empty_like(k), torch.empty_like(v)
        to_bias = work.gradients(slopes, to_k, to_v, any(ctx.needs_input_grad[3:5]))
        return to_q, to_k, to_v, *to_bias, *[None] * 4


def _work(
    k: Tensor, v: Tensor, left: Tensor, right: Tensor | None, window: int | None, causal: bool
) -> _Tiled | _band.Band:
    """Tile by tile, or a band's tiles side by side where launches are dear and biases need no shift."""
    if window is None or not 0 < window < k.shape[1] or right is None or _parts.on_cpu(k):
        return _Tiled(k, v, left, right, window, causal)
    wild = _tiles.largest(left, right) > _tiles.TAME
    return (_Tiled if _parts.occurs(wild) else _band.Band)(k, v, left, right, window, causal)


class _Tiled(_tiles.Work):
    def totals(self) -> Iterator[tuple[int, int, Tensor, Tensor | None]]:
        """(start, stop) of some rows, their numerators and denominators [rows, 2c], and which are no good."""
        for i, far in enumerate(self.far_keys()):
            (a, b), lost = self.bounds(i), None
            if self.moving:
                lost = _parts.out_of_reach(_tiles.rows_of(self.k, a, b).to(self.dtype), self.shifts[i])
            yield a, b, _sums(self, i, far), lost

    def gradients(
        self, slopes: Tensor, to_k: Tensor, to_v: Tensor, of_bias: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Fill the gradients of k and v, and give those of the bias, from that of all totals."""
        to_bias = _BiasGradient(self) if of_bias else None
        for j, far in enumerate(self.far_rows(slopes)):
            _key_gradients(self, j, far, slopes, to_bias, to_k, to_v)
        return to_bias.result() if to_bias else (None, None)


def _sums(work: _tiles.Work, i: int, far: Tensor | None) -> Tensor:
    """Numerators and denominators of a tile of rows, [rows, 2c]."""
    a, b = work.bounds(i)
    total = None if far is None else work.untouched(far.expand(b - a, -1), a, b).contiguous()
    for c, d in work.spans(*work.near_keys(i)):
        weights, rhs = work.weights(a, b, c, d), work.rhs(c, d, i)
        if total is None:
            total = products.mm(weights, rhs, dtype=work.dtype)
        else:
            total = products.addmm_(total, weights, rhs)
    return total


def _key_gradients(
    work: _tiles.Work,
    j: int,
    far: Tensor | None,
    slopes: Tensor,
    to_bias: _BiasGradient | None,
    to_k: Tensor,
    to_v: Tensor,
) -> None:
    """Gradients of the keys and values of tile j, and of the biases of its near pairs."""
    c, d = work.bounds(j)
    found = slopes.new_zeros(2, d - c, work.columns, dtype=work.dtype)
    total = slopes.new_zeros(d - c, 2 * work.columns, dtype=work.dtype)
    if far is not None:
        total += far
        if work.moving:
            _through_exp(work, c, d, j + work.reach + 1, total, found)
    step = work.tile if work.moving else work.span
    low, high = work.near_rows(j)
    for a in range(low, high, step):
        b, i = min(high, a + step), a // work.tile
        weights, rhs = work.weights_by_key(a, b, c, d), work.rhs(c, d, i)
        products.addmm_(total, weights, slopes[a:b])
        if to_bias is not None:
            # Without names for what is made: it would be held until the next one is there.
            torch.mul(weights, products.mm(rhs, slopes[a:b].t(), dtype=work.dtype), out=weights)
            to_bias.add(a, b, c, d, weights)
        if work.moving:
            _through_exp(work, c, d, i, total, found)
    if not work.moving:
        _through_exp(work, c, d, j, total, found)
    _tiles.put_rows(to_k, c, d, found[0])
    _tiles.put_rows(to_v, c, d, found[1])


def _through_exp(work: _tiles.Work, c: int, d: int, i: int, total: Tensor, found: Tensor) -> None:
    """Add what ``total``, the gradient of [exp(k) v, exp(k)], means for k and v; leave it at zero."""
    weighted, plain = work.wide_rhs(c, d, i).split(work.columns, 1)
    to_weighted, to_plain = total.split(work.columns, 1)
    found[0].addcmul_(weighted, to_weighted).addcmul_(plain, to_plain)
    found[1].addcmul_(plain, to_weighted)
    total.zero_()


class _BiasGradient:
    """Gradient of w, or of its factors; that of the left one is kept transposed, [r, n].

    A matrix product whose result is narrow and whose left operand is transposed runs at a third of the rate.
    """

    def __init__(self, work: _tiles.Work):
        self.work = work
        like = work.left if work.right is None else work.left.t()
        self.left = like.new_zeros(like.shape, dtype=work.dtype)
        self.right = None if work.right is None else torch.zeros_like(work.right, dtype=work.dtype)

    def add(self, a: int, b: int, c: int, d: int, slope: Tensor) -> None:
        """slope [d - c, b - a]: the gradient of w at these pairs, a row for each key; it is overwritten."""
        work, slope = self.work, self.work.cut(slope, c, a)
        if self.right is None:
            self.left[a:b, c:d] += slope.t()
        else:
            left, right = work.left[a:b], work.right[c:d]
            dtype = _parts.factors(left)
            slope = slope.to(dtype)
            products.addmm_(self.left[:, a:b], right.to(dtype).t(), slope)
            products.addmm_(self.right[c:d], slope, left.to(dtype))

    def result(self) -> tuple[Tensor, Tensor | None]:
        if self.right is None:
            return self.left.to(self.work.left.dtype), None
        return self.left.t().to(self.work.left.dtype), self.right.to(self.work.right.dtype)
