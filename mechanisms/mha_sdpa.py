"""Multi-head softmax attention through torch's fused kernel: what users run.

    y = softmax(q k^T / sqrt(e)) v per head,    then the heads are joined and projected

Paper: Vaswani et al. 2017, arXiv:1706.03762; the kernel works by tiles as Dao et al. 2022, arXiv:2205.14135.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor
from torch.nn import functional

from effbench.mechanisms import _parts
from effbench.mechanisms.mha import MultiHeadAttention, reference, step_flops
from effbench.plugin import Complexity, Flops, Mechanism, Shape


class FusedAttention(MultiHeadAttention):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(q, k, v)


def flops(shape: Shape, *, causal: bool = False, mode: str = "forward") -> Flops:
    """What is needed, since the kernel and its tiles are torch's affair.

    Backward computes the scores again: five products of n^2 d where forward has two.
    """
    b, n, d, h = shape.batch, shape.seq, shape.dim, shape.heads
    train = mode == "train"
    pairs = _parts.visible_pairs(n, causal=causal)
    return Flops(
        matmul=(3 if train else 1) * 8 * b * n * d * d + (14 if train else 4) * b * pairs * d,
        elementwise=(9 if train else 4) * b * h * pairs,
        transcendental=(2 if train else 1) * b * h * pairs,
    )


MECHANISM = Mechanism(
    name="mha-sdpa",
    build=FusedAttention,
    title="MHA, torch's fused attention",
    paper="Vaswani et al. 2017, arXiv:1706.03762",
    reference=reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="n d"),
    flops=flops,
    needed=flops,
    step_flops=partial(step_flops, elementwise=4),
    same_as="mha",
)
