"""What a fork server does before it forks: imports that its children would pay for, and no computing."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import os, signal, sys, torch
from effbench import worker
worker.prepare(sys.argv[1])
before = set(sys.modules)
if not os.fork():  # after OpenMP had been used, this product would hang
    signal.alarm(60)
    x = torch.ones(256, 256, requires_grad=True)
    (x @ x).sum().backward()
    print(len(set(sys.modules) - before), flush=True)
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.parametrize("kind", ["time", "memory"])
def test_a_childs_first_backward_pass_imports_nothing_and_has_its_threads(kind: str) -> None:
    done = subprocess.run([sys.executable, "-c", CODE, kind], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr
