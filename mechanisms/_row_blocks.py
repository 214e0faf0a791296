"""softmax(left @ right.T) @ v where launches are dear, as on a GPU: whole rows of all groups side by side.

A block of scores holds twice what v does, so memory is linear in n. No look at values: torch's softmax of a
whole row needs none. A sum over all keys is made in parts, whose results are few: one by one they would leave
most of the device idle.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts

PART = 2048  # keys of a part of a sum


def softmax_blocks(left: Tensor, right: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    """left [g, n, r]; right [g or fewer, n, r]: group i takes right i modulo their number; v [g, n, c]."""
    right = right.repeat(len(v) // len(right), 1, 1) if len(right) < len(v) else right
    return _SoftmaxBlocks.apply(left, right, v, causal)


class _SoftmaxBlocks(torch.autograd.Function):
    @staticmethod
    def forward(ctx, left, right, v, causal):
        ctx.save_for_backward(left, right, v)
        ctx.causal = causal
        y, work = torch.empty_like(v), _Work(left, right, v, causal)
        for a, b, stop in work.blocks:
            y[:, a:b] = products.bmm(
                work.factor(work.weights(a, b, stop)), work.v[:, :stop], dtype=work.dtype
            )
        return y

    @staticmethod
    @_parts.plain_backward
    def backward(ctx, grad):
        left, right, v = ctx.saved_tensors
        work = _Work(left, right, v, ctx.causal)
        to_left, to_right = (torch.zeros_like(x, dtype=work.dtype) for x in (left, right))
        to_v = torch.zeros_like(v, dtype=work.dtype)
        space = torch.empty_like(work.space)
        for a, b, stop in work.blocks:
            weights, top = work.weights(a, b, stop), grad[:, a:b].to(work.v.dtype)
            products.baddbmm_(to_v[:, :stop], work.factor(weights).mT, top)
            slope = work.product(top, work.v[:, :stop].mT, space)
            torch._softmax_backward_data(slope, weights, -1, work.dtype, grad_input=slope)
            to_left[:, a:b] = work.sums(slope, work.right[:, :stop])
            products.baddbmm_(to_right[:, :stop], work.factor(slope).mT, work.left[:, a:b])
        return to_left.to(left.dtype), to_right.to(right.dtype), to_v.to(v.dtype), None


class _Work:
    """The pieces that forward and backward share: factors of products, and room for a block of scores."""

    def __init__(self, left: Tensor, right: Tensor, v: Tensor, causal: bool):
        (groups, n, c), self.causal = v.shape, causal
        self.dtype, factors = _parts.accumulator(v.dtype), _parts.factors(v)
        self.left, self.right, self.v = (x.to(factors).contiguous() for x in (left, right, v))
        rows = min(n, 2 * c)
        self.blocks = [(a, b, b if causal else n) for a, b in _parts.tiles(n, rows)]
        self.space = v.new_empty(groups * rows * n, dtype=self.dtype)

    def weights(self, a: int, b: int, stop: int) -> Tensor:
        """softmax of rows a to b over the keys before ``stop``, [groups, b - a, stop], made in ``space``."""
        scores = self.product(self.left[:, a:b], self.right[:, :stop].mT, self.space)
        if self.causal:
            own = scores[:, :, a:]
            own.masked_fill_(
                torch.ones(own.shape[1:], dtype=torch.bool, device=own.device).triu_(1), -torch.inf
            )
        return torch.softmax(scores, -1, out=scores)

    def product(self, a: Tensor, b: Tensor, space: Tensor) -> Tensor:
        shape = (len(a), a.shape[1], b.shape[2])
        return products.bmm(a, b, out=space[: torch.Size(shape).numel()].view(shape))

    def sums(self, weights: Tensor, values: Tensor) -> Tensor:
        """weights [groups, rows, keys] @ values [groups, keys, .], the keys by parts."""
        parts = weights.shape[2] // PART
        if parts < 2:
            return products.bmm(self.factor(weights), values, dtype=self.dtype)
        whole = parts * PART
        split = weights[:, :, :whole].unflatten(2, (parts, -1)).transpose(1, 2)
        split = torch.empty(split.shape, dtype=values.dtype, device=values.device).copy_(split)
        split_values = values[:, :whole].unflatten(1, (parts, -1)).flatten(0, 1)
        total = (
            products.bmm(split.flatten(0, 1), split_values, dtype=self.dtype).unflatten(0, (-1, parts)).sum(1)
        )
        if whole < weights.shape[2]:
            products.baddbmm_(total, self.factor(weights[:, :, whole:]), values[:, whole:])
        return total

    def factor(self, x: Tensor) -> Tensor:
        """As a factor of a product."""
        return x.to(self.v.dtype)
