"""What became of a question that was put to a child."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a question.

    ``ended`` is ``answered`` (see ``answer``), ``timeout``, ``memory`` (killed for its resident
    size), ``until`` (the run's own time was up) or ``died``; ``stage`` is where it was.
    """

    ended: str
    answer: Mapping[str, Any] = field(default_factory=dict)
    stage: str = "load"
    reason: str = ""
    server: str = ""  # whose child it was


def with_cause(outcome: Outcome, ended: Mapping[str, Any]) -> Outcome:
    """A death explained by its exit code or signal."""
    if outcome.ended != "died" or ended.get("forced"):
        return outcome
    if ended.get("signal"):
        name = signal.Signals(ended["signal"]).name
        return replace(outcome, reason=f"killed by signal {ended['signal']} ({name})")
    return replace(outcome, reason=f"ended with exit code {ended['code']}") if "code" in ended else outcome
