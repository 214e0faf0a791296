"""A fork server beside what other packages do to a process that forks."""

from __future__ import annotations

from pathlib import Path

from effbench.processes import Server

#: What asyncio does from Python 3.12 on, once something has imported it.
WAKES_NOBODY = """
import os, signal
os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
from effbench.forkserver import main
main()
"""


def test_children_answer_where_a_fork_forgets_the_wake_up_call(tmp_path: Path) -> None:
    server = Server("time", {}, ("-c", WAKES_NOBODY))
    try:
        for _ in range(2):
            outcome = server.ask({"question": "hello", "path": []}, log=tmp_path / "log", allow=60)
            assert (outcome.ended, outcome.reason) == ("answered", "")
    finally:
        server.stop()


def test_a_child_that_cannot_start_says_why_in_its_log(tmp_path: Path) -> None:
    broken = "from effbench import forkserver\nforkserver._prctl = lambda *_: 1 / 0 if _[0] == 1 else None\n"
    server = Server("time", {}, ("-c", f"{broken}forkserver.main()"))
    try:
        outcome = server.ask({"question": "hello", "path": []}, log=tmp_path / "log", allow=60)
    finally:
        server.stop()
    assert (outcome.ended, outcome.reason) == ("died", "ended with exit code 1")
    assert "ZeroDivisionError" in (tmp_path / "log").read_text()
