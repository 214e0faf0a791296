"""Throughput of every built-in mechanism under pytest-benchmark.

An ordinary test run makes each pass once. To time them side by side, in one process and without the
guarantees of ``effbench run``: ``pytest suites/bench_throughput.py --benchmark-enable``, with
``--benchmark-save`` and ``--benchmark-compare`` to hold them against an earlier moment of the same machine.
What such a comparison can tell is 30 % and more (docs/ci.md says why); ``effbench gate`` is for less.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from effbench.cell import Cell
from effbench.registry import MECHANISMS, Registry, load_mechanism
from effbench.subject import build_subject

BUILT_IN = sorted(
    name
    for name, claims in Registry.installed(MECHANISMS).claims.items()
    if claims[0].target.startswith("effbench.mechanisms")
)


@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_throughput(benchmark: Any, name: str, mode: str) -> None:
    mechanism, _ = load_mechanism(Registry.installed(MECHANISMS), name)
    threads = torch.get_num_threads()
    cell = Cell(
        mechanism=name, options=mechanism.options, mode=mode, seq=256, dim=64, heads=1, threads=threads
    )
    subject = build_subject(mechanism, cell, seed=1)
    benchmark.group = f"256 tokens, width 64, {mode}"
    output = benchmark(subject.call, 0)
    assert output.shape == (1, 256, 64)
    assert torch.isfinite(output).all()
