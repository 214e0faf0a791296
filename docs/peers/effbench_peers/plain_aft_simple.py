"""AFT-simple as one writes it from the paper: a softmax along the sequence; causal, two cumulative sums.

Computes effbench's aft-simple with the same projections (q, k, v). The cumulative sums are shifted by the
largest key of the whole sequence, so rows before a dominant key underflow to 0/0.

Formula: Zhai et al. 2021, arXiv:2105.14103, equation 5.
"""

from torch import Tensor

from effbench.plugin import Complexity, Mechanism
from effbench_peers import definitions
from effbench_peers.layers import QueryKeyValue


def aft_simple(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """q k v [b, n, d]."""
    if not causal:
        return q.sigmoid() * (k.softmax(1) * v).sum(1, keepdim=True)
    keys = (k - k.amax(1, keepdim=True)).exp()
    return q.sigmoid() * (keys * v).cumsum(1) / keys.cumsum(1)


class PlainAFTSimple(QueryKeyValue):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return aft_simple(q, k, v, causal=self.causal)


def build(shape, *, causal: bool) -> PlainAFTSimple:
    return PlainAFTSimple(shape, causal=causal)


def reference(module: PlainAFTSimple, x: Tensor) -> Tensor:
    return definitions.aft(*module.project(x), definitions.unseen(x.shape[1], causal=module.causal))


MECHANISM = Mechanism(
    name="plain-aft-simple",
    build=build,
    title="AFT-simple, plain torch",
    paper="Zhai et al. 2021, arXiv:2105.14103",
    reference=reference,
    complexity=Complexity(time="n d^2", memory="n d"),
    same_as="aft-simple",
)
