"""What goes into one table or one figure: the cells of one setting, along one axis.

Lengths and widths are axes to look along; every other axis that a run varied (mode, dtype, threads, ...)
splits it into views, and the whole setting stands in each title. Cells that lie on no line of at least two
lengths or widths come as views of single points (``along`` is empty).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from effbench.frame import AXES, Run
from effbench.lines import Row, once_a_run, rows_of
from effbench.metrics import size_label

#: The axes along which there are scaling tables and plots, and how they are called.
ALONG = {"seq": "sequence length", "dim": "width"}
#: What is said of a setting only where it is not this.
_USUAL = {
    "device": "cpu",
    "compile": False,
    "gemm": "torch",
    "precision": "highest",
    "allocator": "warm",
    "stack": "{}",
}


@dataclass(frozen=True)
class View:
    """Rows of one setting; ``setting`` holds the value of every axis that is fixed in it."""

    along: str
    setting: dict[str, Any]
    rows: Sequence[Row]  # in the order of the plan
    suffix: str  # tells the view from others along the same axis, fit for a file name

    @property
    def title(self) -> str:
        """The setting in words: ``width 256 · batch 1 · forward · ...``."""
        return setting_title(self.setting)

    @cached_property
    def steps(self) -> list[int]:
        """The lengths or widths of this view, ascending."""
        return sorted({int(row[self.along]) for row in self.rows})

    @cached_property
    def series(self) -> list[str]:
        """The mechanisms (with their varying options) in the order of the plan."""
        return list(self.by_series)

    @cached_property
    def by_series(self) -> dict[str, list[Row]]:
        """The rows of each series in the order of their steps."""
        found: dict[str, list[Row]] = {}
        for row in self.rows:
            found.setdefault(row["series"], []).append(row)
        if self.along:
            for rows in found.values():
                rows.sort(key=lambda row: int(row[self.along]))
        return found


@once_a_run
def views(run: Run) -> list[View]:
    """Every view of a run: along the length, along the width, then single points; no cell is in none."""
    found: list[View] = []
    seen: set[str] = set()
    for along in ALONG:
        kept = [
            (setting, rows)
            for setting, rows in _settings(rows_of(run), along, run.varying)
            if len({row[along] for row in rows}) > 1
        ]
        found += _named(along, kept)
        seen.update(row["id"] for _, rows in kept for row in rows)
    rest = [row for row in rows_of(run) if row["id"] not in seen]
    return found + _named("", list(_settings(rest, "", run.varying)))


def setting_title(setting: dict[str, Any]) -> str:
    """Every axis that is fixed in a setting, in words; what is as usual is left out."""
    return " · ".join(_said(axis, value) for axis, value in setting.items() if _is_said(axis, value))


def setting_text(row: Mapping[str, Any], varying: Sequence[str]) -> str:
    """One cell in words: its length, its width and what else varied in the run."""
    axes = dict.fromkeys(("seq", "dim", *varying))
    return " · ".join(_said(axis, row[axis]) for axis in axes)


def _settings(
    rows: Sequence[Row], along: str, varying: tuple[str, ...]
) -> Iterator[tuple[dict[str, Any], list[Row]]]:
    fixed = [axis for axis in ("seq", "dim", *AXES[2:]) if axis != along]
    fixed = [axis for axis in dict.fromkeys(fixed) if axis != "heads" or "heads" in varying]
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[axis] for axis in fixed), []).append(row)
    for values, own in sorted(groups.items(), key=lambda group: group[0]):
        yield dict(zip(fixed, values, strict=True)), own


def _named(along: str, kept: list[tuple[dict[str, Any], list[Row]]]) -> list[View]:
    """Views whose suffixes name the axes that differ among them."""
    differing = [axis for axis in (kept[0][0] if kept else {}) if len({str(s[axis]) for s, _ in kept}) > 1]
    found: list[View] = []
    taken: set[str] = set()
    for setting, rows in kept:
        suffix = "".join(f"-{axis}-{_plain(setting[axis])}" for axis in differing)
        suffix = suffix if suffix not in taken else f"{suffix}-{len(taken)}"
        taken.add(suffix)
        found.append(View(along, setting, rows, suffix))
    return found


def _plain(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", str(value)).strip("-").lower()[:40]


def _is_said(axis: str, value: Any) -> bool:
    return axis not in _USUAL or bool(value != _USUAL[axis])


def _said(axis: str, value: Any) -> str:
    match axis:
        case "seq":
            return f"length {size_label(int(value))}"
        case "dim":
            return f"width {value}"
        case "causal":
            return "causal" if value else "not causal"
        case "threads":
            return f"{value} thread{'' if value == 1 else 's'}"
        case "heads":
            return f"{value} head{'' if value == 1 else 's'}"
        case "batch" | "gemm" | "precision" | "allocator":
            return f"{axis} {value}"
        case "compile":
            return "compiled" if value else "eager"
        case "stack":
            parts = json.loads(value).items()
            return " ".join(f"{name.replace('_', '-')} {part}" for name, part in parts) or "no stack"
        case "level":
            return f"{value} level"
        case _:
            return str(value)
