"""Keys that rise far above the shift of their own tile of rows, in causal form: sums by levels of keys.

A key within ``REACH`` of the shift is of level 0; one above it of the lowest multiple of ``LEVEL`` that puts
it in reach. A row's sums are kept in units of exp(J), J the highest level that it has seen: they never
overflow, and a denominator is at least exp(REACH - LEVEL). Keys to come have no part in it.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from effbench.mechanisms import _parts, _scan

LEVEL = 60.0


def levels(rises: Tensor) -> Tensor:
    """Of keys that lie so far above the shift."""
    return ((rises - _parts.REACH) / LEVEL).ceil_().clamp_(min=0).mul_(LEVEL)


def tops(rises: Tensor) -> Tensor:
    """J of every row, [b, rows, c], where ``rises`` says how far its own key lies above the shift."""
    return levels(_scan.accumulate_(rises.clone(), join=torch.maximum))


def accumulate_(sums: Tensor, tops: Tensor, *, reverse: bool = False) -> Tensor:
    """The running sums of ``sums`` [2, b, rows, c], each row in units of exp(J) for its own J; in place.

    If ``reverse`` from the last row on, in units of exp(-J): the gradient of sums.
    """
    rows, size = tops.shape[1], _scan.STEPS
    whole = rows // size * size
    if whole <= size:
        _each(sums, tops, reverse)
        return sums
    part = slice(rows - whole, None) if reverse else slice(whole)
    groups, its = (x[..., part, :].unflatten(-2, (-1, size)) for x in (sums, tops))
    _each(groups, its, reverse)
    ends, last = (x[..., 0 if reverse else -1, :].clone() for x in (groups, its))
    accumulate_(ends, last, reverse=reverse)
    if reverse:
        groups[..., :-1, :, :].addcmul_(
            ends[..., 1:, None, :], _fading(its[..., :-1, :, :], last[..., 1:, None, :])
        )
    else:
        groups[..., 1:, :, :].addcmul_(
            ends[..., :-1, None, :], _fading(last[..., :-1, None, :], its[..., 1:, :, :])
        )
    rest = slice(rows - whole + 1) if reverse else slice(whole - 1, None)
    _each(sums[..., rest, :], tops[..., rest, :], reverse)
    return sums


def _each(sums: Tensor, tops: Tensor, reverse: bool) -> None:
    """Row by row."""
    fading = _fading(tops[..., :-1, :], tops[..., 1:, :]).unbind(-2)
    rows = sums.unbind(-2)
    pairs = itertools.pairwise(rows[::-1] if reverse else rows)
    for (before, after), fade in zip(pairs, fading[::-1] if reverse else fading, strict=True):
        after.addcmul_(before, fade)


def _fading(low: Tensor, high: Tensor) -> Tensor:
    """What a sum weighs that is carried between rows of these levels: exp(low - high)."""
    return (low - high).clamp_(min=_parts.faintest(low.dtype)).exp_()
