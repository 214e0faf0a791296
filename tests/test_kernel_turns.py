"""The script that holds kernels against their rivals in turns, on a tiny case."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).parents[1] / "docs" / "kernels"
TINY = """
import json, sys
import pandas as pd
import turns
turns.TURN_S, turns.FOURS = 0, 4
row = turns.in_turns("fnet", {}, 16, False, ["mha", "aft-simple"], 1)
print(json.dumps(row))
print(turns.table(pd.DataFrame([row])))
"""


def test_both_sides_of_a_four_are_timed() -> None:
    done = subprocess.run([sys.executable, "-c", TINY], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, *page = done.stdout.splitlines()
    row = json.loads(first)
    assert row["fours"] == 4
    assert 0 < row["low"] <= row["ratio"] <= row["high"]
    assert row["seconds"] > 0
    assert any("`mha` + `aft-simple`" in line for line in page)
