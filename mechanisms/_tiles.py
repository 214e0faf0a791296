"""The tiles that AFT-full and AFT-local are computed by: exp(w), [exp(k) v, exp(k)], sums over far keys."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _parts

#: exp(w) needs no shift of its rows where no abs(w) can be larger than this.
TAME = 20.0


def tile_sizes(n: int, columns: int, window: int | None) -> tuple[int, int]:
    """(rows, keys) of a tile of exp(w): it stays in a CPU's cache, and there are never too many of them."""
    if window is not None and window < n:
        tile = min(n, max(128, min(1024, window)))
        return tile, 4 * tile
    tile = min(n, 2048 if n > 32768 else 1024 if n * columns >= 1 << 23 else 512)
    return tile, max(tile // 4, min(1024 if n <= 32768 else 3072, n * columns // tile))


def large_tile_sizes(n: int, columns: int, window: int | None) -> tuple[int, int]:
    """Where no cache asks for small tiles: few launches, and still no more than the inputs' own memory."""
    if window is not None and window < n:
        return (tile := min(n, max(1024, window))), 4 * tile
    tile = min(n, 2048)
    return tile, max(tile // 4, min(4096, n * columns // tile))


class Work:
    """The pieces that forward and backward share. Columns are c = b d; tokens come first: [n, c]."""

    def __init__(
        self, k: Tensor, v: Tensor, left: Tensor, right: Tensor | None, window: int | None, causal: bool
    ):
        self.k, self.v, self.left, self.right, self.causal = k, v, left, right, causal
        self.n, self.columns = k.shape[1], k.shape[0] * k.shape[2]
        self.dtype, self.factors = _parts.accumulator(k.dtype), _parts.factors(k)
        self.window = None if window is None or window >= self.n else max(0, window)
        sizes = tile_sizes if _parts.on_cpu(k) else large_tile_sizes
        self.tile, self.span = sizes(self.n, self.columns, self.window)
        self.count = -(-self.n // self.tile)
        self.reach = self.count if self.window is None else max(0, (self.window + self.tile - 2) // self.tile)
        self.rises = None
        if causal:
            shifts, self.rises = _parts.key_shifts(k, self.tile)
            self.shifts = shifts.flatten(1)  # [tiles, c]
        else:
            self.shifts = k.amax(1).to(self.dtype).view(1, -1).expand(self.count, -1)
        # Where no shift moves, a tile of keys is the same to all rows and is made once.
        self.moving = causal and _parts.occurs(
            (self.shifts != self.shifts[:1]).any() | (self.rises > _parts.REACH).any()
        )
        self.packed = None
        if not self.moving:
            self.packed = k.new_empty(self.n, 2 * self.columns, dtype=self.factors)
            for a, b in _parts.tiles(self.n, self.tile):
                self._pack(a, b, self.shifts[0], self.packed[a:b])
        self.row_shift = self._row_shift()

    def bounds(self, i: int) -> tuple[int, int]:
        return i * self.tile, min(self.n, (i + 1) * self.tile)

    def rhs(self, a: int, b: int, i: int) -> Tensor:
        """[exp(k) v, exp(k)] of keys a to b, [b - a, 2c], as tile i of the rows sees them."""
        return self.wide_rhs(a, b, i, self.factors)

    def wide_rhs(self, a: int, b: int, i: int, dtype: torch.dtype | None = None) -> Tensor:
        """The same in the accumulator's dtype, or in ``dtype``."""
        dtype = dtype or self.dtype
        if self.packed is not None and self.packed.dtype == dtype:
            return self.packed[a:b]
        return self._pack(a, b, self.shifts[i], self.k.new_empty(b - a, 2 * self.columns, dtype=dtype))

    def _pack(self, a: int, b: int, shift: Tensor, out: Tensor) -> Tensor:
        weights = _parts.exp_keys(rows_of(self.k, a, b), shift).to(out.dtype)
        out[:, self.columns :] = weights
        out[:, : self.columns] = weights.mul_(rows_of(self.v, a, b))
        return out

    def spans(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        for a in range(low, high, self.span):
            yield a, min(high, a + self.span)

    def near_keys(self, i: int) -> tuple[int, int]:
        """The keys whose pairs with tile i of the rows are computed one by one."""
        last = i if self.causal else min(self.count - 1, i + self.reach)
        return max(0, i - self.reach) * self.tile, self.bounds(last)[1]

    def near_rows(self, j: int) -> tuple[int, int]:
        first = j if self.causal else max(0, j - self.reach)
        return first * self.tile, self.bounds(min(self.count - 1, j + self.reach))[1]

    def bias(self, a: int, b: int, c: int, d: int) -> Tensor:
        """w of rows a to b and keys c to d, 0 outside the window; the caller may overwrite it."""
        if self.right is None:
            w = self.left[a:b, c:d].to(self.dtype, copy=True)
        else:
            left, right = (x.to(_parts.factors(x)) for x in (self.left[a:b], self.right[c:d]))
            w = products.mm(left, right.t(), dtype=self.dtype)
        return self.cut(w, a, c)

    def cut(self, w: Tensor, a: int, c: int) -> Tensor:
        """Zero outside the window, where w begins at row a and key c, or at key a and row c."""
        if self.window is not None:
            w.tril_(a - c + self.window - 1).triu_(a - c - self.window + 1)
        return w

    def weights(self, a: int, b: int, c: int, d: int) -> Tensor:
        """exp(w - row shift), 0 for the future."""
        w = self.bias(a, b, c, d)
        if self.row_shift is not None:
            w -= self.row_shift[a:b]
        w = self._exp(w)
        return w.tril_(a - c) if self.causal and d > a else w

    def weights_by_key(self, a: int, b: int, c: int, d: int) -> Tensor:
        """The same transposed, [d - c, b - a], as the gradient's products want it."""
        if self.right is None:
            w = self.left[a:b, c:d].t().to(self.dtype, copy=True, memory_format=torch.contiguous_format)
        else:
            left, right = (x.to(_parts.factors(x)) for x in (self.left[a:b], self.right[c:d]))
            w = products.mm(right, left.t(), dtype=self.dtype)
        self.cut(w, c, a)
        if self.row_shift is not None:
            w -= self.row_shift[a:b].t()
        w = self._exp(w)
        return w.triu_(c - a) if self.causal and d > a else w

    def _exp(self, w: Tensor) -> Tensor:
        """exp(w) in the dtype of factors; w may be overwritten."""
        return torch.exp(w, out=w if w.dtype == self.factors else torch.empty_like(w, dtype=self.factors))

    def _row_shift(self) -> Tensor | None:
        """The largest bias that each row sees, [n, 1], where biases are large enough to need it."""
        if not _parts.occurs(largest(self.left, self.right) > TAME):
            return None
        tops = self.left.new_full((self.n, 1), -torch.inf if self.window is None else 0.0, dtype=self.dtype)
        for i in range(self.count):
            a, b = self.bounds(i)
            for c, d in self.spans(*self.near_keys(i)):
                w = self.bias(a, b, c, d)
                if self.causal:
                    future = torch.ones_like(w, dtype=torch.bool).triu_(a - c + 1)
                    w.masked_fill_(future, -torch.inf)
                tops[a:b] = tops[a:b].maximum(w.amax(1, keepdim=True))
        return tops

    def untouched(self, x: Tensor, a: int, b: int) -> Tensor:
        """Rows as far pairs see them, whose bias is 0."""
        return x if self.row_shift is None else x * (-self.row_shift[a:b]).exp()

    def far_keys(self) -> Iterator[Tensor | None]:
        """For each tile of rows: the sum over the keys that it has no bias for, [2c]."""
        if self.reach >= self.count:
            yield from [None] * self.count
        elif self.causal:
            total = self.shifts.new_zeros(2 * self.columns)
            for i in range(self.count):
                if i > 0:
                    total = total * (self.shifts[i - 1] - self.shifts[i]).exp().repeat(2)
                if i > self.reach:
                    total = total + self._sum(i - self.reach - 1, i)
                yield total if i > self.reach else None
        else:
            yield from self._both_sides([self._sum(j, 0) for j in range(self.count)])

    def _sum(self, j: int, i: int) -> Tensor:
        """The sum over tile j of the keys, as tile i of the rows sees them, [2c]."""
        return self.rhs(*self.bounds(j), i).sum(0, dtype=self.dtype)

    def far_rows(self, grads: Tensor) -> list[Tensor | None]:
        """For each tile of keys: the sum of ``grads`` [n, 2c] over the rows that have no bias for it."""
        if self.reach >= self.count:
            return [None] * self.count
        each = [
            self.untouched(grads[a:b], a, b).sum(0, dtype=self.dtype)
            for a, b in map(self.bounds, range(self.count))
        ]
        if not self.causal:
            return list(self._both_sides(each))
        found: list[Tensor | None] = [None] * self.count
        total = torch.zeros_like(each[0])
        for j in range(self.count - self.reach - 2, -1, -1):
            first = j + self.reach + 1  # the total is kept as this tile of rows sees the keys
            if first + 1 < self.count:
                total = total * (self.shifts[first] - self.shifts[first + 1]).exp().repeat(2)
            found[j] = total = total + each[first]
        return found

    def _both_sides(self, each: list[Tensor]) -> Iterator[Tensor]:
        table = torch.stack(each)
        none = torch.zeros_like(table[:1])
        before = torch.cat([none, table.cumsum(0)])
        after = torch.cat([table.flip(0).cumsum(0).flip(0), none])
        for i in range(self.count):
            yield before[max(0, i - self.reach)] + after[min(self.count, i + self.reach + 1)]


def largest(left: Tensor, right: Tensor | None) -> Tensor:
    """A bound of abs(w)."""
    if right is None:
        low, high = left.aminmax()  # abs(w) would be as large as w, [n, n]
        return high.maximum(-low)
    return left.norm(dim=1).amax() * right.norm(dim=1).amax()


def rows_of(x: Tensor, a: int, b: int) -> Tensor:
    """Tokens a to b of [b, n, d] as rows [b - a, c]."""
    return x[:, a:b].transpose(0, 1).reshape(b - a, -1)


def put_rows(x: Tensor, a: int, b: int, rows: Tensor) -> None:
    x[:, a:b] = rows.view(b - a, x.shape[0], -1).transpose(0, 1)


def pairs(n: int, columns: int, window: int | None, *, causal: bool) -> int:
    """How many pairs of tokens the tiles hold: whole tiles, so a little more than the formula needs."""
    window = None if window is None or window >= n else window
    tile, _ = tile_sizes(n, columns, window)
    count = -(-n // tile)
    reach = count if window is None else max(0, (window + tile - 2) // tile)
    ends = [min(n, (i + 1) * tile) for i in range(count)]
    return sum(
        (ends[i] - i * tile) * (ends[i if causal else min(count - 1, i + reach)] - max(0, i - reach) * tile)
        for i in range(count)
    )


def visible_pairs(n: int, columns: int, window: int | None, *, causal: bool) -> int:
    """How many pairs the definition needs: those within the window, if there is one."""
    reach = n if window is None else min(window, n)
    if causal:
        return reach * n - reach * (reach - 1) // 2
    return n + (reach - 1) * (2 * n - reach) if reach else 0  # the diagonal, and those on either side
