"""Which rule counts an op: the first table that knows it, else PyTorch's own tags, else none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from math import log2
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils.flop_counter import flop_registry

from effbench.meters import op_products as products
from effbench.meters.op_products import Cost, Work
from effbench.meters.op_tables import (
    BY_INPUT,
    BY_OUTPUT,
    FILLS,
    FREE,
    GATHERS,
    IGNORED_NAMESPACES,
    MOVES,
    SCATTER_ADDS,
    UNDECLARED_VIEWS,
)
from effbench.meters.scratch import SCRATCH, Scratch


@dataclass(frozen=True, slots=True)
class Rule:
    """How one op is counted.

    ``traffic``: full (reads all inputs, writes all outputs), write (its destination is not read),
    gather (reads as much as it writes), none, or ignored (not even a call). ``scratch``: on a CPU.
    ``decompose``: made of other ops, count those. ``fresh``: its outputs are new storages.
    """

    cost: Cost | None = None
    needed: Cost | None = None
    traffic: str = "full"
    known: bool = True
    decompose: bool = False
    fresh: bool = True
    complex_factor: int = 2
    scratch: Scratch | None = None
    name: str = ""


def _by_output(flops: float, transcendentals: float) -> Cost:
    def cost(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
        count = outs[0].numel() if outs else 0
        return 0, flops * count, transcendentals * count, 0

    return cost


def _by_input(flops: float, transcendentals: float) -> Cost:
    def cost(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
        count = args[0].numel() if args else 0
        return 0, flops * count, transcendentals * count, 0

    return cost


def _pow(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    """Small whole exponents are multiplications in every backend; any other is a transcendental."""
    exponent = args[1] if len(args) > 1 else kwargs.get("exponent")
    cheap = {0: 0, 1: 0, 2: 1, 3: 2, -1: 1, -2: 2} if isinstance(exponent, int | float) else {}
    count = outs[0].numel()
    if exponent in cheap:
        return 0, cheap[exponent] * count, 0, 0
    return 0, 0, count, 0


def _sort(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    """n log2 n comparisons a row, along the last dimension where none is given."""
    named = kwargs.get("dim", next((a for a in args[1:] if type(a) is int), -1))
    length = args[0].shape[named] if args[0].dim() else 1
    return 0, args[0].numel() * log2(max(length, 1)), 0, 0


def _added(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    """One addition for each element that is added into the destination."""
    source = next((a for a in reversed(args) if isinstance(a, torch.Tensor)), None)
    return 0, source.numel() if source is not None else 0, 0, 0


def _index_put(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
    accumulates = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
    return _added(func, args, kwargs, outs) if accumulates else (0, 0, 0, 0)


def _registered(formula: Callable[..., int]) -> Cost:
    """A formula of PyTorch's own registry, or one that a custom op has registered there."""

    def cost(func: Any, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> Work:
        return formula(*args, **kwargs, out_val=outs[0] if len(outs) == 1 else tuple(outs)), 0, 0, 0

    return cost


_OWN_COSTS: Mapping[str, Cost] = {
    "pow": _pow,
    "sort": _sort,
    "index_put": _index_put,
    "_index_put_impl": _index_put,
    **dict.fromkeys(SCATTER_ADDS - {"index_put", "_index_put_impl"}, _added),
    **products.COSTS,
}


def base_name(func: OpOverload) -> str:
    """``add`` for add.Tensor, add_.Scalar and add.out: what is computed, wherever it is written."""
    name = func._schema.name.partition("::")[2]
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _is_composite(func: OpOverload) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))  # type: ignore[no-untyped-call]


def _cost_of(name: str, func: OpOverload) -> Cost | None:
    """The cost from the first table that knows the op; None where none does."""
    if name in _OWN_COSTS:
        return _OWN_COSTS[name]
    if name in BY_OUTPUT:
        return _by_output(*BY_OUTPUT[name])
    if name in BY_INPUT:
        return _by_input(*BY_INPUT[name])
    if func._overloadpacket in flop_registry:
        return _registered(flop_registry[func._overloadpacket])
    if torch.Tag.pointwise in func.tags:
        return _by_output(1, 0)
    if torch.Tag.reduction in func.tags:
        return _by_input(1, 0)
    return None


@cache
def classify(func: Any) -> Rule:
    """The rule for an op, looked up once in a process."""
    if not isinstance(func, OpOverload):
        return Rule(known=False, name=str(func))
    name, label = base_name(func), str(func._overloadpacket)
    fresh = not any(value.alias_info is not None for value in func._schema.returns)
    overwrites = func._schema.name.endswith(("copy_", "fill_", "zero_")) or name in FILLS
    if func.namespace in IGNORED_NAMESPACES:
        return Rule(traffic="ignored", fresh=False, name=label)
    if name in FREE and func.namespace == "aten":
        return Rule(traffic="none", fresh=fresh and name not in UNDECLARED_VIEWS, name=label)
    if func.namespace == "aten":
        if name in FILLS or name in MOVES or torch.Tag.view_copy in func.tags:
            return Rule(traffic="write" if overwrites else "full", fresh=fresh, name=label)
        if name in GATHERS:
            return Rule(traffic="gather", fresh=fresh, name=label)
    cost = _cost_of(name, func)
    if cost is None and _is_composite(func):
        return Rule(decompose=True, name=label)
    if cost is None and func.is_view:
        return Rule(traffic="none", fresh=False, name=label)
    return Rule(
        cost=cost,
        needed=products.NEEDED.get(name),
        known=cost is not None,
        fresh=fresh,
        complex_factor=6 if name in ("mul", "div") else 2,
        scratch=SCRATCH.get(name),
        name=label,
    )
