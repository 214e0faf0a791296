"""What a fork server does once, for all its children: slow imports and first uses. It must not compute."""

from __future__ import annotations

import gc
import importlib
from functools import partial

import torch
from torch._subclasses import fake_impls

from effbench import first_operations, hugepages, nvml, prediction
from effbench.meters import counts, memory, resident
from effbench.registry import MECHANISMS, Registry


def prepare(kind: str) -> None:
    """For a server of a kind of question: time, memory, counts or instructions."""
    Registry.installed(MECHANISMS)  # the tables of distributions are then read
    # A process's first backward pass imports this, and sympy with it, which takes longer than a cheap cell.
    importlib.import_module("torch.fx.experimental.symbolic_shapes")
    # Beside a GPU the profiler starts CUDA, and a backward a thread for it: no child could then use either.
    alone = not (torch.version.cuda and nvml.gpus())
    if kind == "memory":
        if alone:
            memory.preheat()
        resident.can_reset()
    if kind == "counts":
        use_kernels_for_fake_views()
        # The first fake operation imports for a second; fake tensors have no values, so nothing is computed.
        with prediction.fake_mode():
            counts.count(partial(first_operations.run, backward=alone))
    # What torch's import left is looked at no more: a child's first collection would take 0.1 s.
    gc.collect()
    gc.freeze()
    # Where it changes no number: small cells would be 5 to 10 % faster than they are for anyone else, and
    # what a small pass adds to a process might fit into a page that is there.
    if kind == "counts":
        hugepages.collapse()
    else:
        hugepages.gather()


def use_kernels_for_fake_views() -> None:
    """Let fake tensors be viewed by torch's own kernels, as other operations are.

    torch has rules in Python for views, for the sake of sizes that are symbols: eight operations for one, up
    to a quarter of the time that a pass takes to count. Ours are numbers. ``op_implementations_dict`` is
    private: a test holds the views against real ones, and where it is gone views take longer.
    """
    rules: dict[object, object] = getattr(fake_impls, "op_implementations_dict", {})
    for view in (torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default):
        rules.pop(view, None)
