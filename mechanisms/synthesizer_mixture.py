"""Mixture of Synthesizers: one softmax of a weighted sum of scores, the dot product's among them or not.

    y = softmax(sum_i alpha_i S_i) V per head,    alpha = softmax(mixture),    then joined and projected

Paper: Tay et al. 2021, arXiv:2005.00743, section 3.2.3: the alphas are learned and sum to 1. Our choice: one
set of alphas for all heads of the layer, equal at the start. ``components`` says which S_i there are;
"random+dot" (the default) is the paper's "Random + Vanilla", "dense+dot" its "Dense + Vanilla".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from effbench import products
from effbench.mechanisms import _parts, _rows, _synthesizer, _whole
from effbench.mechanisms import synthesizer_dense as dense
from effbench.mechanisms import synthesizer_factorized_dense as factorized_dense
from effbench.mechanisms import synthesizer_factorized_random as factorized_random
from effbench.mechanisms import synthesizer_random as random
from effbench.mechanisms._scores import Product, Term
from effbench.plugin import Complexity, Flops, Mechanism, Shape


@_parts.eager
def synthesizer_mixture(v: Tensor, terms: Sequence[Term], *, causal: bool = False) -> Tensor:
    """v [b, h, n, e]; the terms, their alphas in them, are added tile by tile before the softmax."""
    return _rows.synthesize(terms, v, causal=causal)


class DotScores(_synthesizer.Scores):
    """q k^T / sqrt(e), as in MHA."""

    made, kept = 2, 1

    def __init__(self, shape: Shape):
        super().__init__()
        self.heads, self.scale = shape.heads, (shape.dim // shape.heads) ** -0.5
        self.key, self.query = (nn.Linear(shape.dim, shape.dim, bias=False) for _ in range(2))

    def tensors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        each = (products.linear(x, layer.weight) for layer in (self.key, self.query))
        key, query = (_parts.split_heads(y, self.heads) for y in each)
        return key, query

    def term(self, n: int, key: Tensor, query: Tensor, *, factor: Tensor) -> Term:
        queries = _synthesizer.scaled(query.flatten(0, 1), factor * self.scale)
        return Term(Product, (queries, key.flatten(0, 1)))

    def row(self, t: int, key: Tensor, query: Tensor) -> Tensor:
        return self.scale * _synthesizer.exact(query, key.mT)[:, :, 0]

    def matrix(self, x: Tensor, head: int) -> Tensor:
        e = x.shape[2] // self.heads
        query, key = (x @ layer.weight[head * e : (head + 1) * e].T for layer in (self.query, self.key))
        return torch.einsum("bte,bse->bts", query, key) * e**-0.5


COMPONENTS: dict[str, type[_synthesizer.Scores]] = {
    "dot": DotScores,
    "dense": dense.DenseScores,
    "random": random.RandomScores,
    "factorized-dense": factorized_dense.FactorizedDenseScores,
    "factorized-random": factorized_random.FactorizedRandomScores,
}


def component_names(components: str) -> list[str]:
    """The names in "random+dot".

    Raises:
        ValueError: for an unknown name, one name alone, or one that comes twice.
    """
    names = components.split("+")
    if len(names) < 2 or len(set(names)) < len(names) or not set(names) <= set(COMPONENTS):
        raise ValueError(
            f"components {components!r}: expected two or more different ones of "
            f"{', '.join(COMPONENTS)}, joined by +, such as random+dot"
        )
    return names


class MixtureScores(_synthesizer.Scores):
    def __init__(self, shape: Shape, names: Sequence[str]):
        super().__init__()
        # What needs kept tensors comes first, so that these are the first tensors.
        self.parts = nn.ModuleList(COMPONENTS[name](shape) for name in sorted(names, key="dot".__ne__))
        self.kept = sum(part.kept for part in self.parts)
        self.mixture = nn.Parameter(torch.zeros(len(names)))

    def alphas(self) -> Tensor:
        """The weight of each part, in the order of ``parts``; they sum to 1."""
        return self.mixture.to(_parts.accumulator(self.mixture.dtype)).softmax(0)

    def tensors(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(y for part in self.parts for y in part.tensors(x))

    def terms(self, n: int, *tensors: Tensor) -> list[Term]:
        each = zip(self.parts, self._dealt(tensors), self.alphas(), strict=True)
        return [part.term(n, *mine, factor=alpha) for part, mine, alpha in each]

    def row(self, t: int, *tensors: Tensor) -> Tensor:
        each = zip(self.parts, self._dealt(tensors), self.alphas(), strict=True)
        return sum(alpha * part.row(t, *mine) for part, mine, alpha in each)

    def matrix(self, x: Tensor, head: int) -> Tensor:
        alphas = self.mixture.exp() / self.mixture.exp().sum()
        return sum(alpha * part.matrix(x, head) for alpha, part in zip(alphas, self.parts, strict=True))

    def _dealt(self, tensors: tuple[Tensor, ...]) -> list[tuple[Tensor, ...]]:
        """Each part's own tensors."""
        mine = iter(tensors)
        return [tuple(next(mine) for _ in range(part.made)) for part in self.parts]


class SynthesizerMixture(_synthesizer.Synthesizer):
    def __init__(self, shape: Shape, *, causal: bool = False, components: str = "random+dot"):
        super().__init__(shape, MixtureScores(shape, component_names(components)), causal=causal)

    def mix(self, v: Tensor, *tensors: Tensor) -> Tensor:
        return synthesizer_mixture(v, self.scores.terms(v.shape[2], *tensors), causal=self.causal)


def dot_flops(shape: Shape, *, causal: bool, mode: str, groups: int, pairs: _synthesizer.Pairs) -> float:
    width = shape.dim // shape.heads
    rows = _synthesizer.product_flops(
        shape, causal=causal, mode=mode, groups=groups, width=width, pairs=pairs
    )
    return 2 * _synthesizer.projection_flops(shape, mode=mode) + rows


SCORE_FLOPS = {
    "dot": dot_flops,
    "dense": dense.score_flops,
    "random": lambda shape, **asked: 0,
    "factorized-dense": factorized_dense.score_flops,
    "factorized-random": factorized_random.score_flops,
}


def flops(
    shape: Shape,
    *,
    causal: bool = False,
    mode: str = "forward",
    components: str = "random+dot",
    pairs: _synthesizer.Pairs = _rows.row_pairs,
) -> Flops:
    names = component_names(components)
    shared = all(not COMPONENTS[name].made for name in names)
    groups = shape.heads * (1 if shared else shape.batch)
    asked = {"causal": causal, "mode": mode, "groups": groups, "pairs": pairs}
    once = shape.heads if _whole.fits(groups, shape.seq) else groups  # maps that do not depend on the input
    scores = sum(
        SCORE_FLOPS[name](shape, **{**asked, "groups": groups if COMPONENTS[name].made else once})
        for name in names
    )
    return _synthesizer.flops(shape, scores=scores, terms=len(names), **asked)


MECHANISM = Mechanism(
    name="synthesizer-mixture",
    build=SynthesizerMixture,
    title="Synthesizer, mixture",
    paper="Tay et al. 2021, arXiv:2005.00743",
    reference=_synthesizer.reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="h n^2 + n d"),
    flops=flops,
    needed=partial(flops, pairs=_parts.visible_pairs),
    fixed_length=True,
    positional=True,
)
