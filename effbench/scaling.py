"""How each mechanism of a run grows with length and with width, beside how it declares itself to.

Only rows that may support a finding are used. The flags that say that growth is not as declared do not take
their rows out: that is what is asked here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from effbench import fit
from effbench.cell import STEPWISE
from effbench.fit import Exponent
from effbench.frame import Run
from effbench.growth import exponents, terms
from effbench.lines import ALONG, Line, Row, Setting, once_a_run, settings
from effbench.plausibility import flags_of, sound

#: The metrics with an exponent: one timed, the others counted.
TIMED, COUNTED = "time_s", ("flops", "instructions", "alloc_bytes")
#: Which of the two declarations a metric is held against.
_DECLARED = {TIMED: "time", "flops": "time", "instructions": "time", "alloc_bytes": "memory"}
#: How far an exponent may be from what was declared: caches bend times by about a third.
_TOLERANCE = {TIMED: 0.3}
_TOLERANCE_OF_COUNTS = 0.1
_OF_GROWTH = frozenset({"off-declared", "memory-off-declared"})


@dataclass(frozen=True, eq=False)
class Growth:
    """The exponent of one metric of one series in one setting, and what was declared of it."""

    line: Line
    setting: Setting
    metric: str
    exponent: Exponent
    left_out: int  # sizes with numbers that carry a flag which puts them in doubt
    declared: str  # such as "n^2 d + n d^2"; empty where nothing is declared
    allowed: tuple[float, float]  # exponents that the declaration allows over the sizes that were used

    @property
    def mismatch(self) -> bool:
        """Whether the exponent lies outside what was declared; not known while it has not settled."""
        if not self.declared:
            return False
        margin = _TOLERANCE.get(self.metric, _TOLERANCE_OF_COUNTS)
        least, most = self.allowed[0] - margin, self.allowed[1] + margin
        found = self.exponent
        match found.trend:
            case "settled":
                return found.high < least or found.low > most
            case "rising":
                return found.local[-1] > most
            case "falling":
                return found.local[-1] < least
            case _:
                return False

    def __str__(self) -> str:
        return f"{self.exponent}{' (not as declared)' if self.mismatch else ''}"


@once_a_run
def growths(run: Run) -> list[Growth]:
    """Every exponent of a run: along lengths, then along widths."""
    return [
        growth_of(run, setting, line, metric)
        for along in ALONG
        for setting in settings(run, along)
        for metric in (TIMED, *COUNTED)
        for line in setting.lines
        if any(pd.notna(row[metric]) for row in line.rows)
    ]


def growth_of(run: Run, setting: Setting, line: Line, metric: str) -> Growth:
    """The exponent of one metric along a line."""
    known = [row for row in line.rows if pd.notna(row[metric])]
    used = [row for row in known if _usable(row, metric)]
    sizes, values = [row[line.along] for row in used], [row[metric] for row in used]
    if metric == TIMED:
        intervals = [(row["time_low_s"], row["time_high_s"]) for row in used]
        exponent = fit.from_times(sizes, values, intervals, _regimes(run, used))
    else:
        exponent = fit.from_counters(sizes, values)
    about = run.info.get("mechanisms", {}).get(line.mechanism, {})
    # What is declared is of whole sequences: it says nothing of what goes token by token.
    whole = line.rows[0]["mode"] not in STEPWISE
    declared = (about.get("complexity") or {}).get(_DECLARED[metric], "") if whole else ""
    allowed = _allowed(declared, used, line.along, exponent)
    return Growth(line, setting, metric, exponent, len(known) - len(used), declared, allowed)


def _usable(row: Mapping[str, Any], metric: str) -> bool:
    flags = ";".join(flag for flag in flags_of(row) if flag not in _OF_GROWTH)
    return sound({"status": row["status"], "flags": flags}, metric)


def _regimes(run: Run, rows: list[Row]) -> list[bool]:
    """Whether each row fits the last cache with all it holds; all alike where the cache is not known."""
    cache = run.ceilings.get("cache_bytes")
    if not cache:
        return [True] * len(rows)
    return [bool(row["live_bytes"] + row["peak_bytes"] <= cache) for row in rows]


def _allowed(declared: str, rows: list[Row], along: str, exponent: Exponent) -> tuple[float, float]:
    if not declared or exponent.trend == "none":
        return -math.inf, math.inf
    small, large = (next(row for row in rows if row[along] == size) for size in exponent.sizes)
    if not math.isfinite(exponents(declared, small, large, along)[0]):
        return -math.inf, math.inf
    # Increments, and a free constant, take out what does not grow, and lean to what grows fastest.
    alone = {term: exponents(term, small, large, along) for term in terms(declared)}
    growing = {term: part for term, part in alone.items() if part != (0, 0)}
    if not growing:
        return 0.0, 0.0
    least, most = exponents("+".join(growing), small, large, along)
    return least, max(most, *(high for _, high in growing.values()))
