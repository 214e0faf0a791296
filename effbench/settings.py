"""``[tool.effbench]`` of a project's ``pyproject.toml``: what its gate asks, and what it lets pass, and why.

An unknown key or value is refused with its place and what is accepted.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from effbench.errors import BadInput
from effbench.judgement import TOO_GOOD, Excuse, Rules
from effbench.metrics import METRICS, Gate

Metric = Literal["time_s", "instructions", "alloc_bytes", "peak_bytes", "state_bytes", "flops"]
Share = Annotated[float, Field(gt=0, lt=10)]


class Table(BaseModel):
    """A table of the settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Waiver(Table):
    """A metric of a mechanism that never counts, whatever it does; ``status`` is the row as a whole."""

    mechanism: str
    metric: Metric | Literal["status"]
    reason: str = Field(min_length=1)


class Accepted(Waiver):
    """A change that is intended: up to a ratio, and until a day on which base will hold it too."""

    up_to: float = Field(gt=1)
    expires: date


class Settings(Table):
    """All of ``[tool.effbench]``."""

    mechanisms: list[str] | None = None
    suite: str | None = None
    inconclusive: Literal["fail", "warn"] = "fail"
    too_good: float = Field(TOO_GOOD, gt=1)
    #: mechanism, or ``*`` for all others -> metric -> the relative change that counts
    thresholds: dict[str, dict[Metric, Share]] = {}
    waive: list[Waiver] = []
    accept: list[Accepted] = []

    def rules(self, floors: Mapping[str, Mapping[str, float]], *, advisory: bool = False) -> Rules:
        """What counts today."""
        today = date.today()
        gates: dict[tuple[str, str], Gate] = {
            (name, metric): _gate(metric, share)
            for name, given in self.thresholds.items()
            for metric, share in given.items()
        }
        excuses = [Excuse(mechanism=w.mechanism, metric=w.metric, reason=w.reason) for w in self.waive]
        excuses += [
            Excuse(
                mechanism=a.mechanism,
                metric=a.metric,
                reason=a.reason,
                up_to=a.up_to,
                expires=a.expires.isoformat(),
                expired=a.expires < today,
            )
            for a in self.accept
        ]
        return Rules(gates=gates, floors=floors, too_good=self.too_good, excuses=excuses, advisory=advisory)


def _gate(metric: str, share: float) -> Gate:
    usual = METRICS[metric].gate
    assert usual is not None
    return Gate(relative=share, absolute=usual.absolute, interval=usual.interval)


def read_settings(folder: Path) -> Settings:
    """The settings of the project around a folder; those of no project are the defaults.

    Raises:
        BadInput: not TOML, or something in the table is not accepted.
    """
    file = next((f for place in (folder, *folder.parents) if (f := place / "pyproject.toml").is_file()), None)
    if file is None:
        return Settings()
    try:
        given: Any = tomllib.loads(file.read_text()).get("tool", {}).get("effbench", {})
        return Settings.model_validate(given)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{file}: not TOML: {error}") from None
    except ValidationError as error:
        raise BadInput(f"{file}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"] if p != "[key]")
    if first["type"] != "extra_forbidden":
        return f"tool.effbench{place}: {first['msg']}"
    tables: dict[Any, type[BaseModel]] = {"waive": Waiver, "accept": Accepted}
    table = tables.get(first["loc"][0], Settings)
    return f"unknown key tool.effbench{place}; expected one of {', '.join(sorted(table.model_fields))}"
