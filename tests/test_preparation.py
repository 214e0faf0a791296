"""What fork servers have before they fork: what children would import, and a cache of compiled code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from effbench.servers import Servers

CODE = """
import os, signal, sys, torch
from effbench import preheat
preheat.prepare(sys.argv[1])
before = set(sys.modules)
if not os.fork():  # after OpenMP had been used, this product would hang
    signal.alarm(60)
    x = torch.ones(256, 256, requires_grad=True)
    (x @ x).sum().backward()
    print(len(set(sys.modules) - before), flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.parametrize("kind", ["time", "memory", "counts"])
def test_a_childs_first_backward_pass_imports_nothing_and_has_its_threads(kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, kind], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_the_servers_of_a_run_share_what_was_compiled_and_another_run_starts_without_it() -> None:
    servers, other = Servers(), Servers()
    asked = [servers.get(kind, threads=1, allocator="default") for kind in ("time", "memory")]
    asked.append(other.get("time", threads=1, allocator="default"))
    kept, same, its = (Path(server.environment["TORCHINDUCTOR_CACHE_DIR"]) for server in asked)
    assert kept == same != its
    assert list(kept.iterdir()) == []
    servers.stop()
    assert [kept.exists(), its.exists()] == [False, True]
    other.stop()
