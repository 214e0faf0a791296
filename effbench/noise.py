"""The noise of this machine: how far apart two equal sides of a gate come out, for each cell.

The file holds the floors of every environment that they were measured in, so that a gate reads those of the
machine that it runs on and no others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from effbench.errors import BadInput
from effbench.frame import Run
from effbench.judgement import Rules
from effbench.paired import ACCUSING
from effbench.pairs import floor, log_ratio
from effbench.record import SCHEMA
from effbench.verdict import labels


@dataclass(frozen=True)
class Floor:
    """A cell, and the relative difference in time that it shows with nothing changed."""

    id: str
    cell: str
    value: float
    threshold: float

    @property
    def gateable(self) -> bool:
        """Whether a slowdown of the threshold can be told from noise."""
        return self.value <= self.threshold


def floors_of(base: Run, head: Run, rules: Rules) -> list[Floor]:
    """The floors of two runs of equal trees, the noisiest first; cells without two pairs have none."""
    found = []
    for label, row in zip(labels(head), head.frame.to_dict("records"), strict=True):
        logs = [log_ratio(*samples) for samples in head.pairs(base, row["id"]).values()]
        if len(logs) > 1:
            threshold = rules.gate(row["mechanism"], "time_s").relative
            found.append(Floor(row["id"], label, floor(logs, ACCUSING), threshold))
    return sorted(found, key=lambda one: -one.value)


def write_floors(file: Path, environment: str, floors: list[Floor]) -> None:
    """Keep the floors of an environment beside those of others; a cell measured again has its new one."""
    kept = _read(file)
    kept.setdefault(environment, {}).update({one.id: one.value for one in floors})
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"schema": SCHEMA, "floors": kept}, indent=1) + "\n")


def read_floors(file: Path) -> Mapping[str, Mapping[str, float]]:
    """Environment -> cell id -> floor; nothing where there is no such file."""
    return _read(file)


def _read(file: Path) -> dict[str, dict[str, float]]:
    if not file.exists():
        return {}
    try:
        content: Any = json.loads(file.read_text())
        return {
            place: {i: float(v) for i, v in floors.items()} for place, floors in content["floors"].items()
        }
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadInput(f"{file} holds no noise floors: {error!r}; `effbench noise` writes it anew") from None
