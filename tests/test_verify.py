"""``effbench verify`` as a user types it: tables and exit codes, plugins that hang or abort included."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Effbench = Callable[..., subprocess.CompletedProcess[str]]

BROKEN = """
from torch import nn
from effbench.plugin import Mechanism

class Halves(nn.Module):
    def __init__(self, half):
        super().__init__()
        self.half, self.scale = half, nn.Linear(1, 1)
    def forward(self, x):
        return x * self.half

MECHANISM = Mechanism(name="halves", build=lambda shape, *, causal, half=0.5: Halves(half), causal=(True,),
                      dtypes=("float32",), reference=lambda module, x: x / 2)
"""
ABORTS = """
import os
from torch import nn

class Aborts(nn.Module):
    def forward(self, x):
        os.abort()
"""


def rows(stdout: str) -> dict[str, str]:
    """Outcome and remark by law."""
    lines = [line.split(None, 1) for line in stdout.splitlines() if line.startswith("  ")]
    return {law: " ".join(rest.split()) for law, rest in lines}


def test_a_new_mechanism_keeps_every_law_that_applies(effbench: Effbench, tmp_path: Path) -> None:
    assert effbench("new", "my-mixer", cwd=tmp_path).returncode == 0
    done = effbench("verify", "my_mixer.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("my-mixer (decay=0.9): 21 passed, 2 skipped")
    assert rows(done.stdout)["step_equals_forward"] == "skipped it offers no step"


def test_a_broken_law_is_exit_code_1_and_says_what_was_seen(effbench: Effbench, tmp_path: Path) -> None:
    (tmp_path / "halves.py").write_text(BROKEN)
    waive = ("past_is_visible=it looks at itself", "equals_reference=an old reason")
    words = [word for one in waive for word in ("--waive", one)]
    done = effbench("verify", "halves.py", "--option", "halves.half=0.5", *words, cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    found = rows(done.stdout)
    assert found["every_parameter_gets_a_gradient"].startswith("FAILED scale.weight: ")
    assert found["past_is_visible"] == "waived it looks at itself"
    assert found["equals_reference"] == "FAILED waived, but it holds"
    assert found["passes_gradcheck"] == "skipped it declares none of float64"


def test_what_hangs_or_aborts_costs_its_own_rows(effbench: Effbench, tmp_path: Path, data: Path) -> None:
    (tmp_path / "aborts.py").write_text(ABORTS)
    shutil.copy(data / "faults" / "faults.py", tmp_path)
    shutil.copy(data / "faults" / "hangs_on_import.py", tmp_path)
    names = ["hangs_on_import.py", "faults.py:CHECK_HANGS", "aborts.py:Aborts"]
    done = effbench("verify", *names, "--timeout", "4s", cwd=tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "hangs_on_import.py\n  nothing checked: importing it took more than 4 s" in done.stdout
    hanging, _, aborting = done.stdout.partition("check-hangs:")[2].partition("\naborts:")
    assert rows(hanging)["shape_dtype_and_device_are_kept"] == "FAILED took more than 4 s"
    assert rows(hanging)["input_is_untouched"].endswith("since shape_dtype_and_device_are_kept hangs")
    assert rows(aborting)["input_is_untouched"] == "FAILED killed by signal 6 (SIGABRT)"


def test_nothing_checked_is_exit_code_3(effbench: Effbench, data: Path, tmp_path: Path) -> None:
    done = effbench("verify", data / "faults" / "raises_on_import.py", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no import today" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["aft-ful"], "did you mean 'aft-full'"),
        (["missing.py"], "there is no file missing.py"),
        (["fnet", "--waive", "nosuch=why"], "no law 'nosuch'; there are shape_dtype_and_device_are_kept"),
        (["fnet", "--waive", "nosuch"], "is not of the form LAW=REASON"),
        (["fnet", "--option", "fnet.nosuch=1"], "no such option"),
        (["fnet", "--option", "other.nosuch=1"], "other is none of fnet"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_input_is_exit_code_2(effbench: Effbench, tmp_path: Path, words: list[str], message: str) -> None:
    done = effbench("verify", *words, cwd=tmp_path)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
