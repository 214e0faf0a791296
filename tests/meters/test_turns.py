"""Turns that a process makes when it is asked, on a clock that only passes move."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from effbench.meters import clocks, turns
from effbench.meters import time as meter

PASS_S = 4e-4


class FakeTime:
    now = 0.0

    def perf_counter_ns(self) -> int:
        return round(self.now * 1e9)

    def monotonic(self) -> float:
        return self.now


Served = Callable[[Callable[[int], float], list[tuple[int, bool]]], tuple[dict, list[dict], list[int]]]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """What the meter returns and says, and the passes made, for a cost by pass and the turns asked."""
    clock = FakeTime()
    monkeypatch.setattr(meter, "time", clock)
    monkeypatch.setattr(clocks, "time", clock)

    def serve(cost: Callable[[int], float], asked: list[tuple[int, bool]]) -> tuple:
        said: list[dict] = []
        made: list[int] = []
        waiting = iter([*asked, (0, False)])

        def call(i: int) -> None:
            made.append(i)
            clock.now += cost(i)

        found = turns.serve(call, hear=lambda: next(waiting), say=said.append, tick=lambda: None)
        return found, said, made

    return serve


def test_a_turn_has_the_passes_that_were_asked(served: Served) -> None:
    found, said, made = served(lambda i: PASS_S, [(50, False), (53, True), (1, True)])
    assert len(found["samples_s"]) == 2  # the first was thrown away
    assert found["samples_s"] == pytest.approx([PASS_S] * 2)
    assert said[0]["pass_s"] == pytest.approx(PASS_S)
    assert [part["seconds"] / PASS_S for part in said[1:]] == pytest.approx([50, 53, 1])
    assert made == list(range(len(made))), "no input comes twice"


def test_a_moment_that_somebody_else_had_spoils_blocks_and_not_the_turn(served: Served) -> None:
    _, _, made = served(lambda i: PASS_S, [])
    warm = len(made)
    slices = {warm + 7, warm + 31}  # passes that waited for a time slice
    found, said, _ = served(lambda i: PASS_S + (4e-3 if i in slices else 0), [(50, True)])
    assert found["samples_s"] == pytest.approx([PASS_S])
    assert said[1]["seconds"] == pytest.approx(50 * PASS_S + 8e-3), "the parent hears what really went by"


def test_what_every_pass_costs_is_in_every_sample(served: Served) -> None:
    slow, fast = (served(lambda i, c=cost: c, [(40, True)])[0]["samples_s"] for cost in (1.1e-3, 1e-3))
    assert slow[0] / fast[0] == pytest.approx(1.1)
