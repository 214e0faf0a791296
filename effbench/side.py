"""One side of a gate: a tree of files, and a visitor whose children run that tree's own code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from effbench.cell import Budget, Cell
from effbench.errors import BadInput
from effbench.overlay import Tree, read_project
from effbench.plan import SEED, Description
from effbench.processes import Conversation
from effbench.registry import MECHANISMS, Claim, Registry, split_file
from effbench.servers import Servers
from effbench.visit import Visitor

#: How a child says that the module of ``module:object`` is not there.
_NO_MODULE = re.compile(r"ModuleNotFoundError: No module named '([^']+)'")


@dataclass
class SideVisitor(Visitor):
    """Asks its tree's code, about mechanisms named as the user named them in the working tree."""

    tree: Tree = field(kw_only=True)
    #: What each mechanism takes here; an option that only the other side has is left out of the question.
    options: dict[str, frozenset[str]] = field(default_factory=dict)

    def placed(self, spec: str) -> str:
        """A specification with the path of its file, where that is absolute, moved to this tree."""
        path, name = split_file(spec)
        if path is None or not path.is_absolute():
            return spec
        return self.tree.counterpart(str(path)) + (f":{name}" if name else "")

    def describe(self, spec: str, *, threads: int, source: str = "") -> Description:
        """As the visitor does; the description names it as the user did."""
        found = super().describe(self.placed(spec), threads=threads, source=source)
        self.options[found.name] = frozenset(found.options)
        return replace(found, spec=spec, name=spec if found.error is not None else found.name)

    def survey(self, description: Description, cells: Sequence[Cell]) -> None:
        """As the visitor does."""
        there = replace(description, spec=self.placed(description.spec))
        super().survey(there, [self._known(cell) for cell in cells])
        for cell in cells:
            self.surveys[cell.id] = self.surveys[self._known(cell).id]

    def begin(self, kind: str, cell: Cell, question: str, **more: Any) -> Conversation:
        """As the visitor does."""
        return super().begin(kind, self._known(cell), question, **more | {"spec": self.placed(more["spec"])})

    def _known(self, cell: Cell) -> Cell:
        known = self.options.get(cell.mechanism)
        if known is None or known >= cell.options.keys():
            return cell
        return replace(cell, options={k: v for k, v in cell.options.items() if k in known})


@dataclass
class Side:
    """``name`` is base or head; ``absent`` says why a mechanism that was asked is not there."""

    name: str
    tree: Tree
    folder: Path  # the user's place in this tree
    visitor: SideVisitor
    descriptions: dict[str, Description] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    @property
    def registry(self) -> Registry:
        """The mechanisms by name: the tree's own, and those of other distributions."""
        project = read_project(self.tree.root)
        claims: dict[str, tuple[Claim, ...]] = {}
        for name, found in Registry.installed(MECHANISMS).claims.items():
            others = tuple(claim for claim in found if claim.origin.split(" ")[0] != project.name)
            if others:
                claims[name] = others
        for name, target in project.entry_points.get(MECHANISMS, {}).items():
            own = Claim(name, target, f"{project.name} in the tree of {self.name}")
            claims[name] = (*claims.get(name, ()), own)
        return Registry(MECHANISMS, dict(sorted(claims.items())))

    def describe(self, specs: Sequence[str], threads: int) -> None:
        """Describe what is there, and learn what is not."""
        registry = self.registry
        for spec in specs:
            try:
                self._check(registry, spec)
                found = self.visitor.describe(spec, threads=threads)
            except BadInput as error:
                self.absent[spec] = str(error)
                continue
            missing = _NO_MODULE.match(found.error or "")
            if missing and ":" in spec and (spec.partition(":")[0] + ".").startswith(f"{missing[1]}."):
                self.absent[spec] = str(found.error)
            else:
                self.descriptions[spec] = found

    def _check(self, registry: Registry, spec: str) -> None:
        path, _ = split_file(self.visitor.placed(spec))
        if path is None:
            registry.check(spec)
        elif not (self.folder / path).is_file():
            raise BadInput(f"{spec}: there is no file {path}")

    def by_name(self) -> Mapping[str, Description]:
        """Descriptions by the mechanisms' names."""
        return {found.name: found for found in self.descriptions.values()}


@contextmanager
def opened(name: str, tree: Tree, budget: Budget, logs: Path) -> Iterator[Side]:
    """A side whose servers run a tree's code, at the user's place in it; they end with the block."""
    here = Path(tree.counterpart(str(Path.cwd().resolve())))
    folder = next(place for place in (here, *here.parents) if place.is_dir())
    servers = Servers(tree.command("effbench.forkserver"), folder)
    path = [tree.counterpart(os.path.abspath(entry)) for entry in sys.path]
    try:
        visitor = SideVisitor(servers=servers, budget=budget, logs=logs, seed=SEED, path=path, tree=tree)
        yield Side(name, tree, folder, visitor)
    finally:
        servers.stop()
