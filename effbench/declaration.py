"""What a mechanism declares, as plain data: read in a child process for a parent that imports no plugin."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from effbench.cell import STEPWISE, Cell
from effbench.errors import Unsupported
from effbench.model import embeds_positions, hidden_width, parameters
from effbench.plugin import Flops, Mechanism, Shape
from effbench.registry import MECHANISMS, Registry, load_mechanism
from effbench.source import source_of
from effbench.stack import Stack
from effbench.stack_flops import block_flops, model_flops
from effbench.subject import build_module


def describe(spec: str, source: str) -> dict[str, Any]:
    """The fields of ``plan.Description``; imports the plugin. ``source`` replaces a hash over its files."""
    registry = Registry.installed(MECHANISMS)
    before = frozenset(sys.modules)
    mechanism, module = load_mechanism(registry, spec)
    complexity = mechanism.complexity
    return {
        "spec": spec,
        "name": mechanism.name,
        "title": mechanism.title or mechanism.name,
        "paper": mechanism.paper,
        "causal": list(mechanism.causal),
        "dtypes": list(mechanism.dtypes),
        "complexity": {"time": complexity.time, "memory": complexity.memory} if complexity else None,
        "options": mechanism.options,
        "fixed_length": mechanism.fixed_length,
        "positional": mechanism.positional,
        "same_as": mechanism.same_as,
        "reference": mechanism.reference is not None,
        "flops": mechanism.flops is not None,
        "needed": mechanism.needed is not None,
        "step_flops": mechanism.step_flops is not None,
        "supports": mechanism.supports is not None,
        "origin": registry.origin(spec),
        "file": getattr(module, "__file__", None) or "",
        "source": source or (source_of(module, before) if module else ""),
    }


def unsupported(mechanism: Mechanism, cell: Cell) -> str | None:
    """Why the mechanism does not take a cell; None where it does."""
    if cell.causal not in mechanism.causal:
        return f"{mechanism.name} has no {'causal' if cell.causal else 'non-causal'} form"
    if cell.mode in STEPWISE and (reason := _undecodable(cell)):
        return reason
    if cell.dtype not in mechanism.dtypes:
        return f"{mechanism.name} takes {', '.join(mechanism.dtypes)}, not {cell.dtype}"
    if cell.dim % cell.heads:
        return f"a width of {cell.dim} does not divide into {cell.heads} heads"
    if cell.level in ("block", "model") and (reason := _unstackable(cell)):
        return reason
    return mechanism.supports(cell) if mechanism.supports else None


def _unstackable(cell: Cell) -> str | None:
    stack = Stack(**cell.stack)
    if stack.memory != "reversible":
        return None
    if stack.norm == "post":
        return "a reversible block has its norms inside its branches: norm pre"
    return "reversible blocks are not compiled" if cell.compile else None


def _undecodable(cell: Cell) -> str | None:
    if not cell.causal:
        return "decoding goes token by token, which only a causal form can: ask for it with --causal"
    if cell.level != "layer":
        return f"mode {cell.mode} is measured at level layer, not {cell.level}"
    return f"mode {cell.mode} is not compiled" if cell.compile else None


def formula(mechanism: Mechanism, cell: Cell) -> dict[str, float] | None:
    """FLOPs by kind of one pass in closed form; None where the mechanism has none for this cell.

    What goes token by token has a form of its own: decoding is one step, and generating the sum of all.
    """
    if cell.mode in STEPWISE:
        return _of_steps(mechanism, cell)
    return _evaluated(mechanism.flops, mechanism, cell)


def needed(mechanism: Mechanism, cell: Cell) -> dict[str, float] | None:
    """The same without work on what no output depends on, such as the masked half of causal tiles."""
    return _evaluated(mechanism.needed, mechanism, cell)


def _of_steps(mechanism: Mechanism, cell: Cell) -> dict[str, float] | None:
    if mechanism.step_flops is None or unsupported(mechanism, cell):
        return None
    work = dict.fromkeys(vars(Flops()), 0.0)
    for context in range(cell.seq) if cell.mode == "generate" else (cell.seq,):
        shape = Shape(batch=cell.batch, seq=context, dim=cell.dim, heads=cell.heads)
        for kind, value in vars(mechanism.step_flops(shape, **cell.options)).items():
            work[kind] += value
    return work


def _evaluated(
    form: Callable[..., Flops] | None, mechanism: Mechanism, cell: Cell
) -> dict[str, float] | None:
    if form is None or cell.level == "op" or cell.mode in STEPWISE:
        return None
    if unsupported(mechanism, cell):
        return None
    shape = Shape(batch=cell.batch, seq=cell.seq, dim=cell.dim, heads=cell.heads)

    def layer(mode: str) -> Flops:
        return form(shape, causal=cell.causal, mode=mode, **cell.options)

    flops = layer(cell.mode) if cell.level == "layer" else _stacked(mechanism, cell, layer, shape)
    return {kind: float(value) for kind, value in vars(flops).items()} if flops else None


def _stacked(mechanism: Mechanism, cell: Cell, layer: Callable[[str], Flops], shape: Shape) -> Flops | None:
    """The closed form of a block or model; None where it cannot have the parameters that are asked for."""
    stack, positional = Stack(**cell.stack), mechanism.positional
    size = 0
    if stack.match == "params":
        with FakeTensorMode():
            size = parameters(build_module(mechanism, replace(cell, level="layer", stack={}), seed=0))
    try:
        width = hidden_width(cell.level, stack, cell.dim, cell.seq, positional, size)
    except Unsupported:
        return None
    if cell.level == "block":
        return block_flops(stack, layer, shape, width, cell.mode)
    positions = embeds_positions(stack, positional)
    return model_flops(stack, layer, shape, width, cell.mode, positions=positions)
