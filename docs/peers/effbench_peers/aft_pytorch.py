"""aft-pytorch 0.2.2 (MIT): AFT-full, AFT-simple and AFT-local; its AFT-conv raises NotImplementedError.

Each holds projections to q, k, v and back, with biases, and is given a hidden width of d (its default is 64).
It has no causal form. AFT-local rebuilds its bias, an [n, n] parameter, in a Python loop at every forward.
"""

from collections.abc import Callable

import aft_pytorch.aft_pytorch as theirs
import torch
from torch import Tensor, nn

from effbench.plugin import Complexity, Mechanism
from effbench_peers import definitions

PAPER = "Zhai et al. 2021, arXiv:2105.14103"


def full(shape, *, causal: bool) -> nn.Module:
    return theirs.AFTFull(shape.seq, shape.dim, hidden_dim=shape.dim)


def simple(shape, *, causal: bool) -> nn.Module:
    return theirs.AFTSimple(shape.seq, shape.dim, hidden_dim=shape.dim)


def local(shape, *, causal: bool, window: int = 256) -> nn.Module:
    return theirs.AFTLocal(shape.seq, shape.dim, hidden_dim=shape.dim, s=window)


def reference(bias: Callable[[nn.Module, int], Tensor]) -> Callable[[nn.Module, Tensor], Tensor]:
    """The printed formula on the module's weights, with w = bias(module, n)."""

    def compute(module: nn.Module, x: Tensor) -> Tensor:
        q, k, v = module.to_q(x), module.to_k(x), module.to_v(x)
        return module.project(definitions.aft(q, k, v, bias(module, x.shape[1])))

    return compute


def within_window(module: nn.Module, n: int) -> Tensor:
    place = torch.arange(n)
    return module.wbias[:n, :n].masked_fill((place[:, None] - place).abs() >= module.s, 0)


def short(cell) -> str | None:
    if cell.seq <= 2048:
        return None
    return f"{cell.seq}^2 steps of a Python loop at every forward: over ten seconds; measured up to 2048"


FULL = Mechanism(
    name="peer-aft-pytorch-full",
    title="AFT-full, aft-pytorch",
    build=full,
    paper=PAPER,
    reference=reference(lambda module, n: module.wbias[:n, :n]),
    causal=(False,),
    complexity=Complexity(time="n^2 d + n d^2", memory="n^2 + n d"),
    fixed_length=True,
)
SIMPLE = Mechanism(
    name="peer-aft-pytorch-simple",
    title="AFT-simple, aft-pytorch",
    build=simple,
    paper=PAPER,
    reference=reference(lambda module, n: torch.zeros(n, n, dtype=torch.float64)),
    causal=(False,),
    complexity=Complexity(time="n d^2", memory="n d"),
)
LOCAL = Mechanism(
    name="peer-aft-pytorch-local",
    title="AFT-local, aft-pytorch",
    build=local,
    paper=PAPER,
    reference=reference(within_window),
    causal=(False,),
    dtypes=("float32",),  # of the bias that it makes, whatever the rest is
    complexity=Complexity(time="n s d + n d^2", memory="n d"),  # the paper's, which the package cites
    fixed_length=True,
    supports=short,
)
