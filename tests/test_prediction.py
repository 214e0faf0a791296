"""What is counted on fake tensors: nothing may need moving, since fake parameters cannot be moved."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from effbench import subject
from effbench.cell import Cell
from effbench.prediction import on_fake_tensors
from effbench.registry import MECHANISMS, Registry, load_mechanism

CELL = Cell(mechanism="", level="op", seq=256, dim=64, heads=2, threads=1)


@pytest.mark.parametrize("name", ["mha", "mha-tiled", "aft-full", "aft-simple", "aft-conv", "linear", "fnet"])
def test_cells_of_another_device_are_counted(name: str) -> None:
    mechanism, _ = load_mechanism(Registry.installed(MECHANISMS), name)
    cell = replace(CELL, mechanism=name)
    here, there = (on_fake_tensors(mechanism, replace(cell, device=d), seconds=30) for d in ("cpu", "meta"))
    assert "uncounted" not in there, there
    assert there["live_bytes"] == here["live_bytes"]
    assert there["counted"]["matmul"] == here["counted"]["matmul"]
    assert there["peak_bytes"] > 0


@pytest.mark.parametrize(
    ("made", "asked", "alike"),
    [
        ("cuda:0", "cuda", True),
        ("cuda:0", "cuda:1", False),
        ("cpu", "cuda", False),
        ("cuda:1", "cuda:1", True),
    ],
)
def test_a_tensor_made_on_cuda_says_that_it_is_on_cuda_0(made: str, asked: str, alike: bool) -> None:
    """As on a machine with GPUs: a fake tensor that is where it shall be must not be moved."""
    weight = SimpleNamespace(device=torch.device(made), dtype=torch.float32, is_floating_point=lambda: True)
    module = SimpleNamespace(parameters=lambda: [weight], buffers=list)
    assert subject._is_at(module, replace(CELL, device=asked)) is alike  # type: ignore[arg-type]
