"""Laws of exactness: the module is the function that its reference defines, and its gradients are its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from effbench.cell import Cell
from effbench.check import TOLERANCE, check, differ
from effbench.conformance.trial import SEED, Broken, NotApplicable, Trial, direction

#: Constants added to every input: keys shifted alike cancel in a softmax, and must not overflow before.
_SHIFTS = (-3000.0, -50.0, 50.0, 3000.0)


def equals_reference(trial: Trial) -> None:
    """The output is the reference's in float64, at odd lengths and at widths of 1 and 8 a head."""
    _needs_reference(trial)
    for cell in _odd_sizes(trial):
        module, x = trial.module(cell), trial.sample(cell)
        with torch.no_grad():
            _compare(module(x), trial.reference(module, x), cell, "output")


def equals_reference_in_every_dtype(trial: Trial) -> None:
    """Output and input gradient are near the reference's in every declared dtype, as before any timing."""
    _needs_reference(trial)
    wrong = {}
    for dtype in trial.mechanism.dtypes:
        cell = trial.cell(16, dtype=dtype, mode="train")
        trial.go_to(cell)
        verdict = check(trial.mechanism, cell, seed=SEED)
        if verdict.wrong:
            wrong[dtype] = f"{'causal, ' if trial.causal else ''}{verdict.wrong}"
    if wrong:
        raise Broken(parts=wrong)


def equals_reference_at_large_inputs(trial: Trial) -> None:
    """Still the reference's for inputs x 100, late tokens x 1000, and all inputs shifted by a constant."""
    _needs_reference(trial)
    for cell in trial.sizes(70, width=1):
        module, x = trial.module(cell), trial.sample(cell)
        late = x.clone()
        late[:, -2:] *= 1000
        cases = {"x 100": 100 * x, "late tokens x 1000": late}
        cases |= {f"shifted by {shift:g}": x + shift for shift in _SHIFTS}
        for text, large in cases.items():
            with torch.no_grad():
                _compare(module(large), trial.reference(module, large), cell, f"output for inputs {text}")


def gradients_equal_the_references(trial: Trial) -> None:
    """The gradients of the input and of every parameter are the reference's, in float64 at odd lengths."""
    _needs_reference(trial)
    for cell in _odd_sizes(trial):
        module, x = trial.module(cell).train(), trial.sample(cell).requires_grad_()
        expected = trial.reference(module, x)
        if not expected.requires_grad:
            raise NotApplicable("its reference has no gradient")
        named = {"input": x, **dict(module.named_parameters())}
        mine, theirs = (_gradients(y, list(named.values())) for y in (module(x), expected))
        # A gradient that is 0 by the formula is rounding on both sides: small beside the largest of all.
        least = 1e-3 * max(float(g.abs().max()) for g in theirs)
        for name, got, wanted in zip(named, mine, theirs, strict=True):
            if max(float(got.abs().max()), float(wanted.abs().max())) > TOLERANCE[cell.dtype] * least:
                _compare(got, wanted, cell, f"gradient of {name}")


def passes_gradcheck(trial: Trial) -> None:
    """Gradients of input and parameters agree with finite differences in float64."""
    trial.dtypes("float64")
    for cell in list(trial.sizes(3, 4, width=1))[:1]:
        module, x = trial.module(cell), trial.sample(cell).requires_grad_()
        names = [name for name, p in module.named_parameters() if p.requires_grad]
        parameters = [dict(module.named_parameters())[name] for name in names]

        try:
            torch.autograd.gradcheck(_function_of(module, names), (x, *parameters), fast_mode=True)
        except RuntimeError as error:
            raise Broken(" ".join(str(error).split())[:200]) from None


def finite_for_large_inputs(trial: Trial) -> None:
    """Output and gradients stay finite for inputs x 100, in float32 and bfloat16."""
    _finite(trial, lambda x: 100 * x)


def finite_when_late_tokens_dwarf_early_ones(trial: Trial) -> None:
    """Output and gradients stay finite where the last tokens are 1000 times the others."""

    def dwarfed(x: torch.Tensor) -> torch.Tensor:
        late = x.clone()
        late[:, -(-x.shape[1] // 2) :] *= 1000
        return late

    _finite(trial, dwarfed)


def step_equals_forward(trial: Trial) -> None:
    """Token by token, from ``initial_state`` or after ``prefill``, outputs are those of the causal form."""
    if not trial.causal:
        raise NotApplicable("it has no causal form")
    for cell in trial.sizes(9, 70):
        module, x = trial.module(cell), trial.sample(cell)
        offered = [name for name in ("initial_state", "prefill", "step") if hasattr(module, name)]
        if not offered:
            raise NotApplicable("it offers no step")
        if "step" not in offered or len(offered) == 1:
            raise Broken(f"it offers {offered[0]} alone; step needs initial_state or prefill beside it")
        with torch.no_grad():
            y = module(x)
            if "initial_state" in offered:
                stepped = _stepped(module, x, module.initial_state(cell.batch))  # type: ignore[operator]
                _compare(stepped, y, cell, "output step by step")
            for t in (1, cell.seq // 2) if "prefill" in offered else ():
                stepped = _stepped(module, x[:, t:], module.prefill(x[:, :t]))  # type: ignore[operator]
                _compare(stepped, y[:, t:], cell, f"output step by step after a prefill of {t}")


def _function_of(module: nn.Module, names: list[str]) -> Callable[..., torch.Tensor]:
    """The module as a function of its input and of the parameters of these names."""

    def call(x: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.func.functional_call(module, dict(zip(names, values, strict=True)), (x,))
        return y

    return call


def _stepped(module: nn.Module, x: torch.Tensor, state: object) -> torch.Tensor:
    rows = []
    for t in range(x.shape[1]):
        row, state = module.step(x[:, t], state)  # type: ignore[operator]
        rows.append(row)
    return torch.stack(rows, dim=1)


def _odd_sizes(trial: Trial) -> list[Cell]:
    small = [cell for width in (1, 8) for cell in trial.sizes(1, 7, 64, 65, width=width)]
    return [*small, *trial.sizes(1031, width=1, batch=1)]


def _needs_reference(trial: Trial) -> None:
    if trial.mechanism.reference is None:
        raise NotApplicable("it declares no reference")


def _compare(got: torch.Tensor, expected: torch.Tensor, cell: Cell, what: str) -> None:
    wrong = differ(got, expected, cell.dtype, what)
    if wrong:
        raise Broken(wrong)


def _gradients(y: torch.Tensor, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    found = torch.autograd.grad(y, inputs, direction(y), allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]


def _finite(trial: Trial, enlarge: Callable[[torch.Tensor], torch.Tensor]) -> None:
    wrong = {}
    for dtype in trial.dtypes("float32", "bfloat16"):
        for cell in trial.sizes(1, 70, dtype=dtype):
            module, x = trial.module(cell), enlarge(trial.sample(cell)).requires_grad_()
            y = module(x)
            if not torch.isfinite(y).all():
                wrong[dtype] = f"output is not finite ({trial.where})"
                continue
            held = {"input": x, **{k: p for k, p in module.named_parameters() if p.requires_grad}}
            for name, gradient in zip(held, _gradients(y, list(held.values())), strict=True):
                if not torch.isfinite(gradient).all():
                    wrong[dtype] = f"gradient of {name} is not finite ({trial.where})"
    if wrong:
        raise Broken(parts=wrong)
