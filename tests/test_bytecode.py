"""Where Python may write no bytecode beside the sources, a run keeps it in a folder of its own."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from effbench import bytecode


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "kept_once.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "run"))
    monkeypatch.delitem(sys.modules, "kept_once", raising=False)
    return "kept_once"


def test_it_stands_in_the_folder_of_the_run(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = sys.pycache_prefix
    with bytecode.kept():
        importlib.import_module(module)
    assert sys.dont_write_bytecode
    assert sys.pycache_prefix == before
    (written,) = (tmp_path / "run").rglob("kept_once.*.pyc")
    assert not (tmp_path / "__pycache__").exists(), "nothing is written beside the sources"
    assert sys.modules[module].__cached__ == str(written), "the next child reads what this one wrote"


def test_who_lets_it_be_written_keeps_it_where_it_is(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    with bytecode.kept():
        importlib.import_module(module)
    assert not (tmp_path / "run").exists()
    assert list((tmp_path / "__pycache__").glob("kept_once.*.pyc"))
