"""FLOPs, bytes and live memory of one call, op by op, by a dispatch mode of our own.

torch's FlopCounterMode answers 0 for attention on the CPU, FFTs, running sums and everything
elementwise, and says nothing; here four counters stay apart and an op that no rule knows is named.
Count on the module as written, in a process that times nothing: a dispatch mode can make a compiled
function run eagerly for ever after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from effbench.errors import EffbenchError
from effbench.meters.op_costs import Rule, classify
from effbench.meters.storages import StorageTracker, storage_key, touched_bytes

KINDS = ("matmul", "elementwise", "transcendental", "fft")


def count(call: Callable[[], Any], *, strict: bool = False) -> dict[str, Any]:
    """Runs ``call`` once and counts what it does, backward passes included; real and fake tensors alike.

    ``counted``: FLOPs as done, by kind. ``needed``: the same without the dead parts of causal tiles,
    None where no fused causal attention was seen. ``bytes_moved``: for each op its distinct inputs
    read and its outputs written, a model of eager traffic and not a measurement of it. ``calls``: ops
    dispatched. ``peak_bytes``: the most that storages made during the call held at one time, and
    beside them what is known of kernels' own scratch (``scratch``).
    """
    counter = OpCounter()
    with counter:
        output = call()
    del output
    counter.storages.stop()
    if strict and counter.uncounted_ops:
        names = ", ".join(sorted(counter.uncounted_ops))
        raise EffbenchError(
            f"no rule counts {names}; add one to effbench/meters/op_costs.py "
            "or register it with torch.utils.flop_counter.register_flop_formula"
        )
    return counter.result()


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """The tensors among some arguments or outputs, those in lists and tuples included."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


class OpCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every op that reaches the dispatcher below autograd."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.work = [0.0] * len(KINDS)
        self.saved_work = [0.0] * len(KINDS)  # done but not needed
        self.bytes_moved = 0
        self.calls = 0
        self.uncounted_ops: dict[str, int] = {}
        self.storages = StorageTracker()

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Without this, a compiled function called in the mode runs eagerly ever after (pytorch #190286)."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        rule = classify(func)
        if rule.decompose:
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        output = func(*args, **kwargs)
        if rule.traffic == "ignored":
            return output
        self.calls += 1
        if rule.traffic == "none" and not rule.fresh:
            return output
        outs = [output] if isinstance(output, torch.Tensor) else list(tensors_in((output,)))
        if rule.traffic != "none":
            self._count(func, rule, args, kwargs, outs)
        if rule.fresh:
            for out in outs:
                self.storages.add(out)
            if rule.scratch is not None and outs[0].device.type == "cpu":
                self.storages.beside(rule.scratch(args, outs))
        return output

    def _count(self, func: Any, rule: Rule, args: Any, kwargs: Any, outs: list[torch.Tensor]) -> None:
        ins = list(tensors_in(args))
        if kwargs:  # a keyword argument called out is a destination: it is among the outputs
            ins += tensors_in(value for name, value in kwargs.items() if name != "out")
        self.bytes_moved += moved_bytes(rule.traffic, ins, outs)
        if not rule.known or rule.decompose:
            self.uncounted_ops[rule.name] = self.uncounted_ops.get(rule.name, 0) + 1
        if rule.cost is None:
            return
        dtypes = {tensor.dtype for tensor in ins + outs}
        if not any(dtype.is_floating_point or dtype.is_complex for dtype in dtypes):
            return
        factors = (4, rule.complex_factor, 2, 1) if any(d.is_complex for d in dtypes) else (1, 1, 1, 1)
        work = [w * factor for w, factor in zip(rule.cost(func, args, kwargs, outs), factors, strict=True)]
        for place, value in enumerate(work):
            self.work[place] += value
        if rule.needed is not None:
            for place, value in enumerate(rule.needed(func, args, kwargs, outs)):
                self.saved_work[place] += work[place] - value * factors[place]

    def result(self) -> dict[str, Any]:
        """The counters by name."""
        counted = dict(zip(KINDS, self.work, strict=True))
        needed = {kind: counted[kind] - saved for kind, saved in zip(KINDS, self.saved_work, strict=True)}
        return {
            "counted": counted,
            "needed": needed if any(self.saved_work) else None,
            "uncounted_ops": self.uncounted_ops,
            "bytes_moved": self.bytes_moved,
            "calls": self.calls,
            "peak_bytes": self.storages.peak_bytes,
        }


def moved_bytes(traffic: str, ins: list[torch.Tensor], outs: list[torch.Tensor]) -> int:
    """Bytes that one op reads and writes: distinct regions read once, outputs written once."""
    written = 0
    for out in outs:
        written += touched_bytes(out, storage_key(out)[1])
    if traffic == "write":
        destinations = {id(out) for out in outs}
        ins = [tensor for tensor in ins if id(tensor) not in destinations]
    elif traffic == "gather":  # the rows that were asked for, and the index; not the whole table
        return 2 * written + sum(t.numel() * t.element_size() for t in ins[1:])
    regions: dict[tuple[int, int], int] = {}
    for tensor in ins:
        key, size = storage_key(tensor)
        region = (key or id(tensor), int(tensor.storage_offset()) if key else 0)
        regions[region] = max(regions.get(region, 0), touched_bytes(tensor, size))
    return written + sum(regions.values())
