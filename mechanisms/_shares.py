"""A tile cut into parts along its rows, for each thread to keep its own from one operation to the next.

An operation on all elements gives a thread a stretch of the rows, but a sum over rows gives it some columns,
and a batch of products some heads: then threads hand each other half of a tile, which takes up to three times
as long where cores have caches of their own far apart. Part by part, a thread has what it made itself.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from effbench.mechanisms import _parts

PARTS, SHORTEST = 4, 128  # of a tile, if each has so many rows


def shares(x: Tensor, rows: int) -> int:
    """Into how many parts of one length so many rows of something like x are cut."""
    several = rows >= PARTS * SHORTEST and _parts.on_cpu(x) and torch.get_num_threads() > 1
    return math.gcd(rows, PARTS) if several else 1


def in_parts(rows: int) -> int:
    """No fewer rows of a tile, which can be cut into parts if they are many."""
    return rows if rows < PARTS * SHORTEST else -(-rows // PARTS) * PARTS


def add_over_tokens(total: Tensor | None, x: Tensor) -> Tensor:
    """``total``, if it is there, and the sums of x [b, n, ...] over the tokens of each part, [b, parts, ...].

    Of tiles, the first has the most parts.
    """
    (b, n), parts = x.shape[:2], shares(x, x.shape[1])
    own = x.sum(1, keepdim=True) if parts == 1 else x.view(b, parts, n // parts, *x.shape[2:]).sum(2)
    if total is None:
        return own
    (total if total.shape[1] == parts else total[:, :parts]).add_(own)
    return total


def joined(total: Tensor) -> Tensor:
    """The sum over all parts, [b, 1, ...]."""
    return total if total.shape[1] == 1 else total.sum(1, keepdim=True)
