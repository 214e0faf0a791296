"""Blocks and models: gradients, parameters, work, and the memory that reversible blocks keep flat."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from typer.testing import CliRunner

from effbench.cell import Cell
from effbench.cli import app
from effbench.declaration import formula, unsupported
from effbench.errors import BadInput, Unsupported
from effbench.meters.counts import count
from effbench.model import Block, parameters
from effbench.plugin import Mechanism
from effbench.registry import MECHANISMS, Registry, load_mechanism
from effbench.reversible import ReversibleStack, couple
from effbench.stack import complete
from effbench.subject import build_module, build_subject

Effbench = Callable[..., subprocess.CompletedProcess[str]]
CELL = Cell(mechanism="mha", level="model", seq=16, dim=16, heads=2, threads=1, dtype="float64")


def mechanism(name: str) -> Mechanism:
    return load_mechanism(Registry.installed(MECHANISMS), name)[0]


def cell(level: str = "model", *, stack: dict[str, Any] | None = None, **change: Any) -> Cell:
    return replace(CELL, level=level, stack=complete(level, stack or {}), **change)


def gradients(
    module: nn.Module, function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor
) -> list[Any]:
    """The output, and the gradients of the input and every parameter for an arbitrary one of the output."""
    x = x.clone().requires_grad_()
    y = function(x)
    return [y, *torch.autograd.grad(y, (x, *module.parameters()), y.detach().cos())]


@pytest.mark.parametrize("name", ["mha", "aft-full", "linear"])
def test_reversible_gradients_are_those_that_autograd_finds(name: str) -> None:
    module = build_module(mechanism(name), cell("block", seq=12, stack={"memory": "reversible"}), seed=1)
    stack = ReversibleStack([copy.deepcopy(module.pairs()[0]) for _ in range(5)])
    with torch.no_grad():
        for parameter in stack.parameters():
            parameter += 0.1 * torch.randn_like(parameter)

    def kept(x: torch.Tensor) -> torch.Tensor:
        return sum(couple(stack.pairs(), x)) / 2

    x = torch.randn(2, 12, 16, dtype=torch.float64)
    torch.testing.assert_close(gradients(stack, stack, x), gradients(stack, kept, x), rtol=1e-8, atol=1e-8)


def test_a_branch_that_two_blocks_share_gets_both_gradients() -> None:
    f, g = nn.Linear(4, 4).double(), nn.Tanh()
    stack = ReversibleStack([(f, g), (f, g)])
    x = torch.randn(3, 4, dtype=torch.float64)
    expected = gradients(stack, lambda x: sum(couple([(f, g), (f, g)], x)) / 2, x)
    torch.testing.assert_close(gradients(stack, stack, x), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_checkpointed_gradients_are_the_plain_ones(norm: str) -> None:
    plain, checkpointed = (
        build_module(mechanism("mha"), cell("block", stack={"memory": m, "norm": norm}), seed=1)
        for m in ("plain", "checkpoint")
    )
    x = torch.randn(2, 16, 16, dtype=torch.float64)
    expected = gradients(plain, plain, x)
    torch.testing.assert_close(gradients(checkpointed, checkpointed, x), expected, rtol=1e-8, atol=1e-8)


def test_a_block_is_the_textbook_one() -> None:
    norm, block = nn.functional.layer_norm, build_module(mechanism("mha"), cell("block"), seed=0)[0]
    post = build_module(mechanism("mha"), cell("block", stack={"norm": "post"}), seed=0)[0]
    x = torch.randn(1, 16, 16, dtype=torch.float64)
    layer, feed = (branch[1] for branch in block.branches)
    assert isinstance(block, Block)
    assert feed.up.weight.shape == (64, 16)
    y = x + layer(norm(x, (16,)))
    torch.testing.assert_close(block(x), y + feed.down(nn.functional.gelu(feed.up(norm(y, (16,))))))
    layer, feed = post.branches
    y = norm(x + layer(x), (16,))
    torch.testing.assert_close(post(x), norm(y + feed(y), (16,)))


@pytest.mark.parametrize(("name", "learned"), [("mha", 1), ("aft-full", 0), ("fnet", 0)])
@pytest.mark.parametrize("embedding", ["tokens", "patches"])
def test_a_model_reads_tokens_or_patches(name: str, learned: int, embedding: str) -> None:
    asked = cell(mechanism=name, stack={"embedding": embedding, "depth": 2, "classes": 7, "patch": 12})
    subject = build_subject(mechanism(name), asked, seed=0)
    assert len(subject.module.blocks) == 2
    assert (subject.module.position is not None) == learned
    assert subject.call(0).shape == ((1, 16, 256) if embedding == "tokens" else (1, 7))
    train = build_subject(mechanism(name), replace(asked, mode="train"), seed=0)
    assert train.call(0).shape == ()  # the loss
    assert train.params == subject.params


@pytest.mark.parametrize("level", ["block", "model"])
def test_matched_parameters_agree(level: str) -> None:
    sizes = {}
    for match in ("shape", "params"):
        for name in ("mha", "aft-simple", "aft-full", "synthesizer-dense", "fnet"):
            asked = cell(level, mechanism=name, seq=64, dim=64, stack={"match": match})
            sizes[match, name] = parameters(build_module(mechanism(name), asked, seed=0))
    assert sizes["params", "mha"] == sizes["shape", "mha"]
    for (match, _), size in sizes.items():
        assert match == "shape" or size == pytest.approx(sizes["params", "mha"], rel=0.01)
    assert sizes["shape", "fnet"] < 0.9 * sizes["shape", "mha"]


def test_parameters_that_cannot_be_matched_are_unsupported() -> None:
    asked = cell("block", mechanism="synthesizer-random", seq=512, stack={"match": "params"})
    with pytest.raises(Unsupported, match="where a Transformer has 3216 with one: no width makes them equal"):
        build_module(mechanism("synthesizer-random"), asked, seed=0)
    assert formula(mechanism("synthesizer-random"), asked) is None


def test_what_cannot_be_reversed_says_why() -> None:
    reversible = cell("block", stack={"memory": "reversible", "norm": "post"})
    assert (
        unsupported(mechanism("mha"), reversible)
        == "a reversible block has its norms inside its branches: norm pre"
    )
    reversible = cell("block", stack={"memory": "reversible"}, compile=True)
    assert unsupported(mechanism("mha"), reversible) == "reversible blocks are not compiled"


@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("memory", ["plain", "checkpoint", "reversible"])
@pytest.mark.parametrize(
    "stack",
    [{}, {"norm": "post"}, {"match": "params"}, {"embedding": "patches"}],
    ids=lambda s: "".join(s.values()),
)
def test_the_closed_form_is_what_is_counted(mode: str, memory: str, stack: dict[str, str]) -> None:
    if memory == "reversible" and stack.get("norm") == "post":
        return
    for level in ("block", "model"):
        asked = cell(level, seq=64, dim=64, mode=mode, dtype="float32", stack={**stack, "memory": memory})
        with FakeTensorMode():
            subject = build_subject(mechanism("mha"), asked, seed=0, ring=1, empty=True)
            counted = count(lambda subject=subject: subject.call(0))
        declared = formula(mechanism("mha"), asked)
        assert counted["uncounted_ops"] == {}
        assert counted["counted"]["matmul"] == declared["matmul"], (level, counted["counted"], declared)
        assert declared["transcendental"] == pytest.approx(counted["counted"]["transcendental"], rel=0.02)
        assert declared["elementwise"] == pytest.approx(counted["counted"]["elementwise"], rel=0.1)


def test_what_training_keeps() -> None:
    """Peaks of one pass as counted: all activations, the inputs of blocks, the last two streams."""
    peaks = {}
    for memory in ("plain", "checkpoint", "reversible"):
        for depth in (4, 16):
            stack = {"memory": memory, "depth": depth, "vocabulary": 4}
            asked = cell(seq=4096, dim=16, mode="train", dtype="float32", stack=stack)
            with FakeTensorMode():
                subject = build_subject(mechanism("aft-simple"), asked, seed=0, ring=1, empty=True)
                peaks[memory, depth] = count(lambda subject=subject: subject.call(0))["peak_bytes"]
    assert peaks["plain", 16] > 3 * peaks["plain", 4]
    assert peaks["checkpoint", 16] < 0.3 * peaks["plain", 16]
    inputs = 12 * 4096 * 16 * 4  # of the 12 blocks more
    assert peaks["checkpoint", 16] - peaks["checkpoint", 4] == pytest.approx(inputs, rel=0.1)
    assert peaks["reversible", 16] < 1.1 * peaks["reversible", 4]


@pytest.fixture(scope="module")
def deep(effbench: Effbench, tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Reversible models, small in width so that gradients of parameters weigh next to nothing."""
    folder = tmp_path_factory.mktemp("deep")
    words = ["--mechanism", "aft-simple,fnet", "--baseline", "aft-simple", "--level", "layer,model"]
    words += ["--mode", "train", "--seq", "4096", "--dim", "16", "--threads", "1", "--out", "r"]
    stack = ["--stack", "depth=4..16", "--stack", "memory=reversible", "--stack", "vocabulary=4"]
    done = effbench("run", *words, *stack, cwd=folder)
    assert done.returncode == 0, done.stderr
    frame = pd.read_csv(folder / "r" / "table.csv", keep_default_na=False)
    return frame.assign(depth=[json.loads(stack).get("depth", 0) for stack in frame["stack"]])


