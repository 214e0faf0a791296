"""Linear attention as one writes it from the paper: elu(x) + 1, two products; causal by chunks of 64.

Computes effbench's linear with the same projections (q, k, v, out). elu(x) + 1 cancels for x < -16 in
float32: where all features of a query do, the row is 0/0.

Formula: Katharopoulos et al. 2020, arXiv:2006.16236, equations 4-12; the chunks are those of every later
linear attention (a masked product within, a running state between).
"""

from torch import Tensor
from torch.nn import functional

from effbench.plugin import Complexity, Mechanism
from effbench_peers import definitions
from effbench_peers.layers import Heads

CHUNK = 64


def linear_attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
    """q k v [b, h, n, e]."""
    q, k = functional.elu(q) + 1, functional.elu(k) + 1
    if causal:
        return causal_product(q, k, v)
    return q @ (k.mT @ v) / (q @ k.sum(2).unsqueeze(3))


def causal_product(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The features q and k [b, h, n, e], by chunks."""
    n = q.shape[2]
    q, k, v = (
        functional.pad(x, (0, 0, 0, -n % CHUNK)).unflatten(2, (-1, CHUNK)) for x in (q, k, v)
    )  # [b, h, chunks, CHUNK, e]
    pairs, keys = k.mT @ v, k.sum(3).unsqueeze(4)
    state, total = pairs.cumsum(2) - pairs, keys.cumsum(2) - keys  # of the chunks before
    scores = (q @ k.mT).tril()
    numerator, denominator = scores @ v + q @ state, scores.sum(4, keepdim=True) + q @ total
    numerator, denominator = (x.flatten(2, 3)[:, :, :n] for x in (numerator, denominator))
    return numerator / denominator


class PlainLinearAttention(Heads):
    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return linear_attention(q, k, v, causal=self.causal)


def build(shape, *, causal: bool) -> PlainLinearAttention:
    return PlainLinearAttention(shape, "query", "key", "value", causal=causal)


def reference(module: PlainLinearAttention, x: Tensor) -> Tensor:
    w = definitions.unseen(x.shape[1], causal=module.causal)
    return module.combine(definitions.linear_attention(*module.project(x), w))


MECHANISM = Mechanism(
    name="plain-linear",
    build=build,
    title="Linear attention, plain torch",
    paper="Katharopoulos et al. 2020, arXiv:2006.16236",
    reference=reference,
    complexity=Complexity(time="n d^2", memory="n d"),
    same_as="linear",
)
