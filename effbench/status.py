"""Turns what became of a question into a status, a stage and a reason."""

from __future__ import annotations

from effbench.outcome import Outcome
from effbench.record import Status


def judge(outcome: Outcome) -> tuple[Status, str, str]:
    """(status, stage, reason) of what became of a question."""
    stage, reason = outcome.stage, outcome.reason
    if outcome.ended == "answered":
        answer = outcome.answer
        return answer["status"], "" if answer["status"] == "ok" else stage, answer.get("reason", "")
    if outcome.ended == "until":
        return "skipped", stage, "budget"
    if outcome.ended == "memory":
        return "oom", stage, reason
    if stage == "load":
        return (
            "error",
            stage,
            f"importing it {reason}" if outcome.ended == "timeout" else f"on import: {reason}",
        )
    return ("timeout" if outcome.ended == "timeout" else "crashed"), stage, reason
