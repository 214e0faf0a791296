"""What tests share: running the program as a user does, and small runs into a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parent / "data"
#: Folders of tests that share nothing and start no process: with pytest-xdist each goes to whoever is free.
FREE = ("tests/mechanisms/", "tests/conformance/")


#: What earlier runs saw of this machine is no business of tests, nor have they patience with it.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ |= {"XDG_CACHE_HOME": tempfile.mkdtemp(prefix="effbench-tests-"), "EFFBENCH_PATIENCE": "0"}

#: A script's job in the background ignores Ctrl-C, and so would every program that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """The tests of any other file share runs and stay together; the free ones come last and even it out."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # not xdist's groups: under pytest 9.2 they are ignored
        def _split_scope(self, nodeid: str) -> str:
            return nodeid if nodeid.startswith(FREE) else nodeid.partition("::")[0]

    return ByFile(config, log)


@pytest.fixture(scope="session")
def effbench() -> Callable[..., subprocess.CompletedProcess[str]]:
    """``effbench("run", ..., cwd=folder)`` runs the program in a process of its own."""

    def run(*words: object, cwd: Path, path: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = dict(os.environ)
        if path is not None:
            environment["PYTHONPATH"] = str(path)
        return subprocess.run(
            [sys.executable, "-m", "effbench", *map(str, words)],
            cwd=cwd,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,  # beside other work a run of a minute took three
        )

    return run


@pytest.fixture(scope="session")
def data() -> Path:
    """Files for tests."""
    return DATA


@pytest.fixture(scope="session")
def third_party(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that, once on the path, makes the foreign plugin package an installed distribution."""
    folder = tmp_path_factory.mktemp("site")
    source = DATA / "third_party"
    (folder / "effbench_decay").symlink_to(source / "effbench_decay")
    info = folder / "effbench_decay-1.2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: effbench-decay\nVersion: 1.2.0\n")
    (info / "entry_points.txt").write_text(_entry_points(source / "pyproject.toml"))
    return folder


def _entry_points(pyproject: Path) -> str:
    import tomllib

    groups = tomllib.loads(pyproject.read_text())["project"]["entry-points"]
    lines = []
    for group, points in groups.items():
        lines += [f"[{group}]", *(f"{name} = {target}" for name, target in points.items())]
    return "\n".join(lines) + "\n"
