"""The Synthesizers as one writes them from the paper: the logits [b, h, n, n] whole, then a softmax.

Computes effbench's synthesizer-dense (projections hidden, v and out) and synthesizer-random (v and out) with
the same parameters.

Formula: Tay et al. 2021, arXiv:2005.00743, sections 3.1.1 and 3.1.2.
"""

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


def reference(module: PlainSynthesizer, x: Tensor) -> Tensor:
    *hidden, v = module.project(x)
    w = definitions.unseen(x.shape[1], causal=module.causal)
    return module.combine(definitions.average(module.scores(x.shape[1], *hidden) + w, v))


def _mechanism(name: str, build: type[PlainSynthesizer]) -> Mechanism:
    return Mechanism(
        name=f"plain-synthesizer-{name}",
        build=build,
        title=f"Synthesizer, {name}, plain torch",
        paper="Tay et al. 2021, arXiv:2005.00743",
        reference=reference,
        complexity=Complexity(time="n^2 d + n d^2", memory="h n^2 + n d"),
        fixed_length=True,
        same_as=f"synthesizer-{name}",
    )


DENSE = _mechanism("dense", PlainDense)
RANDOM = _mechanism("random", PlainRandom)
