"""``effbench reproduce`` as a user meets it: a suite of one's own, measured, judged, judged again."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from effbench.claims import parse_claims
from effbench.cli import app
from effbench.errors import BadInput
from effbench.frame import load_run
from effbench.reproduction import reproduce
from effbench.retelling import as_markdown, tell
from tests.synthetic import make_cell, measured, write_run

Effbench = Callable[..., subprocess.CompletedProcess[str]]
SUITE = """
mechanisms = ["mha", "fnet"]
[axes]
dim = 16
level = "block"
[[sweep]]
mechanisms = ["mha"]
seq = 1024
[[sweep]]
seq = 384
"""
CLAIMS = """
[sources.x]
paper = "Nobody 2000, a note"
hardware = "paper and pencil"
device = "cpu"

[[claim]]
name = "more tokens need more memory"
source = "x"
table = "Table 1"
kind = "order"
metric = "peak_bytes"
groups = [[{ mechanism = "mha", seq = 384 }], [{ mechanism = "mha", seq = 1024 }]]
printed = "1 < 2"

[[claim]]
name = "fewer parameters"
source = "x"
table = "Table 2"
kind = "ratio"
metric = "params"
where = { seq = 384 }
of = { mechanism = "fnet" }
to = { mechanism = "mha" }
printed = 1.5
note = "of a | block"

[[claim]]
name = "longer than was asked"
source = "x"
table = "Table 3"
kind = "ratio"
metric = "speed"
where = { seq = 512 }
of = { mechanism = "fnet" }
to = { mechanism = "mha" }
printed = 1.5
"""


@pytest.fixture(scope="module")
def reproduced(effbench: Effbench, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a suite that was reproduced."""
    folder = tmp_path_factory.mktemp("reproduce")
    (folder / "claims").mkdir()
    (folder / "small.toml").write_text(SUITE)
    (folder / "claims" / "small.toml").write_text(CLAIMS)
    done = effbench("reproduce", "small.toml", "--threads", 1, "--out", "r", cwd=folder)
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


@pytest.mark.long
def test_it_says_claim_by_claim_what_holds(reproduced: Path) -> None:
    """A claim that does not hold is an answer: the exit code was 0."""
    shown = " ".join((reproduced / "stdout").read_text().split())
    assert "3 claims: 1 hold, 1 do not hold, 1 cannot be compared here" in shown
    page = (reproduced / "r" / "reproduction.md").read_text()
    assert re.search(r"; begun \d{4}-\d\d-\d\d; written by effbench", page)
    rows = {
        cells[1].strip(): cells[-2].strip() for line in page.splitlines() if len(cells := line.split("|")) > 5
    }
    assert rows["more tokens need more memory (Nobody 2000, Table 1)"] == "holds"
    assert rows["fewer parameters: ratio of parameters (Nobody 2000, Table 2)"] == "does not hold"
    reason = "not comparable: no cell of this run is fnet seq=512"
    assert rows["longer than was asked: ratio of speeds (Nobody 2000, Table 3)"] == reason
    assert "* fewer parameters: of a \\| block" in page
    assert "* Nobody 2000, a note: measured on paper and pencil" in page


@pytest.mark.long
def test_a_run_is_judged_again_without_measuring(reproduced: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(reproduced)
    words = ["reproduce", "small.toml", "--from", "r", "--markdown", "pages/again.md"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert (reproduced / "pages" / "again.md").read_text() == (
        reproduced / "r" / "reproduction.md"
    ).read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["quick"], "nothing is claimed of suite 'quick'; there are claims of "),
        (["paper-enwik8", "--from", "nowhere"], "no effbench run in nowhere"),
        (["paper-enwik8", "--threads", "0"], "--threads: 0 is too small, the least is 1"),
        (["paper-enwik8", "--seq", "0"], "--seq: 0 is too small, the least is 1"),
        (["paper-enwik8", "--stack", "depth=deep"], "--stack: depth: "),
    ],
)
def test_what_it_refuses(words: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["reproduce", *words])
    assert isinstance(done.exception, BadInput)
    assert str(done.exception).startswith(message)


@pytest.mark.parametrize("width", [60, 200])
def test_it_fits_the_terminal(tmp_path: Path, width: int) -> None:
    run = load_run(write_run(tmp_path, [make_cell("mha")], [measured(make_cell("mha"), [1.0])]))
    claims = parse_claims(CLAIMS, "c.toml")
    console = Console(file=StringIO(), width=width)
    outcomes = reproduce(run, claims)
    tell(outcomes, claims, console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width
    assert "3 cannot be compared here" in " ".join(lines)
    page = as_markdown(run, outcomes, claims)
    assert re.search(r"^Synthetic CPU 2000 \(no such machine\), 2 usable cores; torch 2\.13", page, re.M)
