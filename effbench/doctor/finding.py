"""A finding: one thing that was looked at, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: ok: measured as intended; limited: measured, with the doubt that ``means`` states; absent: not measured.
State = Literal["ok", "limited", "absent"]


@dataclass(frozen=True)
class Finding:
    """What was found, what it means for a measurement, and what to do where it is not as it should be."""

    name: str
    state: State
    found: str
    means: str
    remedy: str = ""
