"""softmax(scores) @ v with all scores at once, where they are few: shared by mha-tiled and the Synthesizers.

At such lengths an operator costs more than its work: there are as few as the formula has, and torch's own
gradients. No look at values: the softmax of a whole row needs none. The weights are kept for backward, which
need not make them again; they are no more than a tile of the longer forms.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts
from effbench.mechanisms._scores import Term

LONGEST = 512  # tokens: of longer causal sequences tiles leave out enough of the future to be faster
MOST = 1 << 21  # scores of all groups: 8 MiB in float32


def fits(groups: int, n: int) -> bool:
    """Whether the scores of this many groups are made at once: on every device, as the closed forms say."""
    return n <= LONGEST and groups * n * n <= MOST


def score_products(groups: int, n: int, *, mode: str) -> int:
    """How many products as large as that of the scores they take, in training with those of gradients.

    One more where backward makes them again.
    """
    if mode != "train":
        return 1
    return 3 if fits(groups, n) else 4


def softmax_whole(terms: Sequence[Term], v: Tensor, *, causal: bool) -> Tensor:
    """softmax(sum of the terms) @ v for each of g groups, v [g, n, c]."""
    scores, *others = (_parts.spread(term.kind.whole(*term.tensors), v.shape[0]) for term in terms)
    if causal:
        others.append(scores.new_full(scores.shape[1:], -torch.inf).triu_(1))
    mine = terms[0].kind.new  # fresh pages take longer than a sum
    for other in others:
        scores, mine = scores.add_(other) if mine else scores + other, True
    weights = torch.softmax(scores, -1, out=scores if mine and not scores.requires_grad else None)
    return products.matmul(weights, v.to(weights.dtype)).to(v.dtype)
