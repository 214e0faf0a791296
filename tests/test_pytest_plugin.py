"""The fixture as a third party has it: in a pytest of its own, with pytest-benchmark's report read back."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

TESTS = """
def test_mean(mechanism_benchmark):
    row = mechanism_benchmark("mine.py:M1", seq=4096, dim=64)
    assert row["status"] == "ok"

def test_causal(mechanism_benchmark):
    mechanism_benchmark("mine.py:M1", seq=64, dim=16, causal=True)
"""


def test_a_cell_is_a_benchmark_with_memory_and_flops(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "author" / "mine.py", tmp_path)
    (tmp_path / "test_mine.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--benchmark-json", "out.json"]
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST_")}
    done = subprocess.run([*command, "-W", "error"], cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout
    (one,) = json.loads((tmp_path / "out.json").read_text())["benchmarks"]
    assert one["name"] == "test_mean"
    assert one["stats"]["rounds"] == len(one["stats"]["data"]) >= 2  # few are calm beside other tests
    # x + mean, and a linear layer: 4096 · 64 · 64 multiply-adds at least
    assert one["extra_info"]["flops"] > 2 * 4096 * 64 * 64
    assert one["extra_info"]["alloc_bytes"] >= 4096 * 64 * 4
    assert one["extra_info"]["peak_bytes"] > 4096 * 64 * 4 / 2  # the kernel counts pages to some 0.3 MB
