"""What a fork server does once, for all its children: slow imports and first uses. It must not compute."""

from __future__ import annotations

import gc
import importlib
from functools import partial

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from effbench import nvml
from effbench.meters import counts, memory, resident
from effbench.registry import MECHANISMS, Registry


def prepare(kind: str) -> None:
    """For a server of a kind of question: time, memory, counts or instructions."""
    Registry.installed(MECHANISMS)  # the system's tables of distributions are then in the children's caches
    # A process's first backward pass imports this, and sympy with it, which takes longer than a cheap cell.
    importlib.import_module("torch.fx.experimental.symbolic_shapes")
    # Beside a GPU the profiler starts CUDA, and a backward a thread for it: no child could then use either.
    alone = not (torch.version.cuda and nvml.gpus())
    if kind == "memory":
        if alone:
            memory.preheat()
        resident.can_reset()
    if kind == "counts":
        # The first fake operation imports for a second; fake tensors have no values, so nothing is computed.
        with FakeTensorMode():
            counts.count(partial(_first_operations, backward=alone))
    # What torch's import left is looked at no more: a child's first collection would take 0.1 s.
    gc.collect()
    gc.freeze()


def _first_operations(*, backward: bool) -> None:
    result = (torch.empty(2, 2) @ torch.empty(2, 2, requires_grad=True)).exp().sum()
    if backward:
        result.backward()  # type: ignore[no-untyped-call]
