"""The running average with weights exp(k): AFT-simple's causal form, and AFT-conv's sum over far tiles.

Within a chunk the running sums are a product with a triangle of ones, between chunks a short cumulative sum.
"""

from __future__ import annotations

import torch
from torch import Tensor

from effbench import products
from effbench.mechanisms import _gate, _parts

CHUNK = 64  # rows whose running sums are one product with a triangle of ones


def scan_tile(n: int, columns: int) -> int:
    """Rows of a tile whose few temporaries stay in cache: a multiple of CHUNK."""
    rows = max(CHUNK, (1 << 19) // columns // CHUNK * CHUNK, -(-n // 256) // CHUNK * CHUNK)
    return min(rows, -(-n // CHUNK) * CHUNK)


def running_average(q: Tensor, k: Tensor, v: Tensor, gate: _gate.Gate) -> Tensor:
    """gate(q) times the running average of v [b, n, d] with weights exp(k), causal."""
    b, n, d = k.shape
    tile, wide = scan_tile(n, b * d), _parts.accumulator(k.dtype)
    shifts, rises = _parts.key_shifts(k, tile)
    shifts = shifts.unsqueeze(2)  # [tiles, b, 1, d]
    reached = _parts.occurs(rises > _parts.REACH)
    moving = reached or _parts.occurs(shifts != shifts[:1])
    triangle = torch.ones(CHUNK, CHUNK, dtype=wide, device=k.device).tril_()

    def pack(k: Tensor, v: Tensor, shift: Tensor) -> Tensor:
        weights = _parts.exp_keys(k, shift)
        return torch.cat([weights * v, weights], -1)

    def step(i: int, state: Tensor, k: Tensor, v: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, shift = k.shape[1], shifts[i]
        packed = pack(k, v, shift)
        if rows % CHUNK:
            packed = torch.nn.functional.pad(packed, (0, 0, 0, -rows % CHUNK))
        within = products.matmul(triangle, packed.unflatten(1, (-1, CHUNK)))  # [b, chunks, CHUNK, 2d]
        before = torch.cat([state, within[:, :, -1]], 1).cumsum(1)
        numerator, denominator = (within + before[:, :-1, None]).flatten(1, 2)[:, :rows].split(d, -1)
        after = before[:, -1:]
        if moving and i + 1 < len(shifts):
            # Keys out of reach of this tile's shift are within reach of the next one's, which they moved.
            new = shifts[i + 1]
            again = state * (shift - new).exp().repeat(1, 1, 2) + pack(k, v, new).sum(1, keepdim=True)
            after = torch.where((new == shift).repeat(1, 1, 2), after, again)
        flags = _parts.out_of_reach(k, shift) if reached else torch.zeros_like(k, dtype=torch.bool)
        mean = numerator / denominator
        return (gate(q.to(wide)) * mean).to(v.dtype), flags, after

    start = shifts.new_zeros(b, 1, 2 * d)
    y, bad, _ = _parts.scan(step, start, (k, v, q), tile=tile)

    def exact(batch: Tensor, t: Tensor, channel: Tensor) -> Tensor:
        mean = _parts.average(k[batch, :, channel].to(wide), v[batch, :, channel], t)
        return mean * gate(q[batch, t, channel])

    return _parts.rescue(y, bad, exact, n)


def product_flops(n: int, b: int, d: int) -> int:
    """FLOPs of the products with triangles of ones."""
    return 2 * CHUNK * (-(-n // CHUNK) * CHUNK) * 2 * b * d
