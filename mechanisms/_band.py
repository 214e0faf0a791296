"""AFT-local where launches are dear, as on a GPU: all tiles of the band side by side, in a few large steps.

Tiles are as long as the window or longer, so the biases of a tile's rows lie on its own keys and on those of
the tiles beside it: its window, 2 tiles wide if causal and 3 if not. The windows are overlapping views of
padded tensors; a key of the padding has weight 0. Keys out of the window are sums over whole tiles.

Causal, a row tile's keys are exponentials less that tile's own shift, whether or not any shift moves: which
one that is depends on nothing that its rows do not see. Keys far behind it are added at their first far
row's shift.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from effbench import products
from effbench.mechanisms import _parts, _tiles

SHORTEST = 256  # tokens of a tile: shorter ones take no less time
LITTLE = 1 << 24  # elements of what is taken at once, however short the sequence


class Band:
    """The pieces that forward and backward share. Columns are c = b d; tokens come first: [n, c]."""

    def __init__(self, k: Tensor, v: Tensor, left: Tensor, right: Tensor, window: int, causal: bool):
        self.k, self.v, self.n, self.causal = k, v, k.shape[1], causal
        self.columns = k.shape[0] * k.shape[2]
        self.dtype, self.factors = _parts.accumulator(k.dtype), _parts.factors(k)
        self.tile = max(SHORTEST, window)
        self.count, self.parts = -(-self.n // self.tile), 2 if causal else 3
        self.width = self.parts * self.tile
        self.keys = self._padded(_tiles.rows_of(k, 0, self.n), -torch.inf)  # whose exponential is 0
        self.values = self._padded(_tiles.rows_of(v, 0, self.n), 0)
        self.right = self._padded(right.to(_parts.factors(right)), 0)
        self.left = self._padded(left.to(_parts.factors(left)), 0)[1 : self.count + 1]
        self.like = left, right
        row, key = (
            torch.arange(self.tile, device=k.device)[:, None],
            torch.arange(-self.tile, self.width - self.tile, device=k.device),
        )
        self.inside = ((row - key).abs() < window).to(self.dtype)
        self.seen = (key <= row).to(self.factors) if causal else None
        self.shifts = self._shifts()
        self.reached = False
        if causal:
            tops = self.keys[1 : self.count + 1].amax(1).to(self.dtype)
            self.reached = _parts.occurs(tops - self.shifts > _parts.REACH)
        self.packed = None if causal else self._packed()

    def totals(self) -> Iterator[tuple[int, int, Tensor, Tensor | None]]:
        """(start, stop) of some rows, their numerators and denominators [rows, 2c], and which are no good."""
        far = self._far_keys()
        for g, h in self._groups():
            sums = products.bmm(self._weights(g, h), self._rhs(g, h), dtype=self.dtype)
            sums = sums.add_(far[g:h, None]).flatten(0, 1)
            lost = None
            if self.reached:
                lost = _parts.out_of_reach(
                    self.keys[g + 1 : h + 1].to(self.dtype), self.shifts[g:h, None]
                ).flatten(0, 1)
            a, b = self.bounds(g, h)
            yield a, b, sums[: b - a], None if lost is None else lost[: b - a]

    def gradients(
        self, slopes: Tensor, to_k: Tensor, to_v: Tensor, of_bias: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Fill the gradients of k and v, and give those of the bias's factors, from that of all totals."""
        slopes = self._padded(slopes, 0)[1 : self.count + 1]
        keys, values = (torch.zeros_like(self.keys, dtype=self.dtype) for _ in range(2))
        left, right = (torch.zeros_like(x, dtype=self.dtype) for x in (self.left, self.right))
        for g, h in self._groups():
            weights, slope = self._weights(g, h), slopes[g:h]
            found = products.bmm(weights.mT, slope, dtype=self.dtype)
            through = self._through_exp(
                self._windows(self.keys)[g:h], self._windows(self.values)[g:h], self.shifts[g:h], found
            )
            for total, each in zip((keys, values), through, strict=True):
                self._add_windows(total, g, h, each)
            if of_bias:
                bias = products.bmm(slope, self._rhs(g, h).mT, dtype=self.dtype)
                bias = bias.mul_(weights).mul_(self.inside).to(self.left.dtype)
                left[g:h] = products.bmm(bias, self._windows(self.right)[g:h], dtype=self.dtype)
                self._add_windows(right, g, h, products.bmm(bias.mT, self.left[g:h], dtype=self.dtype))
        far, shifts = self._far_rows(slopes.sum(1, dtype=self.dtype)), self._first_far(self.shifts)
        for g, h in self._groups():
            its = slice(g + 1, h + 1)
            through = self._through_exp(self.keys[its], self.values[its], shifts[g:h], far[g:h, None])
            for total, each in zip((keys, values), through, strict=True):
                total[its] += each
        for target, total in ((to_k, keys), (to_v, values)):
            _tiles.put_rows(target, 0, self.n, total[1 : self.count + 1].flatten(0, 1)[: self.n])
        if not of_bias:
            return None, None
        pair = left.flatten(0, 1), right[1 : self.count + 1].flatten(0, 1)
        return tuple(x[: self.n].to(like.dtype) for x, like in zip(pair, self.like, strict=True))

    def bounds(self, g: int, h: int) -> tuple[int, int]:
        """The tokens of tiles g to h."""
        return g * self.tile, min(self.n, h * self.tile)

    def _groups(self) -> Iterator[tuple[int, int]]:
        """Tiles whose windows hold no more than half of the sequence does, or what is little anyway."""
        return _parts.tiles(self.count, max(1, max(self.n // 2, self._little()) // self.width))

    def _little(self) -> int:
        """So many tokens are little whatever the length."""
        return LITTLE // (2 * self.columns)

    def _padded(self, rows: Tensor, value: float) -> Tensor:
        """[n, .] in tiles, [count + 2, tile, .], the first and the last one of them padding."""
        after = (self.count + 1) * self.tile - self.n
        return functional.pad(rows, (0, 0, self.tile, after), value=value).unflatten(0, (-1, self.tile))

    def _windows(self, x: Tensor) -> Tensor:
        """Of padded tiles those that each tile's rows see near, [count, parts tile, .]; a view."""
        return x.as_strided((self.count, self.width, x.shape[2]), x.stride())

    def _add_windows(self, total: Tensor, g: int, h: int, each: Tensor) -> None:
        """Add [tiles, parts tile, .] to the padded tiles that the windows of tiles g to h see."""
        for i, part in enumerate(each.split(self.tile, 1)):
            total[g + i : h + i] += part

    def _shifts(self) -> Tensor:
        """[count, c]."""
        if not self.causal:
            return self.k.amax(1).to(self.dtype).view(1, -1).expand(self.count, -1)
        tiles = self.keys[1 : self.count + 1]
        return _parts.shifts_from(tiles.amax(1), tiles[:, 0])[0]

    def _exp_keys(self, keys: Tensor, shifts: Tensor) -> Tensor:
        return _parts.exp_keys(keys, shifts.unsqueeze(1))

    def _pack(self, keys: Tensor, values: Tensor, shifts: Tensor) -> Tensor:
        """[exp(k) v, exp(k)] of tiles or windows, [., ., 2c]."""
        weights = self._exp_keys(keys, shifts).to(self.factors)
        return torch.cat([weights * values, weights], -1)

    def _packed(self) -> Tensor:
        """Not causal: of all padded tiles at once, since all rows share a shift."""
        out = self.keys.new_empty(*self.keys.shape[:2], 2 * self.columns, dtype=self.factors)
        for g, h in _parts.tiles(len(out), max(1, len(out) // 4, self._little() // self.tile)):
            out[g:h] = self._pack(self.keys[g:h], self.values[g:h], self.shifts[:1])
        return out

    def _rhs(self, g: int, h: int) -> Tensor:
        """Those of the windows of tiles g to h, [tiles, parts tile, 2c]."""
        if self.packed is not None:
            return self._windows(self.packed)[g:h]
        return self._pack(self._windows(self.keys)[g:h], self._windows(self.values)[g:h], self.shifts[g:h])

    def _weights(self, g: int, h: int) -> Tensor:
        """exp(w) of the rows of some tiles and the keys of their windows, 0 for the future."""
        bias = products.bmm(self.left[g:h], self._windows(self.right)[g:h].mT, dtype=self.dtype)
        bias *= self.inside
        out = bias if bias.dtype == self.factors else torch.empty_like(bias, dtype=self.factors)
        weights = torch.exp(bias, out=out)
        return weights if self.seen is None else weights.mul_(self.seen)

    def _first_far(self, shifts: Tensor) -> Tensor:
        """Of each tile of keys the shift of the first rows that it is far from."""
        return torch.cat([shifts[2:], shifts[-1:].expand(min(2, self.count), -1)])

    def _far_keys(self) -> Tensor:
        """Of each tile the sums over the keys out of its window, [count, 2c]."""
        shifts, sums = self._first_far(self.shifts), []
        for g, h in self._groups():
            its = slice(g + 1, h + 1)
            sums.append(self._pack(self.keys[its], self.values[its], shifts[g:h]).sum(1, dtype=self.dtype))
        table = torch.cat(sums)
        if self.causal:
            return self._two_later(self._running(table, shifts))
        return self._two_later(table.cumsum(0)) + self._two_earlier(table.flip(0).cumsum(0).flip(0))

    def _far_rows(self, table: Tensor) -> Tensor:
        """For each tile of keys the sum of slopes over the rows that are far from it, [count, 2c]."""
        if self.causal:
            # A later shift's exponentials are an earlier one's, divided by exp of what the shift has risen.
            return self._two_earlier(self._running(table.flip(0), -self.shifts.flip(0)).flip(0))
        return self._two_later(table.cumsum(0)) + self._two_earlier(table.flip(0).cumsum(0).flip(0))

    def _two_later(self, sums: Tensor) -> Tensor:
        """To each tile what ends two tiles before it, [count, .]."""
        return torch.cat([sums.new_zeros(2, sums.shape[1]), sums])[: self.count]

    def _two_earlier(self, sums: Tensor) -> Tensor:
        """To each tile what begins two tiles after it."""
        return torch.cat([sums, sums.new_zeros(2, sums.shape[1])])[2:]

    def _running(self, table: Tensor, shifts: Tensor) -> Tensor:
        """Causal: the sums of table[: j + 1], each at its own shift, as of shift j; in steps of 1, 2, 4, ...

        The steps are the same whether or not any shift moves, so the future does not change how a sum rounds.
        """
        step = 1
        while step < len(table):
            carried = table[:-step] * (shifts[:-step] - shifts[step:]).exp().repeat(1, 2)
            table = torch.cat([table[:step], table[step:] + carried])
            step *= 2
        return table

    def _through_exp(
        self, keys: Tensor, values: Tensor, shifts: Tensor, found: Tensor
    ) -> tuple[Tensor, Tensor]:
        """What the gradient of [exp(k) v, exp(k)] means for k and v."""
        weights = self._exp_keys(keys, shifts)
        to_weighted, to_plain = found.split(self.columns, -1)
        to_values = weights * to_weighted
        return (to_values * values).add_(weights * to_plain), to_values
