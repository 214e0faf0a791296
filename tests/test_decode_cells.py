"""Cells of mode decode: checked step by step, refused where there is no step, counted with their state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from effbench.cell import Budget, Cell
from effbench.check import check
from effbench.declaration import formula, unsupported
from effbench.mechanisms import mha_recompute as recompute
from effbench.mechanisms import mha_sdpa as fused
from effbench.meters.storages import unique_bytes
from effbench.plugin import Flops, Mechanism
from effbench.prediction import on_fake_tensors
from effbench.registry import MECHANISMS, Registry, load_mechanism
from effbench.servers import Servers
from effbench.status import judge
from effbench.subject import Unsupported, build_subject
from effbench.visit import Visitor

CELL = Cell(mechanism="sum", mode="decode", causal=True, seq=32, dim=8, heads=2, threads=1)


class RunningSum(nn.Module):
    """y_t is the sum of all tokens up to t."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.cumsum(1)

    def prefill(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(1)

    def step(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return state + x, state + x


class Forgetful(RunningSum):
    """Its first step after any prefill is right, and then it forgets what it was told."""

    def step(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return state + x, state


class Spoiling(RunningSum):
    def step(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return state.add_(x).clone(), state


class Shapeless(RunningSum):
    def step(self, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return (state + x)[:, :1], state + x


def mechanism(module: type[nn.Module], **more: Any) -> Mechanism:
    return Mechanism(
        name="sum", build=lambda shape, *, causal: module(), reference=lambda m, x: x.cumsum(1), **more
    )


def test_right_steps_pass_the_check() -> None:
    assert check(mechanism(RunningSum), CELL, seed=0).wrong == ""


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        (Forgetful, "decode step differs from its reference"),
        (Spoiling, "a step changes the state that it is given"),
        (Shapeless, "a step returned shape [2, 1] for an input of shape [2, 8]"),
    ],
)
def test_wrong_steps_are_incorrect(module: type[nn.Module], reason: str) -> None:
    assert reason in check(mechanism(module), CELL, seed=0).wrong


def test_a_module_without_steps_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="offers no prefill and step"):
        check(mechanism(nn.Identity), CELL, seed=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"causal": False}, "--causal"), ({"level": "op"}, "level layer"), ({"compile": True}, "not compiled")],
)
def test_what_cannot_be_decoded_says_why(change: dict[str, Any], reason: str) -> None:
    assert unsupported(mechanism(RunningSum), CELL) is None
    assert reason in str(unsupported(mechanism(RunningSum), replace(CELL, **change)))


def test_the_state_is_in_place_and_the_context_is_not() -> None:
    subject = build_subject(mechanism(RunningSum), CELL, seed=0)
    assert sorted(t.numel() for t in subject.live) == [8] * 5  # four tokens and the state
    assert subject.call(0).shape == (1, 8)


LOSES_ITS_PLACE = """
from torch import nn

class LosesItsPlace(nn.Module):
    def forward(self, x):
        return x
    def prefill(self, x):
        if x.shape[1] == 32:
            raise RuntimeError("lost my place")
        return x.new_zeros(7, x.shape[2])
    def step(self, x, state):
        return x, state
"""


def test_what_fails_while_the_context_is_read_fails_in_prefill(tmp_path: Path) -> None:
    """Also where what came before it, a pass at a quarter of the length, went well."""
    (tmp_path / "reader.py").write_text(LOSES_ITS_PLACE)
    servers, budget = Servers(), Budget(memory_limit=2**30)
    visitor = Visitor(servers=servers, budget=budget, logs=tmp_path, seed=0)
    more = {"spec": f"{tmp_path / 'reader.py'}:LosesItsPlace", "min_samples": 1, "min_time": 0.0}
    more |= {"alloc": False, "repeats": 1, "memory_timeout": 60.0}
    try:
        asked = [
            visitor.ask("counts", CELL, question, single=cold, cold=cold, **more)
            for question in ("time", "memory")
            for cold in (False, True)
        ]
        shorter = visitor.ask("memory", replace(CELL, seq=16), "memory", cold=True, **more).answer
    finally:
        servers.stop()
    assert shorter["memory"]["state_bytes"] == 7 * CELL.dim * 4 < shorter["memory"]["live_bytes"]
    assert {judge(one) for one in asked} == {("error", "prefill", "RuntimeError: lost my place")}


