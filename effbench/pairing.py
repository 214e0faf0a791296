"""A pair: one cell visited on both sides at a time, their passes taking turns.

What disturbs the machine then disturbs both alike: the ratio of turns that alternate between two processes
varies by about 1 % where the times themselves vary by 10 % and more. The order is A B B A, so that each side
follows itself as often as the other, and each pair is led by the other side than the pair before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, TypeVar

from effbench.processes import Conversation
from effbench.record import Record
from effbench.visit import Visit

Answer = TypeVar("Answer")

#: Seconds that a turn takes at least, so that what the other side left in the caches is a small part of it.
TURN_S = 0.02
#: Seconds between turns of several threads: OpenMP's of the side that is done spin for up to 8 ms before they
#: sleep, and would take a core from the other side. One thread leaves nobody behind.
PAUSE_S = 0.012
#: Turns come in fours, two a side: so many of them within these seconds.
FOURS, FOURS_S = (3, 6), 0.4


def visit_pair(visits: tuple[Visit, Visit], *, whole: bool, memory: bool = False) -> tuple[Record, Record]:
    """The records of a pair of visits, base first; a ``whole`` one checks, counts and takes ``memory`` too.

    A side that fails ends with its failure, and the other is measured alone, so that it is seen to work.
    """

    def before(visit: Visit) -> Record | None:
        return (visit.check() or visit.predict()) if whole else None

    def after(visit: Visit, failure: Record | None) -> Record:
        if not failure and (whole or memory):
            failure = visit.memory(False)
        if not failure and whole:
            failure = visit.instruct(False) or visit.count()
        return failure or visit.record("ok")

    ended = side_by_side(before, visits)
    if not any(ended):
        ended = _take_turns(visits)
    pair = visits[0].round
    turns = not any(ended) and all(visit.timed for visit in visits)
    ended = [
        failure or (None if visit.timed else visit.time(False))
        for visit, failure in zip(visits, ended, strict=True)
    ]
    base, head = (
        record.model_copy(update={"pair": pair if turns or not record.time else None, "side": side})
        for record, side in zip(side_by_side(after, visits, ended), ("base", "head"), strict=True)
    )
    return base, head


def side_by_side(do: Callable[..., Answer], *sides: Sequence[Any]) -> list[Answer]:
    """``do`` of both sides at once, for what is not timed: each side has processes of its own.

    After an interrupt nothing is waited for: what still runs ends with the sides' servers.
    """
    threads = ThreadPoolExecutor(len(sides[0]))
    try:
        return list(threads.map(do, *sides))
    finally:
        threads.shutdown(wait=False)


def _take_turns(visits: Sequence[Visit]) -> list[Record | None]:
    """Time two visits; for each, None or the record of its failure."""
    leader = visits[0].round % 2
    warm = all(visit.heap_fits() for visit in visits)
    allocator = visits[0].cell.allocator if warm else "default"
    with ExitStack() as stack:
        both = [stack.enter_context(_begin(visit, allocator)) for visit in visits]
        pause = PAUSE_S if visits[0].cell.threads > 1 else 0.0
        _alternate(both, leader, pause, visits[0].visitor.budget.cell_timeout)
    return [
        visit.take_time(conversation.outcome, allocator)
        for visit, conversation in zip(visits, both, strict=True)
    ]


def _begin(visit: Visit, allocator: str) -> Conversation:
    return visit.visitor.begin(
        "time",
        visit.cell,
        "turns",
        replicate=visit.round,
        allocator=allocator,
        spec=visit.description.spec,
        until=visit.until,
        **visit.visitor.budget.limits(visit.cell, allocator),
    )


def _alternate(both: Sequence[Conversation], leader: int, pause: float, patience: float) -> None:
    """Let two children take turns, and hear their answers."""
    first, second = both[leader], both[1 - leader]
    warm = [conversation.listen() for conversation in both]
    seconds = [part["pass_s"] for part in warm if part]
    if len(seconds) == 2:
        # They warmed up at the same time: one turn each, alone, tells how long a pass really takes.
        # The leader's comes last: its first kept turn then follows its own, as in every later four.
        passes = _passes(seconds)
        alone = [_turn(conversation, passes, pause, patience, keep=False) for conversation in (second, first)]
        seconds = [taken / passes for taken in alone if taken]
    if len(seconds) == 2:
        passes = _passes(seconds)
        least, most = FOURS
        fours = min(most, max(least, int(FOURS_S / (4 * passes * max(seconds) + 4 * pause))))
        turns = (first, second, second, first) * fours
        all(_turn(conversation, passes, pause, patience) for conversation in turns)  # stops where one fails
    for conversation in both:
        conversation.say({"passes": 0, "keep": False}, allow=patience)
        conversation.listen()


def _passes(seconds: Sequence[float]) -> int:
    return max(1, math.ceil(TURN_S / max(min(seconds), 1e-9)))


def _turn(
    conversation: Conversation, passes: int, pause: float, patience: float, *, keep: bool = True
) -> float | None:
    """Seconds of one turn; None where the child failed."""
    time.sleep(pause)
    conversation.say({"passes": passes, "keep": keep}, allow=patience + 2)
    part = conversation.listen()
    return part["seconds"] if part else None
