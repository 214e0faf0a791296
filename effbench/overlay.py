"""Makes Python import a project from one tree of files, whatever is installed: a side of a gate runs its own.

``python -P overlay.py TREE MODULE ARGUMENTS...`` runs a module with the packages and entry points of a tree
in front. Stands alone, since which ``effbench`` is imported is what it decides.

PYTHONPATH would not do: packages that a project maps from folders of other names (``package-dir``), editable
installations and entry points are found by other ways, and would come from the installed project on both
sides. So three things are put in front: the tree's folders on the path, a finder for mapped packages and for
whatever an editable installation finds in the working tree, and the tree's own table of entry points.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any


@dataclass(frozen=True)
class Tree:
    """A checkout of a repository, and the place of the project in it.

    ``top`` is the checkout, ``working`` the one that the user works in (the same for head), ``project`` the
    folder with ``pyproject.toml``, relative to the top.
    """

    top: str
    working: str
    project: str = "."

    @property
    def root(self) -> Path:
        """The project's folder in this tree."""
        return Path(self.top, self.project)

    def command(self, module: str) -> list[str]:
        """Python's arguments to run a module with this tree in front."""
        return ["-P", __file__, json.dumps(asdict(self)), module]

    def counterpart(self, path: str) -> str:
        """The same place in this tree; what lies outside the working tree, or is installed, stays."""
        if not path or not _inside(path, self.working):
            return path
        return str(Path(self.top, os.path.relpath(path, self.working)))


def _inside(path: str, top: str) -> bool:
    """Whether a path belongs to the working tree and not to an environment that merely lies in it."""
    installed = {"site-packages", "dist-packages"} & set(Path(path).parts)
    environment = Path(path).is_relative_to(sys.prefix) and Path(sys.prefix) != Path(top)
    return Path(path).is_relative_to(top) and not installed and not environment


@dataclass(frozen=True)
class Project:
    """What ``pyproject.toml`` of a tree says of names: the distribution, its packages and entry points."""

    name: str
    version: str
    roots: Sequence[Path]  # folders in which packages stand under their own names
    packages: Mapping[str, Path]  # those that stand elsewhere
    entry_points: Mapping[str, Mapping[str, str]]  # group -> name -> module:object
    dependencies: Sequence[str]


def read_project(root: Path) -> Project:
    """The project in a folder; one without names where it has no ``pyproject.toml``."""
    file = root / "pyproject.toml"
    data: dict[str, Any] = tomllib.loads(file.read_text()) if file.is_file() else {}
    project = data.get("project", {})
    setuptools = data.get("tool", {}).get("setuptools", {})
    folders = dict(setuptools.get("package-dir", {}))
    unnamed = [folders.pop("")] if "" in folders else []
    found = setuptools.get("packages", {})
    where = found.get("find", {}).get("where", []) if isinstance(found, dict) else []
    roots = [root / folder for folder in dict.fromkeys([*unnamed, *where, "src", "."])]
    return Project(
        name=project.get("name", ""),
        version=project.get("version", "0"),
        roots=[folder for folder in roots if folder.is_dir()],
        packages={name: root / folder for name, folder in folders.items()},
        entry_points=project.get("entry-points", {}),
        dependencies=_dependencies(project),
    )


def _dependencies(project: Mapping[str, Any]) -> list[str]:
    optional = project.get("optional-dependencies", {})
    extras = [f"{line} (extra {name})" for name, lines in optional.items() for line in lines]
    return [*project.get("dependencies", []), *extras]


def install(tree: Tree) -> None:
    """Put a tree in front of everything that this process will import."""
    project = read_project(tree.root)
    kept = [tree.counterpart(os.path.abspath(entry)) for entry in sys.path]
    sys.path[:] = list(dict.fromkeys([*map(str, project.roots), *kept]))
    sys.meta_path.insert(0, Finder(tree, project))


_ANY = DistributionFinder.Context()


class Finder(MetaPathFinder):
    """Finds a tree's mapped packages and its distribution before anyone else can."""

    def __init__(self, tree: Tree, project: Project) -> None:
        self._tree, self._project = tree, project

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A mapped package; or, for a name that an editable installation leads into the working tree,
        the same place in this tree. None leaves the name to the finders behind.
        """
        folder = self._project.packages.get(fullname)
        if folder is not None:
            return _spec(fullname, folder / "__init__.py")
        if path is not None or self._tree.top == self._tree.working:
            return None
        found = next(filter(None, (_ask(finder, fullname) for finder in self._behind())), None)
        if found is None or not found.origin or not _inside(found.origin, self._tree.working):
            return found
        return _spec(fullname, Path(self._tree.counterpart(found.origin)))

    def _behind(self) -> Iterable[Any]:
        return [finder for finder in sys.meta_path if finder is not self]

    def find_distributions(self, context: DistributionFinder.Context = _ANY) -> Iterator[Distribution]:
        """The tree's distribution; of two with one name importlib takes the first."""
        name = self._project.name
        if name and (context.name is None or _normal(context.name) == _normal(name)):
            yield _TreeDistribution(self._tree, self._project)


def _ask(finder: Any, name: str) -> ModuleSpec | None:
    asked = getattr(finder, "find_spec", None)
    found: ModuleSpec | None = asked(name, None) if asked else None
    return found


def _spec(name: str, file: Path) -> ModuleSpec | None:
    """None is no answer here: a name that this tree lacks must not be found elsewhere."""
    if not file.is_file():
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    folders = [str(file.parent)] if file.name == "__init__.py" else None
    return spec_from_file_location(name, file, submodule_search_locations=folders)


class _TreeDistribution(Distribution):
    def __init__(self, tree: Tree, project: Project) -> None:
        self._tree, self._project = tree, project

    def read_text(self, filename: str) -> str | None:
        if filename in ("METADATA", "PKG-INFO"):
            return f"Metadata-Version: 2.1\nName: {self._project.name}\nVersion: {self._project.version}\n"
        if filename != "entry_points.txt":
            return None
        lines: list[str] = []
        for group, points in self._project.entry_points.items():
            lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
        return "\n".join(lines) + "\n"

    def locate_file(self, path: str | os.PathLike[str]) -> Path:
        return self._tree.root / path


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    _, _tree, _module, *_arguments = sys.argv
    install(Tree(**json.loads(_tree)))
    sys.argv = [_module, *_arguments]
    runpy.run_module(_module, run_name="__main__", alter_sys=True)