def needed(name: str, cell: Cell) -> dict[str, float]:
    declared, _ = load_mechanism(Registry.installed(MECHANISMS), name)
    asked = replace(cell, mechanism=name)
    found = on_fake_tensors(declared, asked, seconds=60)
    work: dict[str, float] = found["needed"] or found["counted"]
    return work


@pytest.mark.parametrize("seq", [200, 1000])
def test_recomputing_costs_a_pass_over_the_context_and_the_token(seq: int) -> None:
    cell = replace(CELL, seq=seq, dim=64)
    whole = formula(fused.MECHANISM, replace(cell, mechanism="mha-sdpa", mode="forward", seq=seq + 1))
    assert whole is not None
    assert needed("mha-recompute", cell)["matmul"] == whole["matmul"]
    shorter = formula(fused.MECHANISM, replace(cell, mechanism="mha-sdpa", mode="forward", seq=seq))
    cached = needed("mha-sdpa", cell)["matmul"]  # a step is what one more token adds to a pass
    assert shorter is not None
    assert cached == whole["matmul"] - shorter["matmul"]


@pytest.mark.parametrize("name", ["mha-sdpa", "mha-recompute", "linear"])
def test_a_sequence_costs_its_steps(name: str) -> None:
    cell = replace(CELL, seq=9, dim=64)
    steps = [needed(name, replace(cell, seq=n))["matmul"] for n in range(1, 9)]
    first = needed(name, replace(cell, mode="generate", seq=1))["matmul"]
    assert needed(name, replace(cell, mode="generate"))["matmul"] == first + sum(steps)


class FromNothing(RunningSum):
    def initial_state(self, batch: int) -> torch.Tensor:
        return torch.zeros(batch, CELL.dim)


class FromSomething(RunningSum):
    def initial_state(self, batch: int) -> torch.Tensor:
        return torch.ones(batch, CELL.dim)


def test_a_sequence_starts_from_nothing() -> None:
    cell = replace(CELL, mode="generate")
    assert check(mechanism(FromNothing), cell, seed=0).wrong == ""
    assert "differs from its reference" in check(mechanism(FromSomething), cell, seed=0).wrong
    with pytest.raises(Unsupported, match="no initial_state"):
        check(mechanism(RunningSum), cell, seed=0)
    subject = build_subject(mechanism(FromNothing), cell, seed=0)
    assert torch.allclose(subject.call(0), subject.inputs[0].sum(1), atol=1e-4)


def test_recomputing_keeps_the_tokens_and_a_cache_their_keys_and_values() -> None:
    cell = replace(CELL, seq=1000, dim=64)
    sizes = {
        one.name: unique_bytes(build_subject(one, cell, seed=0).kept)
        for one in (fused.MECHANISM, recompute.MECHANISM)
    }
    rows = 1000 + 250  # a quarter more, to grow into
    assert sizes == {"mha-sdpa": 2 * rows * 64 * 4, "mha-recompute": rows * 64 * 4}


@pytest.mark.parametrize("mode", ["decode", "generate"])
@pytest.mark.parametrize("name", ["mha", "mha-sdpa", "mha-tiled", "mha-recompute", "linear"])
def test_the_closed_form_of_steps_is_what_is_counted(name: str, mode: str) -> None:
    declared, _ = load_mechanism(Registry.installed(MECHANISMS), name)
    cell = replace(CELL, mechanism=name, mode=mode, batch=2, seq=21, dim=48)
    declared_work, counted = formula(declared, cell), needed(name, cell)
    assert declared_work == pytest.approx(counted, rel=1e-3)
    assert declared_work is not None
    assert declared_work["matmul"] == counted["matmul"]


def test_a_closed_form_of_whole_sequences_is_not_that_of_a_step() -> None:
    declared = mechanism(RunningSum, flops=lambda shape, *, causal, mode: Flops(elementwise=1.0))
    assert formula(declared, CELL) is None
    assert formula(declared, replace(CELL, mode="forward")) is not None
