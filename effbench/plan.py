"""A plan is the cells of a run in the order of their lines; making one is pure and starts nothing."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from effbench.cell import SIZE_AXES, Cell, default_heads, usable_cores
from effbench.errors import BadInput
from effbench.stack import Stack, complete
from effbench.suite import Suite

#: Seeds the shuffles of the order and every input.
SEED = 20210528


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a child process said of one mechanism; plain data, so that the parent need not import it."""

    spec: str  # as it was named
    name: str  # as it is declared; the specification where it could not be loaded
    title: str = ""
    paper: str = ""
    causal: tuple[bool, ...] = (False, True)
    dtypes: tuple[str, ...] = ()
    complexity: Mapping[str, str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed_length: bool = False
    positional: bool = False
    same_as: str = ""
    reference: bool = False
    flops: bool = False
    needed: bool = False
    step_flops: bool = False
    supports: bool = False
    origin: str = ""
    source: str = ""
    file: str = ""  # that declares it
    error: str | None = None  # why it could not be loaded


@dataclass(frozen=True)
class Plan:
    """The cells, each once, and the lines in which the first round takes them: small before large."""

    cells: tuple[Cell, ...]
    lines: tuple[tuple[Cell, ...], ...]
    mechanisms: Mapping[str, Description]
    seed: int = SEED

    def first_round(self) -> Iterator[Cell]:
        """Every cell once: each line from small to large, the lines interleaved in a seeded shuffle."""
        rng = random.Random(self.seed)
        waiting = [list(line) for line in self.lines]
        while waiting:
            line = rng.choice(waiting)
            yield line.pop(0)
            if not line:
                waiting.remove(line)

    def later_round(self, number: int, cells: Sequence[Cell]) -> list[Cell]:
        """The given cells shuffled whole, so that a drift of the machine does not line up with an axis."""
        return random.Random(self.seed + number).sample(cells, len(cells))


def make_plan(suite: Suite, descriptions: Sequence[Description]) -> Plan:
    """The plan of a suite for mechanisms that have been described.

    Raises:
        BadInput: two mechanisms with one name, options of a mechanism that is not there, or an
            option that its mechanism does not have.
    """
    mechanisms = _by_name(descriptions)
    for name in [*suite.options, *(name for sweep in suite.sweep for name in sweep.options)]:
        if name not in mechanisms:
            raise BadInput(
                f"options.{name}: no such mechanism in this run; there are {', '.join(mechanisms)}"
            )
    lines: list[tuple[Cell, ...]] = []
    seen: set[str] = set()
    for description in mechanisms.values():
        for sweep in suite.asking(description.spec):
            for options in option_sets(description, suite.options_in(sweep, description.name)):
                for line in _lines(_cells(description.name, options, {**suite.axes.given, **sweep.given})):
                    fresh = tuple(cell for cell in line if cell.id not in seen)
                    seen.update(cell.id for cell in fresh)
                    if fresh:
                        lines.append(fresh)
    return Plan(tuple(itertools.chain.from_iterable(lines)), tuple(lines), mechanisms)


def _by_name(descriptions: Sequence[Description]) -> dict[str, Description]:
    mechanisms: dict[str, Description] = {}
    for description in descriptions:
        other = mechanisms.setdefault(description.name, description)
        if other is not description:
            raise BadInput(
                f"two mechanisms are called {description.name!r}: {other.origin} and {description.origin}; "
                "rename one or leave one out"
            )
    return mechanisms


def threads_asked(suite: Suite) -> int:
    """The smallest number of threads that a suite asks: a server that describes then counts cells too."""
    return min(int(threads) for sweep in suite.sweeps() for threads in sweep.get("threads", [usable_cores()]))


def option_sets(description: Description, given: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination of the given values over the mechanism's defaults."""
    if description.error is None:
        for name in given:
            if name not in description.options:
                accepted = ", ".join(description.options) or "none"
                raise BadInput(
                    f"options.{description.name}.{name}: no such option; {description.name} has {accepted}"
                )
    for values in itertools.product(*given.values()):
        yield {**description.options, **dict(zip(given, values, strict=True))}


def _cells(mechanism: str, options: Mapping[str, Any], sweep: Mapping[str, list[Any]]) -> list[Cell]:
    """The product of a sweep's axes, each cell once: levels without a stack are the same for all stacks."""
    axes = {"seq": [1024], "dim": [256], "threads": [usable_cores()], **sweep}
    cells: dict[str, Cell] = {}
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        point.setdefault("heads", default_heads(point["dim"]))
        given = {key: point.pop(f"stack.{key}") for key in Stack.model_fields if f"stack.{key}" in point}
        stack = complete(point.get("level", "layer"), given)
        cell = Cell(mechanism=mechanism, options=dict(options), stack=stack, **point)
        cells.setdefault(cell.id, cell)
    return list(cells.values())


def _lines(cells: Sequence[Cell]) -> list[tuple[Cell, ...]]:
    """Cells that differ in size only, small before large."""
    lines: dict[str, list[Cell]] = {}
    for cell in cells:
        lines.setdefault(cell.line, []).append(cell)
    return [tuple(sorted(line, key=_size)) for line in lines.values()]


def _size(cell: Cell) -> tuple[int, ...]:
    sizes = [getattr(cell, axis) for axis in SIZE_AXES]
    product = 1
    for size in sizes:
        product *= size
    return (product, *sizes)
