"""A mechanism is loaded once for the children that are asked about it, and no import harms a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from effbench import servers as servers_module
from effbench.outcome import Outcome
from effbench.servers import Servers

PLUGIN = """
import ctypes, os, pathlib, subprocess, sys, threading, time, torch
from effbench.plugin import Mechanism
with pathlib.Path(__file__).with_suffix(".loads").open("a") as file:
    file.write("x")
MECHANISM = Mechanism(name="planted", build=torch.nn.Identity)
"""
HARM = {
    "raises": "raise ValueError",
    "aborts": "os.abort()",
    "hangs": "time.sleep(60)",
    "exits": "os._exit(0)",
    "leaves_a_thread": "threading.Thread(target=time.sleep, args=[60], daemon=True).start()",
    "computes": "torch.set_num_threads(2); torch.ones(512, 512) @ torch.ones(512, 512)",
    "leaves_a_process": "subprocess.Popen(['sleep', '60'])",
    "moves_a_process_out": "subprocess.Popen(['sleep', '60'], start_new_session=True)",
}


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    found = Servers()
    found.get("time", threads=1, allocator="default").start()
    yield found
    found.stop()


def ask(servers: Servers, file: Path) -> tuple[Outcome, int]:
    """What is answered about the mechanism of a file, and how often the file was imported for it."""
    server = servers.get("time", threads=1, allocator="default")
    request: dict[str, Any] = {"spec": str(file), "path": [], "load_timeout": 1.0, "cells": []}
    limits: dict[str, Any] = {"log": file.with_suffix(".log"), "allow": 60.0}
    asked = servers.knowing(server, {"question": "load", **request}, **limits)
    outcome = asked.ask({"question": "survey", **request}, **limits)
    assert outcome.server == server.identity, "the process that is the unit of replication"
    return outcome, len(file.with_suffix(".loads").read_text())


def descendants(servers: Servers) -> list[psutil.Process]:
    """Of the server, without children that have answered and are ending."""
    server = servers.get("time", threads=1, allocator="default")
    leaving = {pid for _, pid in server.leaving}
    found = psutil.Process(int(server.identity.partition("-")[2])).children(recursive=True)
    return [process for process in found if process.pid not in leaving]


def test_several_questions_import_it_once_and_no_thread_is_forked(servers: Servers, tmp_path: Path) -> None:
    file = tmp_path / "imported_once.py"
    file.write_text(PLUGIN + "print('printed once', end='')\n")
    assert [ask(servers, file)[1] for _ in range(3)] == [1, 1, 1]
    nursery = descendants(servers)[-1]
    assert nursery.num_threads() == 1
    assert file.with_suffix(".log").read_text() == "printed once"


@pytest.mark.parametrize("harm", HARM)
def test_harm_on_import_stays_in_the_children_that_import_it(
    servers: Servers, tmp_path: Path, harm: str
) -> None:
    server = servers.get("time", threads=1, allocator="default")
    before, others = server.identity, descendants(servers)
    file = tmp_path / f"{harm}.py"
    file.write_text(f"{PLUGIN}{HARM[harm]}\n")
    outcome, loads = ask(servers, file)
    survived = harm in ("leaves_a_thread", "computes", "leaves_a_process", "moves_a_process_out")
    assert (outcome.answer.get("cells") == []) is survived, outcome
    assert loads == 2, "tried once for all, then by the child that was asked"
    assert ask(servers, file)[1] == 3, "not tried again for all"
    assert server.identity == before
    left = [process for process in descendants(servers) if process not in others]
    assert psutil.wait_procs(left, timeout=20)[1] == [], "nothing is left behind"


def test_where_one_is_killed_the_questions_go_to_its_server(servers: Servers, tmp_path: Path) -> None:
    file = tmp_path / "killed.py"
    file.write_text(PLUGIN)
    before = descendants(servers)
    assert ask(servers, file)[1] == 1
    (nursery,) = [process for process in descendants(servers) if process not in before]
    nursery.kill()
    outcome, loads = ask(servers, file)
    assert (outcome.answer.get("cells"), loads) == ([], 2)


def test_a_server_has_so_many_and_no_more(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(servers_module, "_NURSERIES", 0)
    file = tmp_path / "one_too_many.py"
    file.write_text(PLUGIN)
    server = servers.get("memory", threads=1, allocator="default")
    assert servers.knowing(server, {"spec": str(file)}, log=tmp_path / "log", allow=1.0) is server
