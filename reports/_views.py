"""What goes into one table or one figure: the cells of one setting, along one axis.

Lengths and widths are axes to look along; every other axis that a run varied (mode, dtype, threads, ...)
splits it into views, and the whole setting stands in each title. Cells that lie on no line of at least two
lengths or widths come as views of single points (``along`` is empty).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from effbench.frame import AXES, Run
from effbench.lines import Row, once_a_run, rows_of
from effbench.words import said, setting_title

#: The axes along which there are scaling tables and plots, and how they are called.
ALONG = {"seq": "sequence length", "dim": "width"}


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


def setting_text(row: Mapping[str, Any], varying: Sequence[str]) -> str:
    """One cell in words: its length, its width and what else varied in the run."""
    axes = dict.fromkeys(("seq", "dim", *varying))
    return " · ".join(said(axis, row[axis]) for axis in axes)


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


def named_apart(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """A suffix for each setting, fit for a file name: the axes that differ among them, with their values."""
    differing = [
        axis for axis in (settings[0] if settings else {}) if len({str(s[axis]) for s in settings}) > 1
    ]
    found: list[str] = []
    for setting in settings:
        suffix = "".join(f"-{axis}-{_plain(setting[axis])}" for axis in differing)
        found.append(suffix if suffix not in found else f"{suffix}-{len(found)}")
    return found


def _named(along: str, kept: list[tuple[dict[str, Any], list[Row]]]) -> list[View]:
    """Views whose suffixes name the axes that differ among them."""
    suffixes = named_apart([setting for setting, _ in kept])
    return [
        View(along, setting, rows, suffix) for (setting, rows), suffix in zip(kept, suffixes, strict=True)
    ]


def _plain(value: Any) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", str(value)).strip("-").lower()[:40]
