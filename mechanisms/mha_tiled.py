"""Multi-head softmax attention by tiles of scores: exact, with memory linear in n.

    y = softmax(q k^T / sqrt(e)) v per head,    then the heads are joined and projected

The same function as MHA and torch's fused kernel, on the matrix products that the AFTs and Synthesizers have:
against it they are compared on equal terms where ``gemm`` is not torch's.

Paper: Vaswani et al. 2017, arXiv:1706.03762, equation 1; by tiles: Rabe and Staats 2021, arXiv:2112.05682.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor

from effbench.mechanisms import _parts, _rows, _tiled, _whole
from effbench.mechanisms._scores import Product, Term
from effbench.mechanisms.mha import MultiHeadAttention, reference, step_flops
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def tiled_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """q k v [b, h, n, e], scale 1/sqrt(e)."""
    left = q.to(_parts.accumulator(q.dtype)) * q.shape[-1] ** -0.5
    scores = Term(Product, (left.flatten(0, 1), k.flatten(0, 1)))
    return _rows.softmax([scores], v.flatten(0, 1), causal=causal).view_as(v)


class TiledAttention(MultiHeadAttention):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return tiled_attention(q, k, v, causal=self.causal)


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    pairs: Callable[..., int] = _tiled.pairs,
    columns: int = 1,
) -> Flops:
    """Where forward has two products of n^2 d backward has four, and by tiles a fifth: the scores again.

    ``columns``: those beside the factors of backward's products, by tiles.
    """
    b, n, d, h, train = shape.batch, shape.seq, shape.dim, shape.heads, mode == "train"
    held, whole = pairs(n, causal=causal), _whole.fits(b * h, n)
    of_scores, of_values = _whole.score_products(b * h, n, mode=mode), 3 if train else 1
    mix = b * held * 2 * (of_scores + of_values) * d
    beside = columns * _tiled.column_flops(b * h, n, held, mode=mode)
    return Flops(
        matmul=4 * 2 * b * n * d * d * (3 if train else 1) + mix + beside,
        elementwise=b * h * held * ((8 if whole else 11) if train else 4),
        transcendental=b * h * held * (2 if train and not whole else 1),
    )


MECHANISM = Mechanism(
    name="mha-tiled",
    build=TiledAttention,
    title="MHA, by tiles",
    paper="Vaswani et al. 2017, arXiv:1706.03762",
    reference=reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="n d"),
    flops=flops,
    needed=partial(flops, pairs=_parts.visible_pairs, columns=0),
    step_flops=step_flops,
    same_as="mha",
)
