"""AFT's gate: the non-linearity that the query goes through before it scales its token's average."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Gate = Callable[[Tensor], Tensor]

#: The paper's is the sigmoid (Zhai et al. 2021, equation 2, where it is the default of a free choice).
GATES: dict[str, Gate] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "identity": lambda q: q,
}

#: Those that cost an exponential an element.
TRANSCENDENTAL = ("sigmoid", "tanh")


def named(gate: str) -> Gate:
    if gate not in GATES:
        raise ValueError(f"gate {gate!r}: one of {', '.join(GATES)} is accepted")
    return GATES[gate]


#: The gradient of q from that of gate(q) and from gate(q); autograd on every tile takes half as long again.
SLOPES = {torch.sigmoid: torch.ops.aten.sigmoid_backward, torch.tanh: torch.ops.aten.tanh_backward}


def with_slope(gate: Gate, q: Tensor, top: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """gate(q), and the gradient of q where ``top`` is that of gate(q): in ``out`` too, if that is given."""
    if out is not None and not (gate in SLOPES and out.dtype == top.dtype):
        y, slope = with_slope(gate, q, top)
        return y, out.copy_(slope)
    if gate in SLOPES:
        y = gate(q)
        return y, SLOPES[gate](top, y) if out is None else SLOPES[gate](top, y, grad_input=out)
    with torch.enable_grad():
        leaf = q.detach().requires_grad_()
        y = gate(leaf)
        (slope,) = torch.autograd.grad(y, leaf, top)
    return y.detach(), slope


def scale(gate: Gate, q: Tensor, mean: Tensor, out: Tensor) -> None:
    """gate(q) mean into ``out``; q and out of the inputs' dtype, the mean of the accumulator's.

    Where dtypes allow, gated in place first: the wait for memory to be written then passes computing.
    """
    if gate in SLOPES and out.dtype == mean.dtype:
        gate(q, out=out).mul_(mean)  # type: ignore[call-arg]
    else:
        torch.mul(gate(q.to(mean.dtype)), mean, out=out)


def needs_mean(gate: Gate) -> bool:
    """Whether a backward pass needs the mean itself: the sigmoid, never 0, gets by with y = gate(q) mean."""
    return gate is not torch.sigmoid


def backward(gate: Gate, q: Tensor, top: Tensor, kept: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """gate(q), top gate(q) mean and the gradient of q.

    ``top`` is the gradient of y; ``kept`` the mean where it is needed, else y.
    """
    if needs_mean(gate):
        gated, to_q = with_slope(gate, q, top * kept)
        return gated, top * gated * kept, to_q
    gated, through = gate(q), top * kept
    return gated, through, torch.addcmul(through, through, gated, value=-1)
