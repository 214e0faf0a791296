"""Reversible blocks: training keeps the last two streams, and computes the rest again from them.

    y1 = x1 + f(x2),  y2 = x2 + g(y1)      and back      x2 = y2 - g(y1),  x1 = y1 - f(x2)

f is a block's mechanism and g its feed-forward, each behind its norm. Both streams begin as the input,
and their mean is the output. Activations take the memory of one branch, however many blocks there are.

Paper: Gomez et al. 2017, arXiv:1707.04585; as in the Reformer, Kitaev et al. 2020, arXiv:2001.04451.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

Coupling = tuple[nn.Module, nn.Module]  # f and g


class ReversibleStack(nn.Module):
    """[b, n, d] -> [b, n, d]; the branches have to be deterministic, for they are computed twice."""

    def __init__(self, couplings: Sequence[Coupling]):
        super().__init__()
        self.couplings = nn.ModuleList(nn.ModuleList(coupling) for coupling in couplings)

    def pairs(self) -> list[Coupling]:
        """f and g of each block."""
        return [cast(Coupling, tuple(cast(nn.ModuleList, pair))) for pair in self.couplings]

    def forward(self, x: Tensor) -> Tensor:
        first, second = _Streams.apply(self.pairs(), x, *self.parameters())  # type: ignore[no-untyped-call]
        return cast(Tensor, (first + second) / 2)


def couple(couplings: Sequence[Coupling], x: Tensor) -> tuple[Tensor, Tensor]:
    """The two streams after all blocks."""
    first = second = x
    for f, g in couplings:
        first = first + f(second)
        second = second + g(first)
    return first, second


class _Streams(torch.autograd.Function):
    """All blocks at once: a node for each would keep the streams between them."""

    @staticmethod
    def forward(
        ctx: Any, couplings: Sequence[Coupling], x: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, Tensor]:
        ctx.couplings, ctx.parameters = couplings, parameters
        first, second = couple(couplings, x)
        ctx.save_for_backward(first, second)
        return first, second

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        first, second = ctx.saved_tensors
        to_first, to_second = grads
        to_parameters: dict[int, Tensor] = {}
        for f, g in reversed(ctx.couplings):
            out, to_first = _through(g, first, to_second, to_first, to_parameters)
            second = second - out
            out, to_second = _through(f, second, to_first, to_second, to_parameters)
            first = first - out
        return None, to_first + to_second, *(to_parameters.get(id(p)) for p in ctx.parameters)


def _through(
    branch: nn.Module, x: Tensor, grad: Tensor, to_x: Tensor, to_parameters: dict[int, Tensor]
) -> tuple[Tensor, Tensor]:
    """The branch's output once more, and the gradient of its input added to what x has already."""
    x = x.detach().requires_grad_()
    parameters = [p for p in branch.parameters() if p.requires_grad]
    with torch.enable_grad():
        out = branch(x)
    own, *others = torch.autograd.grad(out, (x, *parameters), grad, allow_unused=True)
    for parameter, gradient in zip(parameters, others, strict=True):
        if gradient is not None:
            earlier = to_parameters.get(id(parameter))  # of a parameter that several branches share
            to_parameters[id(parameter)] = gradient if earlier is None else earlier + gradient
    return out.detach(), to_x if own is None else to_x + own
