"""What a mechanism was made of: a hash over its file and every file of its own project that it imports.

A record carries it, so that an edit re-measures exactly the cells that it can have changed.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType


def source_of(module: ModuleType, before: frozenset[str] = frozenset()) -> str:
    """``stem@sha256:…`` over the module's file and those that it imports, however far, from its own project.

    ``before`` are the names in ``sys.modules`` before the module was loaded: what came in with it
    counts too where it belongs to the project, so that imports made by hand are not missed.
    """
    root = _file(module)
    if root is None:
        return ""
    files = {root}
    seen = {module.__name__}
    waiting = [module, *(m for name, m in list(sys.modules.items()) if name not in before and before)]
    while waiting:
        current = waiting.pop()
        path = _file(current)
        if path is None or not _same_project(current, path, module, root):
            continue
        files.add(path)
        for name in _imports(current, path):
            found = sys.modules.get(name)
            if found is not None and name not in seen:
                seen.add(name)
                waiting.append(found)
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda p: (p != root, p.name, str(p))):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{root.stem}@sha256:{digest.hexdigest()[:16]}"


def _same_project(module: ModuleType, path: Path, root: ModuleType, root_path: Path) -> bool:
    """The same top-level package, or for lone files the same folder (a site-packages is no project)."""
    top = root.__name__.partition(".")[0]
    if module.__name__.partition(".")[0] == top:
        return True
    lone = "." not in root.__name__ and root_path.stem != "__init__"
    installed = {"site-packages", "dist-packages"} & set(path.parts)
    return lone and not installed and path.is_relative_to(root_path.parent)


def _imports(module: ModuleType, path: Path) -> Iterator[str]:
    """The full names of everything that the file's text imports, inside functions too."""
    package = module.__package__ or ""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = importlib.util.resolve_name("." * node.level + base, package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _file(module: ModuleType) -> Path | None:
    name = getattr(module, "__file__", None)
    if not name or not name.endswith(".py"):
        return None
    path = Path(name).resolve()
    return path if path.is_file() else None
