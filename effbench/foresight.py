"""The next cell's prediction, asked while this one's memory is measured: neither of the two is a time.

They are children of different servers, and each has its limits. Nothing is asked beside a time, and on one
core nothing beside anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from effbench.cell import Cell, usable_cores
from effbench.effort import COUNT_S
from effbench.outcome import Outcome
from effbench.processes import Conversation

_BESIDE = 1 << 30  # bytes that it may take: fake tensors have none, and the other question has the rest
Begin = Callable[..., Conversation]


@dataclass(frozen=True)
class Prediction:
    """The question for the counts of a cell on fake tensors, which may take so many seconds."""

    cell: Cell
    spec: str
    seconds: float = COUNT_S

    def begin(self, begin: Begin, **more: Any) -> Conversation:
        """Put it to a child."""
        return begin("counts", self.cell, "counts", spec=self.spec, count_seconds=self.seconds, **more)


class Foresight:
    """Knows one answer at most before it is asked for."""

    def __init__(self) -> None:
        self._known: tuple[Prediction, Outcome] | None = None

    @contextmanager
    def beside(self, cell: Cell, ahead: Prediction | None, begin: Begin, **more: Any) -> Iterator[None]:
        """Has ``ahead`` answered while the block measures the memory of a cell; its child is gone then.

        Nothing where there is none, on one core, and on a GPU, whose memory is read for all processes.
        """
        self._known = None
        if ahead is None or usable_cores() == 1 or not ahead.cell.device == cell.device == "cpu":
            yield
            return
        with ahead.begin(begin, memory_limit=_BESIDE, **more) as conversation:
            yield
            conversation.listen()
        if _stands(conversation.outcome):
            self._known = ahead, conversation.outcome

    def answer(self, asked: Prediction, begin: Begin, **more: Any) -> Outcome:
        """What is known already, or what a child answers that has all memory."""
        known, self._known = self._known, None
        if known is not None and known[0] == asked:
            return known[1]
        with asked.begin(begin, **more) as conversation:
            conversation.listen()
        return conversation.outcome


def _stands(outcome: Outcome) -> bool:
    """Whether it would have come out so with nothing beside it, too."""
    return outcome.ended == "timeout" or (
        outcome.ended == "answered" and outcome.answer.get("status") != "oom"
    )
