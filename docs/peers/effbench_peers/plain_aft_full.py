"""AFT-full as one writes it from the paper: exp(w) whole, two matrix products.

Computes effbench's aft-full with the same projections (q, k, v) and position factors. exp is shifted by the
largest key and the largest bias of a row, of the future too where causal, so an early row can underflow.

Formula: Zhai et al. 2021, arXiv:2105.14103, equation 2.
"""

import torch
from torch import Tensor, nn

from effbench.plugin import Complexity, Mechanism
from effbench_peers import definitions
from effbench_peers.layers import QueryKeyValue


def aft_full(q: Tensor, k: Tensor, v: Tensor, w: Tensor, *, causal: bool = False) -> Tensor:
    """q k v [b, n, d]; w [n, n]: query t, key s."""
    weights = (w - w.amax(1, keepdim=True)).exp()
    if causal:
        weights = weights.tril()
    keys = (k - k.amax(1, keepdim=True)).exp()
    return q.sigmoid() * (weights @ (keys * v)) / (weights @ keys)


class PlainAFTFull(QueryKeyValue):
    def __init__(self, shape, *, causal: bool, rank: int | None = 64):
        super().__init__(shape, causal=causal)
        width = rank or shape.seq
        self.position = nn.Parameter(0.01 * torch.randn(shape.seq, width))
        self.position_key = nn.Parameter(0.01 * torch.randn(shape.seq, width)) if rank else None

    def position_bias(self, n: int) -> Tensor:
        if self.position_key is None:
            return self.position[:n, :n]
        return self.position[:n] @ self.position_key[:n].T

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return aft_full(q, k, v, self.position_bias(q.shape[1]), causal=self.causal)


def reference(module: PlainAFTFull, x: Tensor) -> Tensor:
    n = x.shape[1]
    return definitions.aft(
        *module.project(x), module.position_bias(n) + definitions.unseen(n, causal=module.causal)
    )


MECHANISM = Mechanism(
    name="plain-aft-full",
    build=PlainAFTFull,
    title="AFT-full, plain torch",
    paper="Zhai et al. 2021, arXiv:2105.14103",
    reference=reference,
    complexity=Complexity(time="n^2 d + n^2 r + n d^2", memory="n^2 + n d"),
    fixed_length=True,
    same_as="aft-full",
)
