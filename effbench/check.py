"""Compares a mechanism with its own reference before anything of it is timed."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
from torch import nn

from effbench.cell import STEPWISE, Cell
from effbench.plugin import Mechanism
from effbench.subject import build_module, decoder, make_input, start

#: The largest error allowed, relative to the largest value of the reference.
TOLERANCE = {"float64": 1e-8, "float32": 1e-4, "float16": 1e-2, "bfloat16": 6e-2}

#: (batch, seq, dim of a head): a tiny shape, then one past the first tile of anything, and prime.
#: The square stands in where a mechanism takes only lengths that are one.
_SHAPES = ((2, 16, 4), (1, 1031, 4))
_SQUARE = (1, 1024, 4)
_STEPS = 8  # tokens decoded one by one


@dataclass(frozen=True)
class Verdict:
    """``wrong`` says what disagrees, and is empty where nothing does; flags say what was not compared."""

    wrong: str = ""
    flags: tuple[str, ...] = ()


def check(mechanism: Mechanism, cell: Cell, *, seed: int) -> Verdict:
    """Compare output, in train mode the input's gradient, token by token the steps with the reference.

    Runs on the cell's own device and dtype at small shapes, with parameters moved off their initial
    values, so that one that starts at zero cannot hide a fault. Blocks and models are checked as the layers
    that they are made of.
    """
    cell = replace(cell, level="layer", stack={})
    flags: list[str] = []
    for batch, seq, width in _supported(mechanism, cell):
        heads = min(cell.heads, 2)
        small = replace(cell, batch=batch, seq=seq, dim=heads * width, heads=heads, compile=False)
        wrong = _compare(mechanism, small, seed, flags)
        if wrong:
            return Verdict(f"{wrong} (checked at batch {batch}, seq {seq}, dim {small.dim}, heads {heads})")
    return Verdict(flags=tuple(dict.fromkeys(flags)))


def _supported(mechanism: Mechanism, cell: Cell) -> list[tuple[int, int, int]]:
    def accepts(shape: tuple[int, int, int]) -> bool:
        batch, seq, width = shape
        small = replace(cell, batch=batch, seq=seq, dim=width * min(cell.heads, 2), heads=min(cell.heads, 2))
        return mechanism.supports is None or mechanism.supports(small) is None

    shapes = [shape for shape in _SHAPES if accepts(shape)]
    return shapes if len(shapes) == len(_SHAPES) else [s for s in (*shapes, _SQUARE) if accepts(s)]


def _compare(mechanism: Mechanism, cell: Cell, seed: int, flags: list[str]) -> str:
    module = build_module(mechanism, cell, seed=seed)
    unsettle(module, seed)
    x = make_input(cell, seed, 0).requires_grad_(cell.mode == "train")
    with torch.set_grad_enabled(cell.mode == "train"):
        y, wrong = _decoded(module, x, cell) if cell.mode in STEPWISE else (module(x), "")
    wrong = wrong or malformed(y, x[:, -y.shape[1] :] if cell.mode in STEPWISE else x)
    if wrong:
        return wrong
    if mechanism.reference is None:
        flags.append("unverified")
        return ""
    exact = copy.deepcopy(module).double()
    x64 = x.detach().double().requires_grad_(x.requires_grad)
    # A reference may write torch.arange(n) and mean the device of its input.
    with torch.set_grad_enabled(x.requires_grad), x.device:
        expected = mechanism.reference(exact, x64)
    if cell.mode in STEPWISE:
        return differ(y, expected[:, -y.shape[1] :], _exactness(cell), "decode step")
    wrong = differ(y, expected, _exactness(cell), "output")
    if wrong or cell.mode != "train":
        return wrong
    return _compare_gradients(x, y, x64, expected, cell, flags)


def _exactness(cell: Cell) -> str:
    """The dtype as exact as which a cell computes: at precision high, TF32 has the mantissa of float16."""
    return "float16" if (cell.dtype, cell.precision) == ("float32", "high") else cell.dtype


def _decoded(module: nn.Module, x: torch.Tensor, cell: Cell) -> tuple[torch.Tensor, str]:
    """The last outputs, step by step after a prefill of the rest; and why the steps cannot be timed, or "".

    In mode generate all outputs, from the state before the first token.

    Timing steps from one state again and again, so a step must leave it as it was.
    """
    prefill, step = decoder(module, cell)
    first = 0 if cell.mode == "generate" else x.shape[1] - _STEPS
    state, outputs = prefill(x[:, :first]) if first else start(module, cell.batch), []
    for token in x[:, first:].unbind(1):
        y, after = step(token, state)
        if wrong := malformed(y, token):
            return x, f"a step {wrong}"
        if differ(step(token, state)[0], y, cell.dtype, "step"):
            return x, "a step changes the state that it is given: the same step again has another output"
        outputs.append(y)
        state = after
    return torch.stack(outputs, 1), ""


def _compare_gradients(
    x: torch.Tensor, y: torch.Tensor, x64: torch.Tensor, expected: torch.Tensor, cell: Cell, flags: list[str]
) -> str:
    direction = torch.linspace(-1, 1, y.numel(), dtype=torch.float64, device=y.device).view_as(y).cos()
    (gradient,) = torch.autograd.grad(y, x, direction.to(y.dtype))
    if not expected.requires_grad:
        flags.append("gradient-unverified")
        return ""
    (true,) = torch.autograd.grad(expected, x64, direction)
    return differ(gradient, true, _exactness(cell), "gradient")


def unsettle(module: nn.Module, seed: int) -> None:
    """Move every parameter off its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.add_(noise.to(parameter))


def malformed(y: object, x: torch.Tensor) -> str:
    """What is wrong with an output whatever its values mean: its kind, shape, dtype, device, finiteness."""
    if not isinstance(y, torch.Tensor):
        return f"returned a {type(y).__name__}, not a tensor"
    for what in ("shape", "dtype", "device"):
        got, wanted = getattr(y, what), getattr(x, what)
        if got != wanted:
            return f"returned {what} {_text(got)} for an input of {what} {_text(wanted)}"
    if not torch.isfinite(y).all():
        return "returned values that are not finite for inputs drawn from N(0, 1)"
    return ""


def _text(value: object) -> str:
    return str(list(value)) if isinstance(value, torch.Size) else str(value)


def differ(got: torch.Tensor, expected: torch.Tensor, dtype: str, what: str) -> str:
    """How far a tensor is from what its reference says, where that is more than the dtype allows."""
    if expected.shape != got.shape:
        return f"its reference returned shape {_text(expected.shape)}, the module {_text(got.shape)}"
    error = (got.double() - expected.double()).abs().max() / expected.double().abs().max().clamp(min=1e-30)
    if error.item() <= TOLERANCE[dtype]:
        return ""
    allowed = f"{TOLERANCE[dtype]:g} is allowed"
    return f"{what} differs from its reference by {error.item():.2g} of the largest value; {allowed}"