def test_reversible_blocks_keep_memory_flat(deep: pd.DataFrame) -> None:
    for name in ("aft-simple", "fnet"):
        models = deep[(deep["mechanism"] == name) & (deep["level"] == "model")]
        peaks = models["peak_bytes"].astype(float)
        assert sorted(models["depth"]) == [4, 8, 16]
        assert peaks.max() < 1.1 * peaks.min()


def test_a_layer_is_asked_once_whatever_the_stacks(deep: pd.DataFrame) -> None:
    layers = deep[deep["level"] == "layer"]
    assert (list(layers["mechanism"]), set(layers["stack"])) == (["aft-simple", "fnet"], {"{}"})


def test_a_model_of_other_capacity_is_flagged(deep: pd.DataFrame) -> None:
    """FNet has no projections and knows positions: its models are smaller than the baseline's."""
    flagged = deep["flags"].str.contains("params-differ")
    assert list(flagged) == list((deep["mechanism"] == "fnet") & (deep["level"] == "model"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--stack", "depth=2"],
            "--stack: depth is a matter of level model, and this asks layer; --level says which",
        ),
        (["--level", "block", "--stack", "norm=mid"], "--stack: norm: 'mid' is none of pre, post"),
        (
            ["--level", "block", "--stack", "depht=2"],
            "--stack: unknown key depht; expected one of classes, depth,",
        ),
        (["--level", "model", "--stack", "depth"], "--stack: 'depth' is not of the form key=value, such as"),
        (["--level", "model", "--stack", "depth=0"], "--stack: depth: 0 is too small, the least is 1"),
    ],
)
def test_what_a_stack_refuses(words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["run", "quick", "--dry-run", *words])
    assert isinstance(done.exception, BadInput)
    assert str(done.exception).startswith(message)
