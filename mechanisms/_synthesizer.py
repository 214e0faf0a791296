"""The Synthesizer's layer: softmax(scores) V per head, then the heads are joined and projected.

What differs from one Synthesizer to the next is where its scores come from: a ``Scores`` says it.
Paper: Tay et al. 2021, arXiv:2005.00743. Value and output projections as in MHA, without biases.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from effbench import products
from effbench.mechanisms import _decode, _parts, _rows, _whole
from effbench.mechanisms._scores import Term
from effbench.plugin import Flops, Shape

Pairs = Callable[..., int]  # how many scores the tiles of one group hold, by length and causal


class Scores(nn.Module):
    """Where a Synthesizer's scores come from; it is built for a largest length."""

    made = 0  # how many tensors are made of the tokens
    kept = 0  # how many of these a later token needs, the first ones

    def tensors(self, x: Tensor) -> tuple[Tensor, ...]:
        """What is made of the tokens x [b, n, d], each [b, h, n, .]; nothing where the map is the input's."""
        return ()

    def term(self, n: int, *tensors: Tensor, factor: Tensor) -> Term:
        """The scores of n tokens, times a factor (a single number), as a mixture takes them."""
        raise NotImplementedError

    def row(self, t: int, *tensors: Tensor) -> Tensor:
        """The scores [b, h, t + 1] of token t alone (b may be 1); kept tensors are those of t + 1 tokens."""
        raise NotImplementedError

    def matrix(self, x: Tensor, head: int) -> Tensor:
        """The definition, slow and obvious: all scores of one head, [b or 1, n, n]."""
        raise NotImplementedError


class Synthesizer(_decode.Stepwise):
    def __init__(self, shape: Shape, scores: Scores, *, causal: bool = False):
        super().__init__()
        self.causal, self.heads, self.length = causal, shape.heads, shape.seq
        self.value, self.out = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(2))
        self.scores = scores

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        _parts.check_length(x.shape[1], self.length)
        values = _parts.split_heads(products.linear(x, self.value.weight), self.heads)
        return values, *self.scores.tensors(x)

    def mix(self, v: Tensor, *tensors: Tensor) -> Tensor:
        raise NotImplementedError

    def combine(self, y: Tensor) -> Tensor:
        return products.linear(_parts.merge_heads(y), self.out.weight)

    def remember(self, values: Tensor, *tensors: Tensor) -> _decode.Rows:
        """The values, and what of the scores a later token needs, along dimension 2."""
        return _decode.Rows.hold(values, *tensors[: self.scores.kept], dim=2)

    def follow(self, state: _decode.Rows, values: Tensor, *tensors: Tensor) -> tuple[Tensor, _decode.Rows]:
        """In work that grows with the position."""
        t = state.stop
        _parts.check_length(t + 1, self.length)
        state = state.append(values, *tensors[: self.scores.kept])
        cached, *kept = state.held()
        weights = self.scores.row(t, *kept, *tensors[len(kept) :]).softmax(-1)  # [b or 1, h, t + 1]
        y = weights[:, :, None] @ cached.to(weights.dtype)
        return y.to(values.dtype), state


def reference(module: Synthesizer, x: Tensor) -> Tensor:
    """Head by head."""
    n, e = x.shape[1], x.shape[2] // module.heads
    heads = []
    for h in range(module.heads):
        scores = module.scores.matrix(x, h)
        if module.causal:
            scores = scores + torch.full((n, n), -torch.inf, dtype=x.dtype).triu(1)
        weights = torch.exp(scores - scores.logsumexp(-1, keepdim=True))
        heads.append(weights @ (x @ module.value.weight[h * e : (h + 1) * e].T))
    return torch.cat(heads, dim=-1) @ module.out.weight.T


def flops(
    shape: Shape,
    *,
    causal: bool,
    mode: str,
    groups: int,
    scores: float,
    terms: int = 1,
    pairs: Pairs = _rows.row_pairs,
) -> Flops:
    """From the products that the scores take, ``scores``, and the maps that there are, ``groups``.

    Backward computes scores of several tiles, and their softmax, again.
    """
    b, n, d, train = shape.batch, shape.seq, shape.dim, mode == "train"
    held, whole = pairs(n, causal=causal), _whole.fits(groups, n)
    times = 2 if train and not whole else 1
    return Flops(
        matmul=2 * 2 * b * n * d * d * (3 if train else 1) + b * held * d * (6 if train else 2) + scores,
        elementwise=groups * held * (((8 if whole else 11) if train else 4) + times * 2 * (terms - 1)),
        transcendental=groups * held * times,
    )


def product_flops(
    shape: Shape, *, causal: bool, mode: str, groups: int, width: int, pairs: Pairs = _rows.row_pairs
) -> float:
    """Scores as a product of [n, width] and [width, n]."""
    times = _whole.score_products(groups, shape.seq, mode=mode)
    return 2 * times * groups * pairs(shape.seq, causal=causal) * width


def projection_flops(shape: Shape, *, mode: str) -> float:
    """Of one projection [d, d]."""
    return 2 * shape.batch * shape.seq * shape.dim**2 * (3 if mode == "train" else 1)


def scaled(x: Tensor, factor: Tensor) -> Tensor:
    """factor * x in the accumulator's dtype, so that a factor costs no digits."""
    return factor * x.to(_parts.accumulator(x.dtype))


def exact(a: Tensor, b: Tensor) -> Tensor:
    """a @ b in the accumulator's dtype."""
    dtype = _parts.accumulator(a.dtype)
    return a.to(dtype) @ b.to(dtype)
