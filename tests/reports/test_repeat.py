"""The command of a cell asks for that cell and no other."""

from __future__ import annotations

import shlex
import sys
from dataclasses import asdict, replace

import pytest

from effbench.cell import Cell
from effbench.cli import app
from effbench.plan import Description, make_plan
from effbench.reports._repeat import command
from effbench.stack import complete
from tests.synthetic import make_cell

ODD = make_cell(
    "odd $name;",
    options={"window": 48, "dims": 2, "share": 0.25, "kind": "matrix", "bias": None, "tied": True},
    **{"seq": 1031, "dim": 96, "heads": 3, "batch": 5, "causal": True, "compile": True, "mode": "train"},
    **{"level": "op", "dtype": "bfloat16", "gemm": "onednn", "allocator": "default", "threads": 1},
)
MODEL = make_cell(
    "toy", level="model", mode="train", stack=complete("model", {"depth": 3, "memory": "reversible"})
)
DEFAULTS = {"window": 1, "dims": 1, "share": 1.0, "kind": "fft", "bias": False, "tied": None}


def asked(words: list[str], monkeypatch: pytest.MonkeyPatch) -> list:
    """The requests that the program makes of these words, without carrying them out."""
    from effbench import terminal

    requests: list = []
    monkeypatch.setattr(terminal, "measure_and_show", requests.append)
    monkeypatch.setattr(sys, "argv", words)
    app(words[1:], standalone_mode=False)
    return requests


@pytest.mark.parametrize(
    ("cell", "spec"),
    [
        (make_cell("toy"), "toy"),
        (ODD, "some where/odd.py:ODD"),
        (replace(ODD, causal=False, options={}), "x:y"),
        (MODEL, "toy"),
    ],
    ids=["usual", "odd", "plain", "model"],
)
def test_the_command_asks_for_the_cell(cell: Cell, spec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    info = {
        "mechanisms": {cell.mechanism: {"spec": spec}},
        "command": "effbench run quick --memory-limit 2GiB --cell-timeout=7s",
    }
    (request,) = asked(shlex.split(command(asdict(cell), info)), monkeypatch)
    options = {name: DEFAULTS[name] for name in cell.options}
    plan = make_plan(request.suite, [Description(spec=spec, name=cell.mechanism, options=options)])
    assert plan.cells == (cell,)
    assert plan.cells[0].id == cell.id
    assert (request.budget.memory_limit, request.budget.cell_timeout) == (2 * 2**30, 7.0)
    assert request.fresh


def test_a_run_from_python_gives_its_limits_as_recorded() -> None:
    limits = {"memory_limit": 2**31, "cell_timeout": 9.0}
    info = {"command": "effbench.run(...) from Python", "limits": limits}
    assert f" --memory-limit {2**31} --cell-timeout 9.0 " in command(asdict(make_cell("toy")), info)
