"""The discrete Fourier transform of real tensors by matrices, y = C x C - S x S, for FNet.

C sees the part of x that is even in both indices and S the part that is odd in both: a quarter of x each.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from effbench import products
from effbench.mechanisms import _parts

TILE = 1 << 21  # elements of a tile of a matrix: the indices of one take more memory than it
Matrices = tuple[Tensor, Tensor]  # the cosines and the sines of a length, see matrices


def by_matrices(x: Tensor, rows: Matrices | None, columns: Matrices | None) -> Tensor:
    wide = _parts.accumulator(x.dtype)
    rows = rows or matrices(x.shape[1], wide, x.device)
    columns = columns or matrices(x.shape[2], wide, x.device)
    y = torch.empty_like(x)
    for one, target in zip(x, y, strict=True):
        one = one.to(wide)
        even, odd = (_fold(_fold(one, sign).mT, sign).mT for sign in (1, -1))
        even = products.mm(products.mm(rows[0], even), columns[0])
        odd = products.mm(products.mm(rows[1], odd), columns[1])
        _unfold(target, even, odd)
    return y


def _fold(x: Tensor, sign: int) -> Tensor:
    """x[c] + sign x[-c] along the last dimension: where c <= -c mod d, without zeros and without repeats."""
    d = x.shape[-1]
    paired = (d - 1) // 2  # how many c have a partner -c > c
    if sign < 0:
        return x[..., 1 : paired + 1] - x[..., d - paired :].flip(-1)
    even = x[..., : d // 2 + 1].clone()
    even[..., 1 : paired + 1] += x[..., d - paired :].flip(-1)
    return even


def _unfold(y: Tensor, even: Tensor, odd: Tensor) -> None:
    """y [n, d] from C x C and S x S, of which the first is even and the second odd in both indices."""
    (n, d), (r, c) = y.shape, odd.shape
    y[: n // 2 + 1, : d // 2 + 1] = even
    y[n - r :, : d // 2 + 1] = even[1 : r + 1].flip(0)
    y[: n // 2 + 1, d - c :] = even[:, 1 : c + 1].flip(1)
    y[n - r :, d - c :] = even[1 : r + 1, 1 : c + 1].flip(0, 1)
    y[1 : r + 1, 1 : c + 1] -= odd
    y[n - r :, d - c :] -= odd.flip(0, 1)
    y[n - r :, 1 : c + 1] += odd.flip(0)
    y[1 : r + 1, d - c :] += odd.flip(1)


def matrices(n: int, dtype: torch.dtype, device: torch.device) -> Matrices:
    """cos and sin of 2 pi j k / n for 0 <= j, k <= n / 2, the sines without those that are 0.

    n^2 / 2 elements in all.
    """
    turn = (2 * math.pi / n) * torch.arange(n, device=device, dtype=torch.float64)
    cosines = _at_products(turn.cos().to(dtype), 0, n // 2 + 1)
    return cosines, _at_products(turn.sin().to(dtype), 1, (n - 1) // 2 + 1)


def _at_products(wave: Tensor, first: int, stop: int) -> Tensor:
    """wave[j k mod n], rows by tiles, at most some 64: the indices take more memory than the matrix."""
    k = torch.arange(first, stop, device=wave.device)
    matrix = wave.new_empty(len(k), len(k))
    for a, b in _parts.tiles(len(k), max(1, TILE // max(1, len(k)), len(k) // 64)):
        matrix[a:b] = wave[k[a:b, None] * k % len(wave)]
    return matrix


class Waves(nn.Module):
    """The DFT matrices of one length, in the accumulator of the dtype that the module is in."""

    def __init__(self, length: int):
        super().__init__()
        self.length = length
        self._make(torch.empty(0))

    def of(self, length: int, x: Tensor) -> Matrices | None:
        """The matrices, where they are those of this length and of what x is computed in."""
        held = (self.length, self.cosines.dtype, self.cosines.device)
        return (self.cosines, self.sines) if held == (length, _parts.accumulator(x.dtype), x.device) else None

    def _make(self, like: Tensor) -> None:
        pair = matrices(self.length, _parts.accumulator(like.dtype), like.device)
        for name, matrix in zip(("cosines", "sines"), pair, strict=True):
            self.register_buffer(name, matrix, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """To another dtype or device: made anew there, since a cast would keep the rounding of this dtype."""
        like = fn(self.cosines[:0])
        if (_parts.accumulator(like.dtype), like.device) != (self.cosines.dtype, self.cosines.device):
            self._make(like)
        return self
