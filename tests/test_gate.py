"""The gate, in repositories of its own: each side runs its own code, and nothing of it stays behind."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from effbench.frame import load_run
from effbench.store import read_info, read_records

ROOT = Path(__file__).parents[1]
SMALL = ("--seq", "48", "--dim", "16", "--mode", "forward")
#: On a busy machine time would ask for many pairs; what these tests ask of it is that it was measured.
ANY_TIME = '\n[tool.effbench.thresholds."*"]\ntime_s = 9\n'
Effbench = Callable[..., subprocess.CompletedProcess[str]]


def git(folder: Path, *words: str) -> str:
    who = ("-c", "user.name=a", "-c", "user.email=a@b")
    done = subprocess.run(["git", *who, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "state")


def worktrees(folder: Path) -> int:
    return len(git(folder, "worktree", "list").splitlines())


@dataclass
class Gated:
    folder: Path
    done: subprocess.CompletedProcess[str]

    def sources(self, mechanism: str) -> list[str]:
        """Base's and head's."""
        return [
            read_info(self.folder / "g" / side)["mechanisms"][mechanism]["source"]
            for side in ("base", "head")
        ]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with this project in it, as it stands."""
    folder = tmp_path_factory.mktemp("clone")
    kept = ("effbench", "mechanisms", "reports", "suites", "pyproject.toml", "README.md", "LICENSE")
    for name in kept:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / ".gitignore").write_text("__pycache__\n/g\n")
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + ANY_TIME)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    return folder


@pytest.fixture(scope="module")
def own(effbench: Effbench, clone: Path) -> Gated:
    """A gate on a change to one of our mechanisms that changes nothing but its text."""
    file = clone / "mechanisms" / "fnet.py"
    file.write_text(file.read_text() + "\n# planted\n")
    words = ("gate", "--base", "main", "--mechanism", "fnet", *SMALL, "--out", "g")
    return Gated(clone, effbench(*words, cwd=clone))


@pytest.fixture(scope="module")
def authors(effbench: Effbench, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Gated:
    """A gate in a repository with a file of its own, of which a branch makes more work and adds another."""
    folder = tmp_path_factory.mktemp("author")
    file = folder / "mine.py"
    shutil.copy(data / "author" / "mine.py", file)
    (folder / ".gitignore").write_text("__pycache__\n/g\nbuilt\n")
    (folder / "pyproject.toml").write_text('[project]\nname = "mine"\ndependencies = ["torch"]\n' + ANY_TIME)
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    git(folder, "switch", "--quiet", "--create", "work")
    (folder / "fresh.py").write_text(file.read_text().replace('name="mean"', 'name="fresh"'))
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "mine"\ndependencies = ["torch>=2.6"]\n' + ANY_TIME
    )
    commit(folder)
    text = file.read_text().replace("self.out(x +", "self.out(x) * 0 + self.out(x +")
    file.write_text(text)  # not committed: head is the tree as it stands
    words = ("gate", "--base", "main", "--mechanism", "mine.py:M1,fresh.py", *SMALL, "--out", "g")
    with pytest.MonkeyPatch.context() as github:
        github.setenv("GITHUB_ACTIONS", "true")
        github.setenv("GITHUB_WORKSPACE", str(folder))
        github.setenv("GITHUB_STEP_SUMMARY", str(folder / "g" / "summary.md"))
        more = ("--setup", "mkdir -p g; echo x >> built", "--markdown", "g/comment.md")
        return Gated(folder, effbench(*words, *more, cwd=folder))


def test_each_side_runs_its_own_code(own: Gated) -> None:
    """PYTHONPATH alone would find the installed mechanisms on both sides."""
    assert own.done.returncode == 0, own.done.stderr
    base, head = own.sources("fnet")
    assert base != head
    assert {base.partition("@")[0], head.partition("@")[0]} == {"fnet"}
    assert "where HEAD left main" in own.done.stdout


def test_records_say_pair_and_side(own: Gated) -> None:
    for side in ("base", "head"):
        records = read_records(own.folder / "g" / side)
        assert {record.side for record in records} == {side}
        assert [record.pair for record in records][:3] == [0, 1, 2]
        assert all(
            record.status == "ok" and record.time and len(record.time.samples_s) >= 4 for record in records
        )
        assert len({record.process for record in records}) == len(records), (
            "servers of their own for each pair"
        )
    run = load_run(own.folder / "g" / "head")
    assert run.frame["alloc_bytes"].notna().all()


