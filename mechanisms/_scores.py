"""Where the scores of a tile of rows come from: one class for each way to make them and to send slopes back.

A tile is the rows ``a`` to ``b`` of one group, and the keys before ``stop``. An object of these classes
belongs to one group; ``write`` makes the tile, and ``back`` adds what a slope [b - a, stop] means to
gradients of the shapes that the object was made from.

``whole`` is the scores of all groups, [groups, n, n], from the tensors of a ``Term``, by operators that torch
differentiates; ``new`` says that they may be written over.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts


class Term(NamedTuple):
    """Scores of all groups, from tensors [groups or fewer, ...]: group i takes part i modulo their number."""

    kind: type[Any]
    tensors: tuple[Tensor, ...]


class Product:
    """left @ right.T, from left [n, r] and right [n, r]."""

    summed = (True, True)  # gradients that several tiles add to, so that they need the accumulator's dtype
    turned = (False, True)  # gradients kept transposed: a product with a transposed left operand is slow
    new = True

    def __init__(self, left: Tensor, right: Tensor):
        self.left, self.right = wide(left), wide(right)

    @staticmethod
    def whole(left: Tensor, right: Tensor) -> Tensor:
        dtype = _parts.accumulator(left.dtype)
        return products.matmul(left.to(dtype), _parts.spread(right, left.shape[0]).to(dtype).mT)

    def write(self, a: int, b: int, stop: int, out: Tensor) -> Tensor:
        return products.mm(self.left[a:b], self.right[:stop].t(), out=out)

    def back(self, a: int, b: int, stop: int, slope: Tensor, to_left: Tensor, to_right: Tensor) -> None:
        products.addmm_(to_left[a:b], slope, self.right[:stop])
        products.addmm_(to_right[:stop].t(), self.left[a:b].t(), slope)


class Whole:
    """The scores themselves, [n, n], times a factor [1] where there is one."""

    summed = (False, True)
    turned = (False, False)
    new = False

    def __init__(self, scores: Tensor, factor: Tensor | None = None):
        self.scores, self.factor = scores, factor

    @staticmethod
    def whole(scores: Tensor, factor: Tensor | None = None) -> Tensor:
        scores = scores.to(_parts.accumulator(scores.dtype))
        return scores if factor is None else scores * factor

    def write(self, a: int, b: int, stop: int, out: Tensor) -> Tensor:
        out.copy_(self.scores[a:b, :stop])
        return out if self.factor is None else out.mul_(self.factor)

    def back(
        self, a: int, b: int, stop: int, slope: Tensor, to_scores: Tensor, to_factor: Tensor | None = None
    ) -> None:
        if to_factor is not None:
            to_factor += (slope * self.scores[a:b, :stop]).sum()
            slope = slope * self.factor
        to_scores[a:b, :stop] += slope


class Outer:
    """Score j is A[j // c] C[j % c], with A = left @ first.T and C = left @ second.T.

    From left [n, r], first [a, r] and second [c, r]; all products of an A and a C occur, up to stop.
    """

    summed = (True, True, True)
    turned = (False, False, False)
    new = True

    def __init__(self, left: Tensor, first: Tensor, second: Tensor):
        self.left, self.first, self.second = wide(left), wide(first), wide(second)

    @staticmethod
    def whole(left: Tensor, first: Tensor, second: Tensor) -> Tensor:
        outer, inner = (Product.whole(left, factor) for factor in (first, second))
        return (outer.unsqueeze(3) * inner.unsqueeze(2)).flatten(2)[..., : left.shape[1]].contiguous()

    def write(self, a: int, b: int, stop: int, out: Tensor) -> Tensor:
        outer = products.mm(self.left[a:b], self.first.t())
        inner = products.mm(self.left[a:b], self.second.t())
        self.factors = outer, inner
        whole, rest = divmod(stop, inner.shape[1])
        blocks = out[:, : stop - rest].unflatten(1, (whole, -1)) if whole else out[:, None, :0]
        torch.mul(outer[:, :whole, None], inner[:, None] if whole else inner[:, None, :0], out=blocks)
        if rest:
            torch.mul(outer[:, whole, None], inner[:, :rest], out=out[:, stop - rest :])
        return out

    def back(
        self, a: int, b: int, stop: int, slope: Tensor, to_left: Tensor, to_first: Tensor, to_second: Tensor
    ) -> None:
        """For the tile that was written last."""
        outer, inner = self.factors
        to_outer, to_inner = torch.zeros_like(outer), torch.zeros_like(inner)
        whole, rest = divmod(stop, inner.shape[1])
        if whole:
            blocks = slope[:, : stop - rest].unflatten(1, (whole, -1))
            to_outer[:, :whole] = products.matmul(blocks, inner[:, :, None])[:, :, 0]
            to_inner += products.matmul(outer[:, None, :whole], blocks)[:, 0]
        if rest:
            tail = slope[:, stop - rest :]
            to_outer[:, whole] = (tail * inner[:, :rest]).sum(1)
            to_inner[:, :rest] += tail * outer[:, whole, None]
        for grad, weight, target in (
            (to_outer, self.first, to_first),
            (to_inner, self.second, to_second),
        ):
            products.addmm_(to_left[a:b], grad, weight)
            products.addmm_(target, grad.t(), self.left[a:b])


def wide(x: Tensor) -> Tensor:
    return x.to(_parts.accumulator(x.dtype)).contiguous()
