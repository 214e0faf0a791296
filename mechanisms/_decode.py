"""Decoding: what a causal mechanism keeps of the tokens that it has seen, and how one more joins them.

A state is a value: a step makes another one and leaves the given one as it is, so any state may be stepped
from again. Caches grow in place behind the rows that a state knows of, to save copying them at every step;
of two continuations of one state, only the later one may be continued. No gradients flow.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts

SPARE = 64  # rows that a cache has room for, at the least, when it is made or outgrown


class Stepwise(_parts.Mixer):
    """Token by token: ``remember`` what ``project`` made of a sequence, ``follow`` with one more token."""

    causal: bool

    def remember(self, *projected: Tensor) -> Any:
        """The state after a sequence, which may be empty."""
        raise NotImplementedError

    def follow(self, state: Any, *projected: Tensor) -> tuple[Tensor, Any]:
        """What mix gives for the next token, [b, 1, d] or by heads, and the state after it."""
        raise NotImplementedError

    def initial_state(self, batch: int) -> Any:
        """The state before the first token."""
        return self.prefill(self.value.weight.new_empty(batch, 0, self.value.in_features))

    def prefill(self, x: Tensor) -> Any:
        """The state after x [b, n, d]; ValueError where the module was not built causal."""
        self._check_causal()
        with torch.no_grad():
            return self.remember(*self.project(x))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The output [b, d] for one more token x [b, d], and the state after it."""
        self._check_causal()
        with torch.no_grad():
            y, state = self.follow(state, *self.project(x.unsqueeze(1)))
            return self.combine(y).squeeze(1), state

    def _check_causal(self) -> None:
        if not self.causal:
            raise ValueError("this module was built with causal=False: only a causal one goes token by token")


