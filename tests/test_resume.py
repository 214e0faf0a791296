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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


LENGTHS = (16, 32, 64)


def _prepare(folder: Path, seq: str) -> Path:
    """Two mechanisms, each with a helper of its own, and a suite over both."""
    for name in ("one", "two"):
        (folder / f"{name}_helper.py").write_text("GAIN = 1.0\n")
        (folder / f"{name}.py").write_text(MIXER.format(helper=f"{name}_helper", name=name))
    (folder / "s.toml").write_text(
        f'mechanisms = ["one.py", "two.py"]\n[axes]\nseq = "{seq}"\ndim = 8\ncausal = true\nthreads = 1\n'
    )
    return folder


def _visits(folder: Path) -> Counter[tuple[str, int, int]]:
    """How often each (mechanism, length, round) was measured."""
    records = [r for r in read_records(folder / "results" / "s") if r.status != "skipped"]
    return Counter((r.cell["mechanism"], r.cell["seq"], r.round) for r in records)


def _run(effbench: Effbench, folder: Path, *more: str) -> None:
    done = effbench("run", "s.toml", *more, cwd=folder)
    assert done.returncode == 0, done.stderr


@dataclass(frozen=True)
class Moment:
    """What a folder held after a run into it."""

    code: int
    visits: Counter[tuple[str, int, int]]
    table: str
    info: dict[str, Any]


@pytest.fixture(scope="module")
def history(effbench: Effbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Moment]:
    """One folder after run upon run into it, and before each what a user may have changed."""
    folder, moments = _prepare(tmp_path_factory.mktemp("history"), "16..64"), {}

    def run(name: str, *more: str) -> None:
        done = effbench("run", "s.toml", *more, cwd=folder)
        result = folder / "results" / "s"
        info, table = (result / "run.json").read_text(), (result / "table.csv").read_text()
        moments[name] = Moment(done.returncode, _visits(folder), table, json.loads(info))
        assert done.returncode in (0, 3), done.stderr

    run("out of budget", "--budget", "1ms")
    run("finished")
    subprocess.run(
        ["git", "init", "-q"], cwd=folder, check=True
    )  # another commit, another date, another load
    run("again")
    run("larger", "--seq", "16..128")
    (folder / "two_helper.py").write_text("GAIN = 2.0\n")
    run("edited")
    run("fresh", "--fresh")
    return moments


def test_a_budget_leaves_cells_out_and_a_resumed_run_measures_them(history: dict[str, Moment]) -> None:
    assert history["out of budget"].code == 3
    assert history["out of budget"].table.count(",skipped,budget,") == 6
    assert history["finished"].code == 0
    assert history["finished"].table.count(",ok,") == 6


def test_a_finished_run_measures_nothing_again(history: dict[str, Moment]) -> None:
    before, after = history["finished"], history["again"]
    assert {(mechanism, seq) for mechanism, seq, _ in before.visits} == {
        (mechanism, seq) for mechanism in ("one", "two") for seq in LENGTHS
    }
    assert set(before.visits.values()) == {1}
    assert (after.code, after.visits) == (0, before.visits)
    assert after.info["ceilings"] == before.info["ceilings"]
    assert len(after.info["circumstances"]) == len(before.info["circumstances"]) + 1


def test_a_larger_question_keeps_the_answers_it_has(history: dict[str, Moment]) -> None:
    before, after = history["again"].visits, history["larger"].visits
    assert all(after[key] == 1 for key in before)
    assert {key[:2] for key in after - before} == {("one", 128), ("two", 128)}


def test_an_edit_of_a_helper_measures_exactly_its_mechanism_again(history: dict[str, Moment]) -> None:
    before, after = history["larger"].visits, history["edited"].visits
    again = {key for key, count in after.items() if count == 2}
    assert again == {key for key in before if key[0] == "two" and key[1] in LENGTHS}
    assert set(after.values()) <= {1, 2}


def test_fresh_starts_over(history: dict[str, Moment]) -> None:
    assert history["fresh"].visits == history["finished"].visits


def test_two_runs_cannot_write_into_one_folder(effbench: Effbench, tmp_path: Path) -> None:
    from effbench.store import Store

    folder = _prepare(tmp_path, "16")
    with Store(folder / "results" / "s"):
        done = effbench("run", "s.toml", cwd=folder)
    assert done.returncode == 2
    assert "results/s" in done.stderr


def test_killed_at_random_moments_it_goes_on(effbench: Effbench, tmp_path: Path) -> None:
    """At once, then three times after some more visits, by each signal in a random order."""
    folder = _prepare(tmp_path, "16..128")
    records = folder / "results/s/records.jsonl"
    rng, answered = random.Random(), -1
    for stop in (signal.SIGKILL, *rng.sample([signal.SIGKILL, signal.SIGINT, signal.SIGTERM], 3)):
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
            assert process.returncode == 130, stop
            assert "Go on with: effbench run s.toml" in errors
        answered = _lines(records)
    with records.open("ab") as file:
        file.write(b'{"schema": 1, "id": "cut o')  # what a kill in the middle of a write leaves
    _run(effbench, folder)
    visits = _visits(folder)
    assert {(m, n) for m, n, _ in visits} == {(m, n) for m in ("one", "two") for n in (16, 32, 64, 128)}
    assert set(visits.values()) == {1}, "no answered visit is measured again"
    assert _servers(folder) == []


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def _servers(folder: Path) -> list[int]:
    """Fork servers of runs in this folder whose runner is gone; other tests have theirs elsewhere."""
    import psutil

    time.sleep(0.5)
    return [
        p.pid
        for p in psutil.process_iter(["cmdline", "ppid", "cwd"])
        if p.info["cmdline"]
        and "effbench.forkserver" in p.info["cmdline"]
        and (p.info["ppid"], p.info["cwd"]) == (1, str(folder))
    ]
