"""Cells that were timed while the cores were slow are visited again when these are better, within limits."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from effbench import runner
from effbench.cell import Budget, Cell
from effbench.paces import Paces
from effbench.plan import Description, make_plan
from effbench.progress import Display
from effbench.record import Record, Time
from effbench.runner import Progress, Waiting, run_plan
from effbench.suite import make_suite
from tests.synthetic import ENVIRONMENT, measured, source_of

QUICK, SLOW = (1e-5, 2e-6), (1.5e-5, 2e-6)


class Cores:
    """A visitor of cores that are slow for so many looks, and a clock that looks and visits move."""

    def __init__(self, slow_looks: int) -> None:
        self.paces, self.surveys, self.environment = Paces({2: [QUICK]}), {}, ENVIRONMENT
        self.slow_looks, self.now = slow_looks, 0.0
        self.hindered = 1.0  # times as long as the first pass of a visit the others take
        self.unlike: dict[tuple[int, str], float] = {}  # (length, process) -> times as long as others take
        self.asked: list[tuple[int, int, int, bool]] = []

    def first(self, cell: Cell, _: Description, **__: Any) -> Record:
        return self.visit(cell, 0, f"server-{0}")

    def again(
        self, cell: Cell, _: Description, *, round_: int, replicate: int | None = None, **more: Any
    ) -> Record:
        server = round_ if replicate is None else replicate
        self.asked.append((cell.seq, round_, server, more.get("single", False)))
        return self.visit(cell, round_, f"server-{server}")

    def visit(self, cell: Cell, round_: int, process: str) -> Record:
        self.now += 1
        seconds = cell.seq * 1e-6 * self.unlike.get((cell.seq, process), 1.0)
        samples_s = [seconds, *[self.hindered * seconds] * 4]
        time = Time(samples_s=samples_s, pace_s=[SLOW if self.slow_looks else QUICK] * 5)
        return measured(cell, [], time=time, round=round_, process=process)

    def at_their_best(self, threads: int) -> bool:
        self.slow_looks = max(0, self.slow_looks - 1)
        return not self.slow_looks

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def carried_out(cores: Cores, monkeypatch: pytest.MonkeyPatch, **effort: Any) -> list[Any]:
    """What the watcher of a run of two cells is told."""
    monkeypatch.setattr(runner, "time", cores)
    monkeypatch.setattr(runner, "at_their_best", Cores.at_their_best)
    suite = make_suite({"mechanisms": ["toy"], "axes": {"seq": [64, 128], "dim": 32, "threads": 2}}, "tiny")
    plan = make_plan(suite, [Description(spec="toy", name="toy", source=source_of("toy"))])
    told: list[Any] = []
    budget = Budget(memory_limit=2**30, **effort)
    run_plan(plan, cores, budget, answered=[], append=lambda _: None, watch=told.append)  # type: ignore[arg-type]
    return told


def test_calm_cores_need_no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = Cores(slow_looks=0)
    told = carried_out(cores, monkeypatch, patience=60.0)
    assert [round_ for _, round_, *_ in cores.asked] == [1, 1]
    assert all(isinstance(step, Progress) for step in told)


def test_a_cell_is_visited_as_often_as_its_fastest_pass_deserves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside other work most passes of a small cell may take as long as those of a costly one."""
    cores = Cores(slow_looks=0)
    cores.hindered = 1e4
    carried_out(cores, monkeypatch, patience=0.0)
    assert [round_ for _, round_, *_ in cores.asked] == [1, 1]


def test_every_slowed_process_is_asked_again_when_the_cores_are_better(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = Cores(slow_looks=3)
    told = carried_out(cores, monkeypatch, patience=60.0)
    again = cores.asked[2:]
    assert {(seq, server) for seq, _, server, _ in again} == {(64, 0), (64, 1), (128, 0), (128, 1)}
    assert len(again) == 4
    assert sorted(round_ for seq, round_, *_ in again if seq == 64) == [2, 3]
    assert [step.cells for step in told if isinstance(step, Waiting)] == [2, 1]
    assert not any(single for *_, single in again)


def test_processes_that_disagree_are_joined_by_others_until_five_speak_for_themselves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = Cores(slow_looks=0)
    cores.unlike = {(64, "server-1"): 1.04, (128, "server-1"): 1.02}
    told = carried_out(cores, monkeypatch, patience=60.0)
    assert cores.asked[2:] == [(64, 2, 2, False), (64, 3, 3, False), (64, 4, 4, False)]
    assert [step.cells for step in told if isinstance(step, Waiting)] == [1]


def test_patience_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = Cores(slow_looks=10**6)
    carried_out(cores, monkeypatch, patience=20.0)
    assert len(cores.asked) == 2
    assert 20.0 <= cores.now < 26.0


def test_no_patience_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cores = Cores(slow_looks=3)
    carried_out(cores, monkeypatch)
    assert len(cores.asked) == 2
    assert cores.slow_looks == 3


def test_the_display_says_why_the_run_goes_on() -> None:
    text = io.StringIO()
    with Display(Console(file=text)) as display:
        display(Waiting(cells=1, left_s=42.0))
    assert "1 cell in doubt: timed while the cores worked below their best" in " ".join(
        text.getvalue().split()
    )
    assert "42 s" in text.getvalue()
