"""``effbench.run`` from Python: turns what the caller has into a request."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from effbench.axes import make_axes
from effbench.cell import Budget
from effbench.environment import default_memory_limit, gpu_memory, memory_total
from effbench.errors import BadInput
from effbench.grammar import parse_option
from effbench.quantity import parse_bytes, parse_seconds
from effbench.session import Request, measure
from effbench.suite import Suite, load_suite, only, replace_axes, replace_options

if TYPE_CHECKING:
    import pandas as pd

    from effbench.frame import Run

#: Bytes: with less a process cannot even answer that it ran out.
_LEAST_MEMORY = 64 << 20


def run(
    suite: str,
    *,
    mechanisms: Sequence[Any] | None,
    options: Mapping[str, Mapping[str, Any]] | None,
    baseline: str | None,
    memory_limit: str | int | None,
    cell_timeout: str | float,
    budget: str | float | None,
    patience: str | float | None,
    out: str | None,
    fresh: bool,
    axes: Mapping[str, Any],
) -> pd.DataFrame:
    """See ``effbench.run``."""
    name, asked = load_suite(suite)
    asked = replace_axes(asked, make_axes(axes, ""))
    asked, objects = with_mechanisms(asked, mechanisms)
    asked = with_options(asked, options or {})
    if baseline is not None:
        asked = asked.model_copy(update={"baseline": baseline})
    request = Request(
        name=name,
        suite=asked,
        out=Path(out or f"results/{name}"),
        budget=make_budget(memory_limit, cell_timeout, budget, patience),
        extra=objects,
        fresh=fresh,
        command="effbench.run(...) from Python",
    )
    return measure(request).frame


def run_one(
    mechanism: Any, *, options: Mapping[str, Mapping[str, Any]], axes: Mapping[str, Any], out: Path
) -> Run:
    """One cell of one mechanism, by any way of naming it, measured into a folder without reports.

    Raises:
        BadInput: an axis with several values, or anything that a run would not accept.
    """
    asked = replace_axes(Suite(baseline="none"), make_axes(axes, ""))
    asked, objects = with_mechanisms(asked, [mechanism])
    found = measure(
        Request(
            name="one",
            suite=with_options(asked, options),
            out=out,
            budget=make_budget(None, "60s", None, patience=0),
            extra=objects,
            fresh=True,
            command="mechanism_benchmark(...) under pytest",
            reports=(),
        )
    )
    if len(found.frame) != 1:
        raise BadInput(f"one cell at a time: these axes and options give {len(found.frame)}")
    return found


def with_mechanisms(suite: Suite, mechanisms: Sequence[Any] | None) -> tuple[Suite, list[Any]]:
    """The suite with exactly these mechanisms; those that are no specification come back apart."""
    if mechanisms is None:
        return suite, []
    if not mechanisms:
        raise BadInput("mechanisms: the list is empty")
    names = [m for m in mechanisms if isinstance(m, str)]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise BadInput(f"mechanisms: {twice} is asked twice")
    return only(suite, names), [m for m in mechanisms if not isinstance(m, str)]


def with_options(suite: Suite, options: Mapping[str, Mapping[str, Any]]) -> Suite:
    """The suite with options replaced; those of mechanisms that it does not run are refused by the plan."""
    return replace_options(suite, option_values(options))


def option_values(options: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """The values that each option of each mechanism takes, from what people write."""
    return {
        mechanism: {name: parse_option(value, where=f"{mechanism}.{name}") for name, value in given.items()}
        for mechanism, given in options.items()
    }


def make_budget(
    memory_limit: str | int | None,
    cell_timeout: str | float,
    total: str | float | None,
    patience: str | float | None = None,
) -> Budget:
    """The effort of a run from amounts as people write them; left out, a cell may take 2/3 of the memory.

    Patience that is left out is what ``EFFBENCH_PATIENCE`` says, else a minute.
    """
    if patience is None:
        patience = os.environ.get("EFFBENCH_PATIENCE", "60s")
    given = None if memory_limit is None else parse_bytes(memory_limit, where="memory-limit")
    if given is not None and given < _LEAST_MEMORY:
        raise BadInput(
            f"memory-limit: {memory_limit} is too small, the least is {_LEAST_MEMORY >> 20}MiB: "
            "it holds for the comparison with the reference too"
        )
    return Budget(
        memory_limit=given or default_memory_limit(),
        gpu_limit=given or _share_of_gpu(),
        heap_limit=given or memory_total() * 9 // 10,
        cell_timeout=parse_seconds(cell_timeout, where="cell-timeout"),
        patience=parse_seconds(patience, where="patience", least=0.0),
        total=None if total is None else parse_seconds(total, where="budget"),
    )


def _share_of_gpu() -> int | None:
    """Nine tenths of the smallest GPU: the rest is for CUDA itself."""
    memory = gpu_memory()
    return None if memory is None else memory * 9 // 10
