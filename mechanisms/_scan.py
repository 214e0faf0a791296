"""Running sums and maxima along the sequence, in place."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from effbench.mechanisms import _parts

STEPS, STEPS_ELSEWHERE = 16, 128  # rows whose running sums are taken in turn, by many groups at once
Join = Callable[..., Tensor]  # torch.add or torch.maximum


def accumulate_(x: Tensor, *, join: Join = torch.add, reverse: bool = False) -> Tensor:
    """The running sum along dimension 1 of x [b, rows, c], from the last row on if ``reverse``; in place.

    With ``join`` torch.maximum, the largest so far.

    Within groups of rows, all groups at once, then over the groups' ends, likewise. torch's cumsum along that
    dimension takes ten times as long on a CPU, a product with a triangle of ones three times; on a GPU it has
    only the c columns to share out among its threads.
    """
    rows, size = x.shape[1], STEPS if _parts.on_cpu(x) else STEPS_ELSEWHERE
    whole = rows // size * size
    if whole > size:
        groups = (x[:, rows - whole :] if reverse else x[:, :whole]).unflatten(1, (-1, size))
        _accumulate_each(groups, 2, join, reverse)
        ends = groups.select(2, 0 if reverse else -1).clone()
        ends = accumulate_(ends, join=join, reverse=reverse).unsqueeze(2)
        if reverse:
            join(groups[:, :-1], ends[:, 1:], out=groups[:, :-1])
        else:
            join(groups[:, 1:], ends[:, :-1], out=groups[:, 1:])
    rest = x[:, : rows - whole + 1] if reverse else x[:, whole - 1 :]
    _accumulate_each(rest if whole > size else x, 1, join, reverse)
    return x


def _accumulate_each(x: Tensor, dim: int, join: Join, reverse: bool) -> None:
    """The running sum along a short dimension: row by row, or where each row would be a launch by cumsum."""
    if not _parts.on_cpu(x):
        turned = x.flip(dim) if reverse else x
        found = turned.cumsum(dim) if join is torch.add else turned.cummax(dim).values
        x.copy_(found.flip(dim) if reverse else found)
        return
    rows = x.unbind(dim)
    for before, after in itertools.pairwise(rows[::-1] if reverse else rows):
        join(after, before, out=after)
