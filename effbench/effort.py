"""How each question is asked of a pass that takes so long: of several passes, of one, or not at all."""

from __future__ import annotations

from typing import Any

from effbench.cell import Cell

CHEAP_S = 0.1  # a pass that may be made some times more
SLOW_S = 0.3  # a pass whose memory is taken cold, after one at a quarter of the length
PROFILED_S = 0.5  # a pass that may be made once more under the profiler, which is slower
LONG_S = 2.0  # a pass on one thread that is not made again for its instructions
FEW_CALLS = 20_000  # the profiler keeps about 15 KB for every operator call
#: Seconds of counting on fake tensors, or this share of a pass if that is longer.
COUNT_S, COUNT_SHARE = 2.0, 0.25


def for_counts(predicted: float | None) -> float:
    """Seconds that counting on fake tensors may take, of a pass that is predicted to take so many."""
    return max(COUNT_S, COUNT_SHARE * (predicted or 0))


def for_memory(seconds: float, *, single: bool, calls: int | None) -> tuple[dict[str, Any], dict[str, str]]:
    """What is asked of the memory question, and what it leaves out, with the reason.

    ``single``: one timed pass had to do. ``calls``: operators of a pass, None where they are not known.
    """
    cold = single or seconds > SLOW_S
    left_out = {}
    if seconds >= PROFILED_S:
        left_out["alloc_bytes"] = f"a pass of over {PROFILED_S:g} s is not made again under the profiler"
    elif calls is None or calls >= FEW_CALLS:
        left_out["alloc_bytes"] = "the profiler would keep more than it measures: many operators, or unknown"
    return {"cold": cold, "repeats": 3 if seconds < CHEAP_S else 1, "alloc": not left_out}, left_out


def for_instructions(cell: Cell, seconds: float, *, single: bool) -> tuple[dict[str, Any], str]:
    """What is asked of the question for instructions; or why it is not asked.

    ``seconds``: of a pass on all the cell's threads. Instructions are counted on one.
    """
    alone = seconds * cell.threads
    if not cell.device.startswith("cpu"):
        return {}, f"what {cell.device} executes is not counted"
    if cell.compile:
        return {}, "the pass would have to be compiled once more"
    if single or alone > LONG_S:
        return {}, f"a pass of over {LONG_S:g} s on one thread is not made again"
    return {"cold": alone > SLOW_S}, ""
