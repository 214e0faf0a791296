"""The next cell's counts are made beside this one's memory, never beside a time, and change no answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from effbench import foresight
from effbench.cell import Budget, Cell
from effbench.outcome import Outcome
from effbench.plan import Description, make_plan
from effbench.record import Memory, Record, Time
from effbench.runner import run_plan
from effbench.servers import Servers
from effbench.suite import make_suite
from effbench.visit import Visitor
from tests.synthetic import ENVIRONMENT, source_of

COUNTED = {"counted": dict.fromkeys(("matmul", "elementwise", "transcendental", "fft"), 1.0), "needed": None}
COUNTED |= {"uncounted_ops": {}, "bytes_moved": 1, "calls": 1, "live_bytes": 1, "peak_bytes": 1}
FINE: Mapping[str, Mapping[str, Any]] = {
    "check": {"status": "ok"},
    "counts": {"status": "ok", **COUNTED},
    "time": {
        "status": "ok",
        "time": Time(samples_s=[1e-3] * 5).model_dump(),
        "params": 1,
        "path": {"gemm": "torch", "attention": ""},
        "flags": [],
    },
    "memory": {"status": "ok", "memory": Memory(alloc_bytes=1).model_dump()},
}


class Child:
    """A conversation that is heard from its beginning to its end."""

    def __init__(self, begun: list[Any], name: tuple[str, int], outcome: Outcome) -> None:
        self.begun, self.name, self.outcome = begun, name, outcome
        begun.append(("begins", *name))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.begun.append(("ends", *self.name))

    def listen(self) -> None:
        if isinstance(self.outcome, BaseException):
            raise self.outcome


class Children(Visitor):
    """A visitor whose children are made up; those asked beside something may answer otherwise."""

    def __init__(self, folder: Path, beside: Outcome | None = None, **answers: Any) -> None:
        super().__init__(Servers(), Budget(memory_limit=2**32), folder, seed=0, environment=ENVIRONMENT)
        self.servers.instructions_missing = "none here"
        self.said: list[Any] = []
        self.outcomes = {name: Outcome(ended="answered", answer=answer) for name, answer in FINE.items()}
        self.outcomes |= answers
        self.beside = beside

    def begin(self, kind: str, cell: Cell, question: str, **more: Any) -> Any:
        ahead = question == "counts" and "memory_limit" in more
        outcome = self.beside if ahead and self.beside else self.outcomes[question]
        return Child(self.said, (question, cell.seq), outcome)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foresight, "usable_cores", lambda: 2)


def carried_out(visitor: Children, **axes: Any) -> list[Record]:
    """The records of the first visits to three cells of one mechanism."""
    suite = make_suite({"mechanisms": ["toy"], "axes": {"seq": [64, 128, 256], "dim": 32, **axes}}, "three")
    plan = make_plan(suite, [Description(spec="toy", name="toy", source=source_of("toy"))])
    records: list[Record] = []
    run_plan(plan, visitor, visitor.budget, answered=[], append=records.append)
    return [record for record in records if record.round == 0]


def asked(visitor: Children, question: str) -> list[int]:
    return [seq for what, name, seq in visitor.said if what == "begins" and name == question]


def test_counts_of_the_next_cell_are_made_beside_memory_and_once(tmp_path: Path) -> None:
    visitor = Children(tmp_path)
    records = carried_out(visitor)
    assert all(record.status == "ok" and record.flops and record.flops.counted for record in records)
    assert asked(visitor, "counts") == [64, 128, 256]
    begins = visitor.said.index(("begins", "counts", 128))
    between = visitor.said[begins + 1 : visitor.said.index(("ends", "counts", 128))]
    assert between == [("begins", "memory", 64), ("ends", "memory", 64)]


def test_nothing_is_asked_beside_a_time(tmp_path: Path) -> None:
    visitor = Children(tmp_path)
    carried_out(visitor)
    times = [
        place for place, (what, name, _) in enumerate(visitor.said) if (what, name) == ("begins", "time")
    ]
    assert len(times) == 6
    for place in times:
        assert visitor.said[place + 1] == ("ends", *visitor.said[place][1:])
        begun = [name for what, *name in visitor.said[:place] if what == "begins"]
        assert sorted(begun) == sorted(name for what, *name in visitor.said[:place] if what == "ends")


def test_one_core_and_a_gpu_do_one_thing_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def in_turn(visitor: Children, **axes: Any) -> bool:
        carried_out(visitor, **axes)
        begun, ended = visitor.said[::2], visitor.said[1::2]
        return begun == [("begins", *end[1:]) for end in ended] and len(asked(visitor, "counts")) == 3

    assert not in_turn(Children(tmp_path))
    assert in_turn(Children(tmp_path), device="cuda")
    monkeypatch.setattr(foresight, "usable_cores", lambda: 1)
    assert in_turn(Children(tmp_path))


@pytest.mark.parametrize(
    "beside",
    [
        Outcome(ended="answered", answer={"status": "oom", "reason": "out of memory"}),
        Outcome(ended="died", reason="killed"),
        Outcome(ended="memory"),
        Outcome(ended="until"),
    ],
)
def test_what_may_be_for_lack_of_memory_is_asked_again(tmp_path: Path, beside: Outcome) -> None:
    visitor = Children(tmp_path, beside)
    assert all(record.flops and record.flops.counted for record in carried_out(visitor))
    assert asked(visitor, "counts") == [64, 128, 128, 256, 256]


def test_what_fails_ahead_fails_as_it_would_in_its_turn(tmp_path: Path) -> None:
    late = Outcome(ended="timeout", reason="took more than 24 s")
    visitor = Children(tmp_path, late)
    first, *others = carried_out(visitor)
    assert "no-prediction" not in first.flags
    assert all("no-prediction" in record.flags for record in others)
    assert asked(visitor, "counts") == [64, 128, 256, 128, 256]  # the last two on real tensors, being cheap


def test_an_interrupted_memory_question_leaves_nobody(tmp_path: Path) -> None:
    visitor = Children(tmp_path, memory=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        carried_out(visitor)
    assert visitor.said[-2:] == [("ends", "memory", 64), ("ends", "counts", 128)]


def test_an_answer_to_another_question_is_none(tmp_path: Path) -> None:
    visitor = Children(tmp_path)
    cell = Cell(mechanism="toy", seq=64, dim=32, heads=1, threads=1)
    known = foresight.Prediction(cell, "toy", 2.0)
    for other in (replace(known, seconds=3.0), replace(known, cell=replace(cell, seq=65))):
        with visitor.foresight.beside(cell, known, visitor.begin):
            pass
        visitor.said.clear()
        visitor.foresight.answer(other, visitor.begin)
        visitor.foresight.answer(known, visitor.begin)
        assert len(visitor.said) == 4