def test_the_pairs_can_be_compared_again(effbench: Effbench, own: Gated) -> None:
    done = effbench("compare", "g/base", "g/head", "--explain", cwd=own.folder)
    assert done.returncode in (0, 3), done.stderr  # at its own threshold, which three pairs may leave open
    assert "of 3 pairs" in done.stdout


def test_nothing_stays_behind(own: Gated, authors: Gated) -> None:
    assert worktrees(own.folder) == worktrees(authors.folder) == 1
    assert git(own.folder, "status", "--short").split() == ["M", "mechanisms/fnet.py"]


def test_more_work_in_an_authors_file_is_found(authors: Gated) -> None:
    assert authors.done.returncode == 1, authors.done.stderr
    line = next(line for line in authors.done.stdout.splitlines() if "mean" in line and "FLOPs" in line)
    assert "bigger" in line


def test_a_file_that_base_lacks_is_new(authors: Gated) -> None:
    line = next(line for line in authors.done.stdout.splitlines() if "fresh" in line)
    assert " new" in line


def test_both_sides_are_built_and_dependencies_are_compared(authors: Gated) -> None:
    assert (authors.folder / "built").read_text() == "x\n"
    assert "dependencies changed, and both sides ran with what is installed here: + torch>=2.6; - torch" in (
        authors.done.stdout
    )


def test_github_gets_summary_comment_and_annotations(authors: Gated) -> None:
    text = (authors.folder / "g" / "comment.md").read_text()
    assert text == (authors.folder / "g" / "summary.md").read_text()
    assert text.startswith("### ❌ effbench gate: worse")
    marks = [line for line in authors.done.stdout.splitlines() if line.startswith("::error ")]
    assert any(line.startswith("::error file=mine.py,title=mean ") and "FLOPs" in line for line in marks)


def test_a_stored_run_of_another_machine_speaks_of_memory_only(effbench: Effbench, own: Gated) -> None:
    stored = own.folder / "g" / "stored"
    shutil.copytree(own.folder / "g" / "head", stored)
    here = read_info(stored)["environment"]
    for name in ("run.json", "records.jsonl"):
        (stored / name).write_text((stored / name).read_text().replace(here, "elsewhere"))
    words = ("gate", "--baseline", "g/stored", "--mechanism", "fnet", *SMALL, "--out", "g/now")
    done = effbench(*words, cwd=own.folder)
    assert done.returncode == 0, done.stderr
    assert "the environments differ, so time is not compared" in done.stdout
    assert "incomparable" in done.stdout
    assert "fine: " in done.stdout


def test_an_interrupt_leaves_no_worktree(clone: Path, own: Gated) -> None:
    words = [sys.executable, "-m", "effbench", "gate", "--base", "main", "--mechanism", "fnet", *SMALL]
    process = subprocess.Popen([*words, "--out", "g/stopped"], cwd=clone, stdout=subprocess.PIPE)
    end = time.monotonic() + 60
    while worktrees(clone) == 1 and time.monotonic() < end:
        time.sleep(0.05)
    assert worktrees(clone) == 2
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert worktrees(clone) == 1


def test_what_cannot_be_compared_is_said(effbench: Effbench, own: Gated, tmp_path: Path) -> None:
    shallow = tmp_path / "shallow"
    commit(own.folder)
    git(tmp_path, "clone", "--quiet", "--depth", "1", f"file://{own.folder}", "shallow")
    for words, folder, message in (
        (("--base", "nosuch"), own.folder, "'nosuch' names no commit"),
        (("--base", "HEAD~1"), shallow, "`fetch-depth: 0`"),
        (("--base", "main"), tmp_path, "is in no git repository"),
        (("--base", "main", "--setup", "echo why >&2; false"), own.folder, "--setup: ended with exit code 1"),
        ((), own.folder, "--base"),
    ):
        done = effbench("gate", *words, *SMALL, cwd=folder)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_a_gate_that_measured_nothing_is_no_pass(effbench: Effbench, data: Path, tmp_path: Path) -> None:
    text = (data / "author" / "mine.py").read_text()
    (tmp_path / "mine.py").write_text(f"{text}\nraise RuntimeError('not today')\n")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "mine"\n')
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path)
    done = effbench("gate", "--base", "main", "--mechanism", "mine.py", *SMALL, "--out", "g", cwd=tmp_path)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "no cell of head could be measured" in done.stderr
