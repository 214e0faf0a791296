"""The options that ask a question, shared by the commands that measure, and the request that they make."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effbench.errors import BadInput

if TYPE_CHECKING:
    from effbench.session import Request

Text = str | None


def option(text: str, *names: str) -> Any:
    """An option with its help."""
    return typer.Option(*names, help=text, show_default=False)


Mechanism = Annotated[Text, option("Exactly these: names, module:object or files, by commas.")]
With = Annotated[list[str] | None, option("Add a mechanism to the suite's.", "--with")]
Option = Annotated[list[str] | None, option("An option: aft-local.window=32..512")]
Baseline = Annotated[Text, option("What others are compared with; none for none.")]
Seq = Annotated[Text, option("Lengths: 1024..65536 · 512,1000 · 1024..8192:+1024 · 256..64K:5")]
Dim = Annotated[Text, option("Widths, in the same forms.")]
Batch = Annotated[Text, option("Batch sizes.")]
Heads = Annotated[Text, option("Heads; one for every 64 of the width where left out.")]
Dtype = Annotated[Text, option("float32, bfloat16, float16, float64")]
Mode = Annotated[Text, option("forward, train, decode, generate")]
Level = Annotated[Text, option("op, layer, block, model")]
Stack = Annotated[list[str] | None, option("Of blocks and models: depth=4..16, memory=plain,reversible")]
Causal = Annotated[bool | None, option("Causal or not.", "--causal/--no-causal")]
Device = Annotated[Text, option("cpu, cuda or cuda:1")]
Threads = Annotated[Text, option("Threads; the usable cores where left out.")]
Compile = Annotated[bool, option("Through torch.compile.", "--compile")]
Gemm = Annotated[Text, option("Who multiplies matrices: torch, onednn or auto.")]
Precision = Annotated[Text, option("Of float32 products: highest or high.")]
Allocator = Annotated[Text, option("warm (memory is kept) or default.")]
MemoryLimit = Annotated[Text, option("Memory that a cell may take: 6GiB")]
CellTimeout = Annotated[str, option("Time that one pass may take.")]
Budget = Annotated[Text, option("Time for the whole run: 10m")]
Patience = Annotated[
    Text,
    option(
        "Time at the end to visit again what slow cores or unlike processes leave in doubt: 60s, 0 for none"
    ),
]


def request(
    suite: str,
    axes: dict[str, Any],
    mechanism: str | None,
    added: list[str],
    options: list[str],
    baseline: str | None,
    memory_limit: str | None,
    cell_timeout: str,
    budget: str | None,
    out: Path | None,
    fresh: bool = False,
    patience: str | None = None,
) -> Request:
    """The request that options ask for; ``axes`` are those of the command line, None where not given.

    Raises:
        BadInput: a suite, an axis or an amount is not accepted.
    """
    from effbench.api import make_budget, with_mechanisms, with_options
    from effbench.axes import make_axes
    from effbench.session import Request
    from effbench.suite import load_suite, replace_axes

    name, asked = load_suite(suite)
    asked = replace_axes(asked, make_axes({k: v for k, v in axes.items() if v is not None}, "--"))
    names = [m.strip() for m in mechanism.split(",")] if mechanism is not None else list(asked.mechanisms)
    asked, _ = with_mechanisms(asked, [*names, *added])
    asked = with_options(asked, by_mechanism(options))
    if baseline is not None:
        asked = asked.model_copy(update={"baseline": baseline})
    return Request(
        name=name,
        suite=asked,
        out=out or Path("results") / name,
        budget=make_budget(memory_limit, cell_timeout, budget, patience),
        fresh=fresh,
        command=shlex.join(["effbench", *sys.argv[1:]]),
    )


def axes(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The axes among a command's parameters, by name, as ``request`` takes them.

    Raises:
        BadInput: a stack is not written as key=value.
    """
    from effbench.axes import Axes

    stack, compiled = by_key(parameters.get("stack")), parameters.get("compile_") or None
    named = {**parameters, "stack": stack, "compile": compiled}
    return {name: named[name] for name in Axes.model_fields if name in named}


def by_key(given: list[str] | None) -> dict[str, str] | None:
    """``key=value`` of a stack; None where nothing was given."""
    stack: dict[str, str] = {}
    for text in given or ():
        key, equals, value = text.partition("=")
        if not (key.strip() and equals and value.strip()):
            raise BadInput(f"--stack: {text!r} is not of the form key=value, such as depth=4..16")
        if key.strip() in stack:
            raise BadInput(f"--stack: {key.strip()} is given twice; its values are joined by commas")
        stack[key.strip()] = value
    return stack or None


def by_mechanism(given: list[str]) -> dict[str, dict[str, str]]:
    """``mechanism.option=value``; the mechanism's own name may hold dots, the option's may not."""
    options: dict[str, dict[str, str]] = {}
    for text in given:
        place, equals, value = text.partition("=")
        mechanism, dot, name = place.rpartition(".")
        if not (equals and dot and mechanism and name and value):
            raise BadInput(f"--option: {text!r} is not of the form mechanism.option=value")
        options.setdefault(mechanism, {})[name] = value
    return options
