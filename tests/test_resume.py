"""A run goes on where it stopped, whatever stopped it; only what changed is measured again."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from effbench.store import read_records

Effbench = Callable[..., subprocess.CompletedProcess[str]]

MIXER = """
import torch
from torch import nn
from effbench.plugin import Mechanism
from {helper} import GAIN

class Mixer(nn.Module):
    def forward(self, x):
        return x.cumsum(1) * GAIN

MECHANISM = Mechanism(name="{name}", build=lambda shape, *, causal: Mixer(), causal=(True,))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two mechanisms, each with a helper of its own, and a suite over both."""
    for name in ("one", "two"):
        (tmp_path / f"{name}_helper.py").write_text("GAIN = 1.0\n")
        (tmp_path / f"{name}.py").write_text(MIXER.format(helper=f"{name}_helper", name=name))
    (tmp_path / "s.toml").write_text(
        'mechanisms = ["one.py", "two.py"]\n[axes]\nseq = "16..128"\ndim = 8\ncausal = true\nthreads = 1\n'
    )
    return tmp_path


def _visits(folder: Path) -> Counter[tuple[str, int, int]]:
    records = read_records(folder / "results" / "s")
    return Counter((r.cell["mechanism"], r.cell["seq"], r.round) for r in records)


def _run(effbench: Effbench, folder: Path, *more: str) -> None:
    done = effbench("run", "s.toml", *more, cwd=folder)
    assert done.returncode == 0, done.stderr


def test_a_finished_run_measures_nothing_again(effbench: Effbench, folder: Path) -> None:
    _run(effbench, folder)
    before = _visits(folder)
    info = json.loads((folder / "results/s/run.json").read_text())
    assert {mechanism for mechanism, _, _ in before} == {"one", "two"}
    assert set(before.values()) == {1}
    subprocess.run(
        ["git", "init", "-q"], cwd=folder, check=True
    )  # another commit, another date, another load
    _run(effbench, folder)
    assert _visits(folder) == before
    after = json.loads((folder / "results/s/run.json").read_text())
    assert after["ceilings"] == info["ceilings"]
    assert len(after["circumstances"]) == 2


def test_an_edit_of_a_helper_measures_exactly_its_mechanism_again(effbench: Effbench, folder: Path) -> None:
    _run(effbench, folder)
    before = _visits(folder)
    (folder / "two_helper.py").write_text("GAIN = 2.0\n")
    _run(effbench, folder)
    twice = {key for key, count in _visits(folder).items() if count == 2}
    assert twice == {key for key in before if key[0] == "two"}
    assert set(_visits(folder).values()) <= {1, 2}


def test_fresh_starts_over(effbench: Effbench, folder: Path) -> None:
    _run(effbench, folder)
    before = _visits(folder)
    _run(effbench, folder, "--fresh")
    assert _visits(folder) == before


def test_a_larger_question_keeps_the_answers_it_has(effbench: Effbench, folder: Path) -> None:
    _run(effbench, folder)
    before = _visits(folder)
    _run(effbench, folder, "--seq", "16..256")
    assert all(_visits(folder)[key] == 1 for key in before)
    assert ("one", 256, 0) in _visits(folder)


def test_a_budget_leaves_cells_out_and_a_resumed_run_measures_them(effbench: Effbench, folder: Path) -> None:
    done = effbench("run", "s.toml", "--budget", "1ms", cwd=folder)
    assert done.returncode == 3, done.stderr
    table = (folder / "results/s/table.csv").read_text()
    assert table.count(",skipped,budget,") == 8
    _run(effbench, folder)
    assert (folder / "results/s/table.csv").read_text().count(",ok,") == 8


def test_two_runs_cannot_write_into_one_folder(effbench: Effbench, folder: Path) -> None:
    from effbench.store import Store

    with Store(folder / "results" / "s"):
        done = effbench("run", "s.toml", cwd=folder)
    assert done.returncode == 2
    assert "results/s" in done.stderr


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_at_a_random_moment_it_goes_on(effbench: Effbench, folder: Path, stop: signal.Signals) -> None:
    records = folder / "results/s/records.jsonl"
    rng = random.Random()
    answered = 0 if stop is not signal.SIGKILL else -1  # a polite stop needs someone who listens
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "effbench", "run", "s.toml"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_until = time.monotonic() + 60
        while _lines(records) <= answered and process.poll() is None and time.monotonic() < wait_until:
            time.sleep(0.02)
        time.sleep(rng.random() * 0.4)
        process.send_signal(stop)
        _, errors = process.communicate(timeout=60)
        if stop is not signal.SIGKILL and process.returncode != 0:
            assert process.returncode == 130
            assert "Go on with: effbench run s.toml" in errors
        answered = _lines(records)
    with records.open("ab") as file:
        file.write(b'{"schema": 1, "id": "cut o')  # what a kill in the middle of a write leaves
    _run(effbench, folder)
    visits = _visits(folder)
    assert {(m, n) for m, n, _ in visits} == {(m, n) for m in ("one", "two") for n in (16, 32, 64, 128)}
    assert set(visits.values()) == {1}, "no answered visit is measured again"
    assert _servers() == []


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _servers() -> list[int]:
    """Fork servers whose runner is gone."""
    import psutil

    time.sleep(0.5)
    return [
        p.pid
        for p in psutil.process_iter(["cmdline", "ppid"])
        if p.info["cmdline"] and "effbench.forkserver" in p.info["cmdline"] and p.info["ppid"] == 1
    ]
