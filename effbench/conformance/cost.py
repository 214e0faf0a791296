"""Laws of cost: memory grows as declared, and the declared closed form counts the work that is done."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from effbench.cell import Cell
from effbench.conformance.trial import Broken, NotApplicable, Trial
from effbench.growth import terms, value
from effbench.meters import counts
from effbench.plugin import Flops, Shape
from effbench.subject import build_subject

_SLACK = 1.1  # terms that grow slower than the declared one, and constants, blur a doubling
_AGREE = 0.05
_LEAST = 1 << 16  # bytes under which a peak is made of constants


def memory_grows_as_declared(trial: Trial) -> None:
    """Doubling the length, or the width, multiplies the peak by no more than ``Complexity.memory`` says."""
    complexity = trial.mechanism.complexity
    if complexity is None:
        raise NotApplicable("it declares no complexity")
    for mode in ("forward", "train"):
        cell, fake = _countable(trial, mode)
        base = _count(trial, cell, fake)["peak_bytes"]
        for name, larger in {
            "n": replace(cell, seq=2 * cell.seq),
            "d": replace(cell, dim=2 * cell.dim),
        }.items():
            if not trial.accepts(larger):
                continue
            peak = _count(trial, larger, fake)["peak_bytes"]
            allowed = growth(complexity.memory, cell, larger) * _SLACK
            if peak > allowed * max(base, _LEAST):
                raise Broken(
                    f"doubling {name} multiplies the peak of a {mode} pass by {peak / base:.3g}; "
                    f"declared as {complexity.memory} it may grow {allowed:.3g} times"
                )


def counted_flops_equal_the_closed_form(trial: Trial) -> None:
    """Products and transforms as counted, op by op, are within 5 % of the declared closed form.

    So are those of one more token, where ``step_flops`` is declared and the trial is causal.
    """
    whole, step = trial.mechanism.flops, trial.mechanism.step_flops if trial.causal else None
    if whole is None and step is None:
        raise NotApplicable("it declares no closed form")
    for mode in [*(["forward", "train"] if whole else []), *(["decode"] if step else [])]:
        for cell in trial.sizes(576, width=32, mode=mode, dtype=_usual(trial)):
            shape = Shape(batch=cell.batch, seq=cell.seq, dim=cell.dim, heads=cell.heads)
            declared = _declared(trial, shape, cell)
            found = _counted(trial, cell)
            if found["uncounted_ops"]:
                raise NotApplicable(f"the counter knows no rule for {', '.join(found['uncounted_ops'])}")
            for kind in ("matmul", "fft"):
                mine, done = float(getattr(declared, kind)), found["counted"][kind]
                # A fused kernel does more than the formula needs: the dead parts of causal tiles.
                needed = (found["needed"] or found["counted"])[kind]
                if not needed * (1 - _AGREE) <= mine <= done * (1 + _AGREE):
                    raise Broken(f"{mode}: declares {mine:.4g} FLOPs of {kind}, {done:.4g} are counted")


def _declared(trial: Trial, shape: Shape, cell: Cell) -> Flops:
    whole, step = trial.mechanism.flops, trial.mechanism.step_flops
    if cell.mode == "decode" and step is not None:
        return step(shape, **cell.options)
    assert whole is not None
    return whole(shape, causal=cell.causal, mode=cell.mode, **cell.options)


def growth(declared: str, small: Cell, large: Cell) -> float:
    """By how much the fastest term of a declared growth, such as ``h n^2 + n d``, grows between two cells."""
    before, after = ({"n": c.seq, "d": c.dim, "h": c.heads} for c in (small, large))
    try:
        return max(value(term, after) / value(term, before) for term in terms(declared))
    except ValueError as error:
        raise Broken(str(error)) from None


def _countable(trial: Trial, mode: str) -> tuple[Cell, bool]:
    """A cell at which peaks can be counted, and whether on fake tensors: else on real ones, shorter."""
    dtype = _usual(trial)
    (cell,) = list(trial.sizes(2048, width=16, batch=1, dtype=dtype, mode=mode))
    try:
        _count(trial, replace(cell, seq=64), True)
    except Exception:
        (cell,) = list(trial.sizes(1024, width=8, batch=1, dtype=dtype, mode=mode))
        return cell, False
    return cell, True


def _counted(trial: Trial, cell: Cell) -> dict[str, Any]:
    """Counts on fake tensors, or on real ones where those will not do."""
    try:
        return _count(trial, cell, True)
    except Exception:
        return _count(trial, cell, False)


def _count(trial: Trial, cell: Cell, fake: bool) -> dict[str, Any]:
    trial.go_to(cell)
    with FakeTensorMode() if fake else nullcontext():
        subject = build_subject(trial.mechanism, cell, seed=0, ring=1, empty=fake)
        return counts.count(lambda: subject.call(0))


def _usual(trial: Trial) -> str:
    return "float32" if "float32" in trial.mechanism.dtypes else trial.widest
