"""What a reader asks of a run, as the reports and the terminal take it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from effbench.errors import BadInput
from effbench.frame import Run
from effbench.quantity import parse_bytes
from effbench.ranking import parse_point, points
from effbench.salvage import salvage


def run_as_asked(
    folder: Path,
    *,
    baseline: str | None = None,
    at: str | None = None,
    memory_limit: str | None = None,
    beside: Path | None = None,
) -> Run:
    """A run, damaged or not, whose ``info`` holds what was asked: ``baseline``, ``at`` and ``memory_limit``.

    Raises:
        BadInput: no run there, no such baseline in it, or no cell at that point.
    """
    run = salvage(folder)
    asked: dict[str, Any] = {}
    if baseline is not None:
        known = [*run.info["mechanisms"], "none"]
        if baseline not in known:
            raise BadInput(f"--baseline: {baseline!r} is none of {', '.join(known)}")
        asked["baseline"] = baseline
    if memory_limit is not None:
        asked["memory_limit"] = parse_bytes(memory_limit, where="memory-limit")
    if at is not None:
        asked["at"] = parse_point(at)
    run = replace(run, info={**run.info, **asked}, beside=salvage(beside) if beside else None)
    if at is not None:
        points(run)  # refuses a point that the run has not
    return run
