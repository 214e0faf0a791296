"""softmax(left @ right.T) @ v on a GPU in bfloat16: whole rows of all groups side by side.

A block of scores holds four times what v does, so memory is linear in n. No look at values: torch's softmax
of a whole row needs none. In float32 the tiles of ``_tiled`` are no slower.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts


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
            slope = work.factor(slope)
            to_left[:, a:b] = products.bmm(slope, work.right[:, :stop], dtype=work.dtype)
            products.baddbmm_(to_right[:, :stop], slope.mT, work.left[:, a:b])
        return to_left.to(left.dtype), to_right.to(right.dtype), to_v.to(v.dtype), None


class _Work:
    """The pieces that forward and backward share: factors of products, and room for a block of scores."""

    def __init__(self, left: Tensor, right: Tensor, v: Tensor, causal: bool):
        (groups, n, c), self.causal = v.shape, causal
        self.dtype, factors = _parts.accumulator(v.dtype), _parts.factors(v)
        self.left, self.right, self.v = (x.to(factors).contiguous() for x in (left, right, v))
        rows = min(n, 4 * c)
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

    def factor(self, x: Tensor) -> Tensor:
        """As a factor of a product."""
        return x.to(self.v.dtype)
