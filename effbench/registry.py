"""Finds plugins by any of the ways in which one may be named, and loads them one at a time.

A registry is a value. Making one reads the installed distributions' tables and imports nothing;
``load`` imports one plugin, and whoever cannot trust the plugin calls it in a child process.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

from effbench.errors import BadInput
from effbench.plugin import Mechanism, mechanism_from

MECHANISMS = "effbench.mechanisms"
RENDERERS = "effbench.renderers"
METERS = "effbench.meters"

#: How a mechanism sent from Python stands in a specification: ``pickle:PATH``.
PICKLE = "pickle:"


@dataclass(frozen=True)
class Claim:
    """One entry point: who says that a name is whose object."""

    name: str
    target: str  # "module:object"
    origin: str  # "effbench 0.1.0"


@dataclass(frozen=True)
class Registry:
    """The plugins of one group, by name; a name may be claimed more than once, which is an error to load."""

    group: str
    claims: Mapping[str, tuple[Claim, ...]]

    @classmethod
    def installed(cls, group: str) -> Registry:
        """The plugins that the installed distributions declare."""
        path = tuple((folder, changed) for folder in sys.path if _holds(folder, changed := _changed(folder)))
        return cls(group, _declared(group, path))

    @classmethod
    def of(cls, group: str, targets: Mapping[str, str]) -> Registry:
        """A registry of the given ``name: "module:object"``."""
        return cls(group, {name: (Claim(name, target, "given"),) for name, target in targets.items()})

    def claim(self, name: str) -> Claim:
        """The one claim on a name.

        Raises:
            BadInput: nobody claims it (with the nearest names), or more than one does (naming all).
        """
        claims = self.claims.get(name, ())
        if len(claims) == 1:
            return claims[0]
        if claims:
            who = " and ".join(f"{c.target} ({c.origin})" for c in claims)
            raise BadInput(
                f"{self.group} plugin {name!r} is claimed by {who}; uninstall one, or say module:object"
            )
        near = difflib.get_close_matches(name, self.claims, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(self.claims) or 'none'}"
        raise BadInput(f"no {self.group} plugin called {name!r}; {hint}")

    def load(self, spec: str) -> Any:
        """The object that a name or ``module:object`` stands for; imports it."""
        target = spec if ":" in spec else self.claim(spec).target
        module, _, path = target.partition(":")
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                raise BadInput(f"{spec}: {module} has no {path!r}") from None
        return found

    def check(self, spec: str) -> None:
        """Refuse a specification that cannot be found, without importing anything.

        Raises:
            BadInput: an unknown name or a file that is not there.
        """
        path, _ = split_file(spec)
        if path is not None:
            if not path.is_file():
                raise BadInput(f"{spec}: there is no file {path}")
        elif ":" not in spec:
            self.claim(spec)

    def origin(self, spec: str) -> str:
        """Where a specification leads, in words."""
        if ":" in spec or split_file(spec)[0] is not None:
            return spec
        claim = self.claim(spec)
        return f"{claim.target} of {claim.origin}"


@cache
def _declared(group: str, path: tuple[tuple[str, int], ...]) -> Mapping[str, tuple[Claim, ...]]:
    """What is claimed along folders as they were; a child need not read what its server has read."""
    projects = dict.fromkeys(name for folder, changed in path for name in _claimants(folder, changed, group))
    found: dict[str, tuple[Claim, ...]] = {}
    for project in projects:
        dist = distribution(project)  # of two with one name importlib takes the first on the path
        place = str(dist.locate_file(""))
        origin = _origin(project, place, _changed(place))
        for point in dist.entry_points.select(group=group):
            claim = Claim(point.name, point.value, origin)
            if claim not in found.get(point.name, ()):
                found[point.name] = (*found.get(point.name, ()), claim)
    return dict(sorted(found.items()))


@cache
def _holds(folder: str, changed: int) -> bool:
    """Whether there is any distribution in a folder; one without declares nothing, nor hides another one."""
    return changed > 0 and any(True for _ in distributions(path=[folder]))


@cache
def _claimants(folder: str, changed: int, group: str) -> tuple[str, ...]:
    """Distributions in a folder that declare plugins."""
    found = distributions(path=[folder])
    return tuple(dist.name for dist in found if dist.entry_points.select(group=group))


@cache
def _origin(project: str, folder: str, changed: int) -> str:
    """Name and version of a distribution; asking it parses all its metadata, some milliseconds in a child."""
    return f"{project} {distribution(project).version}"


def _changed(folder: str) -> int:
    """When something was last installed into a folder, in nanoseconds; 0 where there is no such folder."""
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def split_file(spec: str) -> tuple[Path | None, str]:
    """``path/to/file.py:OBJECT`` or ``path/to/file.py`` as (path, object); (None, "") for anything else."""
    if spec.startswith(PICKLE):
        return Path(spec.removeprefix(PICKLE)), ""
    head, colon, tail = spec.rpartition(":")
    if colon and head.endswith(".py"):
        return Path(head), tail
    return (Path(spec), "") if spec.endswith(".py") else (None, "")


def load_mechanism(registry: Registry, spec: str) -> tuple[Mechanism, ModuleType | None]:
    """A mechanism by any way of naming it, with the module that declares it.

    Raises:
        BadInput: what is named is not there or is no mechanism. Whatever the plugin's own import raises.
    """
    path, name = split_file(spec)
    if spec.startswith(PICKLE) and path is not None:
        mechanism = pickle.loads(path.read_bytes())
        return mechanism, sys.modules.get(getattr(mechanism.build, "__module__", ""))
    if path is not None:
        module = import_file(path)
        thing = getattr(module, name, None) if name else _only_mechanism(module, spec)
        if thing is None:
            raise BadInput(f"{spec}: {path} has no {name!r}")
        return _named(thing, spec), module
    target = spec if ":" in spec else registry.claim(spec).target
    mechanism = _named(registry.load(spec), spec)
    return mechanism, sys.modules[target.partition(":")[0]]


def import_file(path: Path) -> ModuleType:
    """A file as a module named after it; its neighbours can be imported by it."""
    path = path.resolve()
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise BadInput(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def _named(thing: Any, spec: str) -> Mechanism:
    try:
        return mechanism_from(thing)
    except BadInput as error:
        raise BadInput(f"{spec}: {error}") from None


def _only_mechanism(module: ModuleType, spec: str) -> Mechanism:
    held = {name: thing for name, thing in vars(module).items() if isinstance(thing, Mechanism)}
    if len({id(thing) for thing in held.values()}) == 1:
        return next(iter(held.values()))
    if not held:
        raise BadInput(f"{spec} holds no Mechanism; say {spec}:OBJECT for a class or a build function")
    raise BadInput(
        f"{spec} holds {len(held)} Mechanisms; say which: {', '.join(f'{spec}:{n}' for n in held)}"
    )