class Rows(NamedTuple):
    """Rows along ``dim`` of some tensors, start to stop, in memory with room for more behind them."""

    space: tuple[Tensor, ...]
    start: int
    stop: int
    dim: int

    @classmethod
    def hold(cls, *tensors: Tensor, dim: int) -> Rows:
        return cls(tuple(x.narrow(dim, 0, 0) for x in tensors), 0, 0, dim).append(*tensors)

    @property
    def count(self) -> int:
        return self.stop - self.start

    def held(self) -> tuple[Tensor, ...]:
        return tuple(x.narrow(self.dim, self.start, self.stop - self.start) for x in self.space)

    def append(self, *tensors: Tensor) -> Rows:
        stop = self.stop + tensors[0].shape[self.dim]
        if stop > self.space[0].shape[self.dim]:
            return self._moved(stop - self.stop).append(*tensors)
        for space, rows in zip(self.space, tensors, strict=True):
            space.narrow(self.dim, self.stop, stop - self.stop).copy_(rows)
        return Rows(self.space, self.start, stop, self.dim)

    def without(self, first: int) -> Rows:
        """Without the ``first`` rows, whose memory is left behind at the next move."""
        return Rows(self.space, self.start + first, self.stop, self.dim)

    def _moved(self, more: int) -> Rows:
        """In larger memory, by a quarter: rows are moved a constant number of times on average."""
        size, space = self.count + more, []
        for rows in self.held():
            shape = list(rows.shape)
            shape[self.dim] = size + max(SPARE, size // 4)
            space.append(rows.new_empty(shape))
            space[-1].narrow(self.dim, 0, self.count).copy_(rows)
        return Rows(tuple(space), 0, self.count, self.dim)


class WeightedSum(NamedTuple):
    """The sums of exp(k) v and of exp(k), both divided by exp(shift): the shift is the largest k so far."""

    shift: Tensor
    numerator: Tensor
    denominator: Tensor

    @classmethod
    def over(cls, k: Tensor, v: Tensor) -> WeightedSum:
        """Along the first dimension, which may be empty."""
        shift = largest(k, 0)
        weights = (k - shift).exp()
        return cls(shift, (weights * v).sum(0), weights.sum(0))

    def add(self, k: Tensor, v: Tensor) -> WeightedSum:
        shift = self.shift.maximum(k)
        old, new = (self.shift - shift).exp_(), (k - shift).exp_()
        numerator = torch.addcmul(self.numerator * old, v, new)
        return WeightedSum(shift, numerator, torch.addcmul(new, self.denominator, old))

    def merge(self, other: WeightedSum) -> WeightedSum:
        shift = self.shift.maximum(other.shift)
        mine, its = (self.shift - shift).exp_(), (other.shift - shift).exp_()
        return WeightedSum(
            shift,
            torch.addcmul(self.numerator * mine, other.numerator, its),
            torch.addcmul(self.denominator * mine, other.denominator, its),
        )

    def mean(self) -> Tensor:
        return self.numerator / self.denominator


class Logits(NamedTuple):
    """The last ``reach`` keys k and values v, which have a bias, and the weighted sum of those before.

    Any biases will do: weights are found in log space at every step.
    """

    near: Rows
    far: WeightedSum
    reach: int

    @classmethod
    def of(cls, k: Tensor, v: Tensor, reach: int) -> Self:
        """k and v [n, ...], tokens first, in the accumulator's dtype."""
        cut = max(0, len(k) - reach)
        return cls(Rows.hold(k[cut:], v[cut:], dim=0), WeightedSum.over(k[:cut], v[:cut]), reach)

    def add(self, k: Tensor, v: Tensor) -> Logits:
        """One more key and value, [1, ...]."""
        near, far = self.near.append(k, v), self.far
        if near.count > self.reach:
            far = far.add(*(x[near.start] for x in near.space))
            near = near.without(1)
        return Logits(near, far, self.reach)

    def average(self, bias: Tensor) -> Tensor:
        """The mean of all values with weights exp(k + bias); bias [near, ...]."""
        k, v = self.near.held()
        return WeightedSum.over(k + bias, v).merge(self.far).mean()


class Exponentials(NamedTuple):
    """As Logits for k and v [n, c], kept as rows [exp(k - shift) v, exp(k - shift)]: one product a step.

    For biases within ``_tiles.TAME``, where no weight that counts is lost to underflow. The shift [c] is
    as large as some key, and is raised only where a key exceeds it by ``_parts.REACH``.
    """

    near: Rows
    far: Tensor
    shift: Tensor
    reach: int

    @classmethod
    def of(cls, k: Tensor, v: Tensor, reach: int) -> Self:
        cut, shift = max(0, len(k) - reach), largest(k, 0)
        far = _packed(k[:cut], v[:cut], shift).sum(0)
        return cls(Rows.hold(_packed(k[cut:], v[cut:], shift), dim=0), far, shift, reach)

    def add(self, k: Tensor, v: Tensor) -> Exponentials:
        """One more key and value, [1, c]."""
        near, far, shift = self.near, self.far, self.shift
        if exceeds(shift, k):
            shift = torch.where(k[0] > shift + _parts.REACH, k[0], shift)
            less = (self.shift - shift).exp_().repeat(2)
            near, far = Rows.hold(near.held()[0] * less, dim=0), far * less
        near = near.append(_packed(k, v, shift))
        if near.count > self.reach:
            far = far + near.space[0][near.start]
            near = near.without(1)
        return Exponentials(near, far, shift, self.reach)

    def average(self, bias: Tensor) -> Tensor:
        """bias [near, 1] -> [c]."""
        sums = products.mm(bias.exp().t(), self.near.held()[0]).add_(self.far)
        numerator, denominator = sums[0].chunk(2)
        return numerator / denominator


def largest(k: Tensor, dim: int) -> Tensor:
    """The maximum along a dimension, -inf of none."""
    return k.amax(dim) if k.shape[dim] else k.sum(dim) - torch.inf


@_parts.eager
def exceeds(shift: Tensor, k: Tensor) -> bool:
    """Whether some key lies out of the shift's reach."""
    return _parts.occurs(k > shift + _parts.REACH)


def _packed(k: Tensor, v: Tensor, shift: Tensor) -> Tensor:
    weights = (k - shift).exp_()
    return torch.cat([weights * v, weights], -1)
