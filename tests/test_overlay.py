"""A tree in front of what is installed: its packages, mapped folders, entry points and lone files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from effbench.overlay import Tree

#: What a fork server would see; printed as JSON.
PROBE = """
import json, sys
from importlib.metadata import entry_points, version
import mixers, mixers.extra, lone, neighbour
points = entry_points(group="effbench.mechanisms")
print(json.dumps({
    "package": mixers.WHERE, "mapped": mixers.extra.WHERE, "lone": lone.WHERE, "neighbour": neighbour.WHERE,
    "points": sorted(p.name for p in points if p.dist.name == "mixers"), "version": version("mixers"),
    "others": "fnet" in {p.name for p in points},
}))
"""
PROJECT = """
[project]
name = "mixers"
version = "{version}"
[project.entry-points."effbench.mechanisms"]
{point} = "mixers:M"
[tool.setuptools.package-dir]
"" = "src"
"mixers.extra" = "additions"
"""


def tree(top: Path, where: str, point: str) -> None:
    for file in ("src/mixers/__init__.py", "additions/__init__.py", "lone.py", "beside/neighbour.py"):
        (top / file).parent.mkdir(parents=True, exist_ok=True)
        (top / file).write_text(f"WHERE = {where!r}\n")
    (top / "pyproject.toml").write_text(PROJECT.format(version=f"1+{where}", point=point))


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Base and head, and a folder on the path in which head's project is installed as if editable."""
    base, head, site = (tmp_path / name for name in ("base", "head", "site"))
    tree(base, "base", "old")
    tree(head, "head", "new")
    info = site / "mixers-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mixers\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[effbench.mechanisms]\nnew = mixers:M\n")
    (site / "sitecustomize.py").write_text(FINDER.format(file=str(head / "beside" / "neighbour.py")))
    (site / "probe.py").write_text(PROBE)
    return base, head


#: What an editable installation of a project beside the gated one leaves behind.
FINDER = """
import sys
from importlib.util import spec_from_file_location

class Editable:
    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return spec_from_file_location(fullname, {file!r}) if fullname == "neighbour" else None

sys.meta_path.append(Editable)
"""


def seen(side: Path, head: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(head.parent / "site"), str(head)])
    return subprocess.run(
        [sys.executable, *Tree(str(side), str(head)).command("probe")],
        env={**os.environ, "PYTHONPATH": path},
        cwd=side,
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("side", "point"), [("base", "old"), ("head", "new")])
def test_everything_comes_from_the_tree(trees: tuple[Path, Path], side: str, point: str) -> None:
    base, head = trees
    done = seen(base if side == "base" else head, head)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {found[name] for name in ("package", "mapped", "lone", "neighbour")} == {side}
    assert found["points"] == [point]
    assert found["version"] == f"1+{side}"
    assert found["others"], "what other distributions offer stays"


@pytest.mark.parametrize(
    "file", ["src/mixers/__init__.py", "additions/__init__.py", "lone.py", "beside/neighbour.py"]
)
def test_what_a_tree_lacks_is_not_found_elsewhere(trees: tuple[Path, Path], file: str) -> None:
    base, head = trees
    (base / file).unlink()
    done = seen(base, head)
    assert done.returncode == 1
    assert "ModuleNotFoundError" in done.stderr or "AttributeError" in done.stderr  # a namespace has no WHERE
