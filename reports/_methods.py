"""A paragraph on how a run was measured, to be pasted into a paper; every number in it is the run's own."""

from __future__ import annotations

from effbench.frame import Run
from effbench.metrics import METRICS
from effbench.words import counted

from ._machine import sentence


def methods(run: Run) -> str:
    """Plain text; what the run does not know is left out."""
    frame, limits = run.frame, run.info.get("limits", {})
    answered = frame[frame["samples"] > 0]
    parts = [
        f"Costs were measured with effbench {run.info.get('effbench', '')}".rstrip() + ".",
        sentence(run.machine),
        f"The run has {counted(len(frame), 'cell')}, {(frame['status'] == 'ok').sum()} of them with numbers.",
    ]
    if len(answered):
        processes = [len(run.samples(cell_id)) for cell_id in answered["id"]]
        parts.append(
            f"Times are medians over {_span(processes)} processes a cell of each process' median, over "
            f"{_span([int(count) for count in answered['samples']])} passes in all, with 95 % intervals from "
            "a hierarchical bootstrap over processes and blocks of passes."
        )
    visits = [visit for cell_id in answered["id"] for visit in run.visits.get(cell_id, ()) if visit.time]
    taken, kept = sum(len(visit.time.samples_s) for visit in visits if visit.time), answered["samples"].sum()
    if taken > kept:
        parts.append(
            f"Of {taken} samples {taken - int(kept)} have no say: the cores worked below their best at "
            "the time, or threads waited for one."
        )
    parts.append(
        "Memory is what was in place before the call plus the resident peak above it, measured in a process "
        "of its own. FLOPs were counted operation by operation; a multiply-add is 2."
    )
    known = [
        f"{METRICS['live_bytes'].text(limits['memory_limit'])} of memory"
        if limits.get("memory_limit")
        else "",
        f"{limits['cell_timeout']:g} s a pass" if limits.get("cell_timeout") else "",
    ]
    if any(known):
        parts.append(f"A cell was limited to {' and '.join(filter(None, known))}.")
    if run.info.get("seed") is not None:
        parts.append(f"The seed was {run.info['seed']}.")
    return " ".join(parts)


def _span(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
