"""The script that holds kernels against their rivals in turns, on a tiny case."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT / "docs" / "kernels"
TINY = """
import json
import turns
turns.TURN_S, turns.FOURS = 0, 4
row = turns.in_turns(turns.Match("fnet", "", 16, ("mha", "aft-simple"), 1, "train", "torch", "warm"))
print(json.dumps(row))
print(turns.table([row]))
"""


@pytest.fixture
def turns() -> ModuleType:
    spec = importlib.util.spec_from_file_location("turns", SCRIPTS / "turns.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


def test_both_sides_of_a_four_are_timed() -> None:
    done = subprocess.run([sys.executable, "-c", TINY], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *page = done.stdout.splitlines()
    row = json.loads(first)
    assert row["fours"] == 4
    assert 0 < row["low"] <= row["ratio"] <= row["high"]
    assert row["seconds"] > 0
    assert any("train, torch, warm" in line and "`mha` + `aft-simple`" in line for line in page)


def test_rows_are_added_to_the_file_and_replaced_by_name(
    turns: ModuleType, monkeypatch, tmp_path: Path
) -> None:
    """What a run left is kept and the rest taken; ``--only`` takes its operator again, in its place."""
    path, taken, stopped_by = tmp_path / "turns.csv", [], "linear"

    def in_turns(match) -> dict:
        if match.operator == stopped_by:
            raise KeyboardInterrupt
        taken.append(match.key)
        return dict(zip(turns.KEY, match.key, strict=True)) | {"ratio": len(taken)}

    monkeypatch.setattr(turns, "in_turns", in_turns)
    with pytest.raises(KeyboardInterrupt):
        turns.take(path, None, "warm")
    assert list(turns.held(path)) == taken
    stopped_by, all_keys = "", [match.key for match in turns.MATCHES]
    for allocator in turns.ALLOCATORS:
        turns.take(path, None, allocator)
    assert list(turns.held(path)) == all_keys
    assert sorted(taken) == sorted(all_keys)
    again = [key for key in all_keys if key[0] == "fnet" and "warm" in key]
    turns.take(path, "fnet", "warm")
    assert taken[len(all_keys) :] == again
    rows = turns.held(path)
    assert list(rows) == all_keys
    assert all((row["ratio"] > len(all_keys)) == (key in again) for key, row in rows.items())


def test_the_table_of_the_readme_is_what_the_file_holds(turns: ModuleType) -> None:
    rows = list(turns.held(SCRIPTS / "turns.csv").values())
    assert turns.table(rows) in (ROOT / "README.md").read_text()
