"""A fork server beside what other packages do to a process that forks."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path

import pytest

from effbench import processes
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


def test_a_child_that_never_stops_talking_is_watched_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = socket.socketpair()
    conversation = processes.Conversation(Server("time", {}), ours, 60.0, 100, None)
    conversation.pid = os.getpid()
    looks: list[int] = []

    def resident(pid: int) -> int:
        looks.append(pid)
        return 101

    monkeypatch.setattr(processes, "_resident", resident)

    def talk() -> None:
        with contextlib.suppress(OSError):  # nobody listens any more
            while True:
                theirs.sendall(b'{"stage": "time", "allow": 60}\n')

    talking = threading.Thread(target=talk)
    talking.start()
    conversation.listen()
    ours.close()
    talking.join()
    theirs.close()
    assert conversation.outcome.ended == "memory"
    assert looks == [os.getpid()]


SLOW_TO_END = """
import json, os, socket, sys, time
from effbench import forkserver

def answer(channel):
    others = {*forkserver_children(os.getppid())} - {os.getpid()} if channel.recv(4096) else None
    channel.sendall(json.dumps({"stage": "end", "answer": {"others": sorted(others)}}).encode() + b"\\n")
    time.sleep(0.2)
    os._exit(0)

def forkserver_children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]

forkserver._serve(socket.socket(fileno=int(sys.argv[2])), answer)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="the children of a process are read there")
def test_who_has_answered_is_gone_before_another_is_asked(tmp_path: Path) -> None:
    leaving: processes.Leaving = {}
    servers = [Server("time", {}, ("-c", SLOW_TO_END), leaving=leaving) for _ in range(2)]
    try:
        for server in (servers[0], servers[0], servers[1], servers[0]):
            outcome = server.ask({"question": "who else"}, log=tmp_path / "log", allow=60)
            assert outcome.answer == {"others": []}, (tmp_path / "log").read_text()
            assert [whose for whose, _ in leaving] == [server]  # nobody else's is left
    finally:
        for server in servers:
            server.stop()
    assert not leaving
