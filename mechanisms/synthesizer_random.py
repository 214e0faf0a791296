"""Random Synthesizer: the attention logits are a parameter and do not depend on the input at all.

    y = softmax(R) V per head,    R [h, N, N],    then the heads are joined and projected

Paper: Tay et al. 2021, arXiv:2005.00743, section 3.1.2. R is drawn from N(0, 1); ``trained=False`` is the
paper's "fixed random". Value and output projections as in MHA.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from effbench.mechanisms import _parts, _rows, _synthesizer
from effbench.mechanisms._scores import Term, Whole
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def synthesizer_random(v: Tensor, logits: Tensor, *, causal: bool = False) -> Tensor:
    """v [b, h, n, e]; logits [h, n, n]. A row of the softmax is made once for the whole batch."""
    return _rows.synthesize([Term(Whole, (logits,))], v, causal=causal)


class RandomScores(_synthesizer.Scores):
    def __init__(self, shape: Shape, *, trained: bool = True):
        super().__init__()
        if not isinstance(trained, bool):
            raise ValueError(f"trained {trained!r}: true or false is accepted")
        logits = torch.randn(shape.heads, shape.seq, shape.seq)
        if trained:
            self.logits = nn.Parameter(logits)
        else:
            self.register_buffer("logits", logits)

    def term(self, n: int, *, factor: Tensor) -> Term:
        return Term(Whole, (self.logits[:, :n, :n], factor.view(1)))

    def row(self, t: int) -> Tensor:
        return self.logits[None, :, t, : t + 1].to(_parts.accumulator(self.logits.dtype))

    def matrix(self, x: Tensor, head: int) -> Tensor:
        return self.logits[head, : x.shape[1], : x.shape[1]]


class SynthesizerRandom(_synthesizer.Synthesizer):
    def __init__(self, shape: Shape, *, causal: bool = False, trained: bool = True):
        super().__init__(shape, RandomScores(shape, trained=trained), causal=causal)

    def mix(self, v: Tensor) -> Tensor:
        n = v.shape[2]
        return synthesizer_random(v, self.scores.logits[:, :n, :n], causal=self.causal)


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    trained: bool = True,
    pairs: _synthesizer.Pairs = _rows.row_pairs,
) -> Flops:
    return _synthesizer.flops(shape, causal=causal, mode=mode, groups=shape.heads, scores=0, pairs=pairs)


MECHANISM = Mechanism(
    name="synthesizer-random",
    build=SynthesizerRandom,
    title="Synthesizer, random",
    paper="Tay et al. 2021, arXiv:2005.00743",
    reference=_synthesizer.reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="h n^2 + n d"),
    flops=flops,
    needed=partial(flops, pairs=_parts.visible_pairs),
    fixed_length=True,
    positional=True,
)
