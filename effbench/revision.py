"""Another revision of the repository, checked out beside the one that the user works in."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from effbench.errors import BadInput


def top_of(folder: Path) -> Path:
    """The top of the working tree around a folder.

    Raises:
        BadInput: there is none.
    """
    done = _git(folder, "rev-parse", "--show-toplevel")
    if done.returncode:
        raise BadInput(f"--base: {folder} is in no git repository ({_reason(done)}); --baseline needs none")
    return Path(done.stdout.strip()).resolve()


def merge_base(top: Path, revision: str) -> str:
    """The commit at which the checked-out revision left ``revision``.

    Raises:
        BadInput: there is no such revision, or none in common; of a shallow clone it says how to deepen it.
    """
    shallow = _git(top, "rev-parse", "--is-shallow-repository").stdout.strip() == "true"
    remedy = (
        ": this is a shallow clone; fetch the history (in GitHub Actions: actions/checkout with "
        "`fetch-depth: 0`; by hand: git fetch --unshallow)"
    )
    known = _git(top, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if known.returncode:
        raise BadInput(f"--base: {revision!r} names no commit here{remedy if shallow else ''}")
    done = _git(top, "merge-base", known.stdout.strip(), "HEAD")
    if done.returncode:
        raise BadInput(f"--base: HEAD and {revision} have no commit in common{remedy if shallow else ''}")
    return done.stdout.strip()


@contextmanager
def checked_out(top: Path, commit: str) -> Iterator[Path]:
    """A worktree of a commit in a temporary folder; gone afterwards, however the block ends."""
    with tempfile.TemporaryDirectory(prefix="effbench-base-", ignore_cleanup_errors=True) as folder:
        tree = Path(folder).resolve() / "tree"
        try:
            done = _git(top, "worktree", "add", "--detach", str(tree), commit)
            if done.returncode:
                raise BadInput(f"--base: {commit} could not be checked out: {_reason(done)}")
            yield tree
        finally:
            with _undisturbed():
                _git(top, "worktree", "remove", "--force", str(tree))
                _git(top, "worktree", "prune")


def changed_files(top: Path, commit: str) -> list[str]:
    """Files of the repository that differ from a commit, uncommitted changes included."""
    done = _git(top, "diff", "--name-only", commit)
    return done.stdout.split("\n")[:-1]


def _git(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """git's answer; in a session of its own, so that Ctrl-C reaches us and not it. No hooks are run."""
    command = ("git", "-c", "core.hooksPath=/dev/null", "-C", str(folder), *words)
    try:
        return subprocess.run(
            command, capture_output=True, text=True, start_new_session=True, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise BadInput("--base needs git, which is not installed") from None


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stderr.strip().splitlines()
    return lines[-1] if lines else f"git ended with exit code {done.returncode}"


@contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C must not leave the worktree behind."""
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    except ValueError:  # not the main thread, which gets no signals
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
