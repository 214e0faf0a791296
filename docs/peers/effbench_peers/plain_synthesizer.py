"""The Synthesizers as one writes them from the paper: the logits [b, h, n, n] whole, then a softmax.

Computes effbench's synthesizer-dense (projections hidden, v and out), synthesizer-random (v and out) and the
factorised form of each, with the same parameters.

Formula: Tay et al. 2021, arXiv:2005.00743, sections 3.1.1, 3.1.2, 3.2.1 and 3.2.2.
"""

import math

import torch
from torch import Tensor, nn

from effbench.plugin import Complexity, Mechanism
from effbench_peers import definitions
from effbench_peers.layers import Heads


class PlainSynthesizer(Heads):
    """``scores(*projected)`` [.., h, n, n] says it all."""

    def mix(self, *projected: Tensor) -> Tensor:
        *hidden, v = projected
        logits = self.scores(v.shape[2], *hidden)
        if self.causal:
            future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
            logits = logits.masked_fill(future, -torch.inf)
        return logits.softmax(-1) @ v


class PlainDense(PlainSynthesizer):
    def __init__(self, shape, *, causal: bool):
        super().__init__(shape, "hidden", "value", causal=causal)
        e = shape.dim // shape.heads
        self.score = nn.Parameter(torch.empty(shape.heads, shape.seq, e).uniform_(-(e**-0.5), e**-0.5))

    def scores(self, n: int, hidden: Tensor) -> Tensor:
        return hidden.relu() @ self.score[:, :n].mT


class PlainRandom(PlainSynthesizer):
    def __init__(self, shape, *, causal: bool):
        super().__init__(shape, "value", causal=causal)
        self.logits = nn.Parameter(torch.randn(shape.heads, shape.seq, shape.seq))

    def scores(self, n: int) -> Tensor:
        return self.logits[:, :n, :n]


class PlainFactorizedDense(PlainSynthesizer):
    """All products of two short vectors a token, of which the first n count."""

    def __init__(self, shape, *, causal: bool):
        super().__init__(shape, "hidden", "value", causal=causal)
        e, inner = shape.dim // shape.heads, -(-shape.seq // math.ceil(math.sqrt(shape.seq)))
        self.first, self.second = (
            nn.Parameter(torch.empty(shape.heads, size, e).uniform_(-(e**-0.5), e**-0.5))
            for size in (-(-shape.seq // inner), inner)
        )

    def scores(self, n: int, hidden: Tensor) -> Tensor:
        outer, inner = (hidden.relu() @ factor.mT for factor in (self.first, self.second))
        return (outer.unsqueeze(-1) * inner.unsqueeze(-2)).flatten(-2)[..., :n]


class PlainFactorizedRandom(PlainSynthesizer):
    def __init__(self, shape, *, causal: bool, rank: int = 8):
        super().__init__(shape, "value", causal=causal)
        self.left, self.right = (
            nn.Parameter(torch.randn(shape.heads, shape.seq, rank) * rank**-0.25) for _ in range(2)
        )

    def scores(self, n: int) -> Tensor:
        return self.left[:, :n] @ self.right[:, :n].mT


def reference(module: PlainSynthesizer, x: Tensor) -> Tensor:
    *hidden, v = module.project(x)
    w = definitions.unseen(x.shape[1], causal=module.causal)
    return module.combine(definitions.average(module.scores(x.shape[1], *hidden) + w, v))


def _mechanism(name: str, build: type[PlainSynthesizer]) -> Mechanism:
    return Mechanism(
        name=f"plain-synthesizer-{name}",
        build=build,
        title=f"Synthesizer, {name.replace('ized-', 'ised ')}, plain torch",
        paper="Tay et al. 2021, arXiv:2005.00743",
        reference=reference,
        complexity=Complexity(time="n^2 d + n d^2", memory="h n^2 + n d"),
        fixed_length=True,
        same_as=f"synthesizer-{name}",
    )


DENSE = _mechanism("dense", PlainDense)
RANDOM = _mechanism("random", PlainRandom)
FACTORIZED_DENSE = _mechanism("factorized-dense", PlainFactorizedDense)
FACTORIZED_RANDOM = _mechanism("factorized-random", PlainFactorizedRandom)
