"""A ranking as bars of text: full up to the low end of the interval, shaded up to the high end.

A bar twice as long costs twice as much; only where the longest would leave nothing to be seen of the shortest
is the scale logarithmic, and the chart says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console

#: The longest and the shortest room for bars, in columns; with less each stands on a line of its own.
LONGEST, SHORTEST = 40, 10
FULL, SHADED, EIGHTHS = "█", "░", " ▏▎▍▌▋▊▉"
#: A scale is logarithmic where the largest number is more than so many times the smallest.
LINEAR = 20


@dataclass(frozen=True)
class Bar:
    """One line of a chart; ``low`` and ``high`` are the ends of the interval, ``value`` where there is none.

    Without a number (nan) there is a text only.
    """

    name: str
    text: str
    low: float = math.nan
    high: float = math.nan


def begin_of(values: Sequence[float]) -> float:
    """Where bars of such numbers begin: at zero, or on a logarithmic scale somewhat below the smallest."""
    low, high = min(values), max(values)
    return 0.0 if high <= LINEAR * low else low / (high / low) ** 0.08


def drawn(bar: Bar, begin: float, largest: float, columns: int) -> str:
    """The bar itself, ``columns`` long for the largest number; at least a sliver where there is one."""

    def share(value: float) -> float:
        return math.log(value / begin) / math.log(largest / begin) if begin else value / largest

    if math.isnan(bar.high):
        return ""
    whole, rest = divmod(max(1, round(8 * columns * share(bar.low))), 8)
    solid = FULL * whole + EIGHTHS[rest] * (rest > 0)
    return solid + SHADED * (round(columns * share(bar.high)) - len(solid))


def show_bars(console: Console, title: str, groups: Sequence[tuple[str, Sequence[Bar]]]) -> None:
    """Print a chart: the groups below each other, each under its name, all on one scale."""
    bars = [bar for _, own in groups for bar in own]
    ends = [end for bar in bars for end in (bar.low, bar.high) if end > 0]
    if not ends:
        return
    begin, largest = begin_of(ends), max(ends)
    name, text = (max(len(getattr(bar, part)) for bar in bars) for part in ("name", "text"))
    room = console.width - name - text - 4
    console.print(f"{title}{' (log scale)' * (begin > 0)}", style="bold", markup=False)
    for heading, own in groups:
        if heading:
            console.print(f"  {heading}", style="italic", markup=False)
        for bar in own:
            if room >= SHORTEST:
                line = f"  {bar.name:<{name}} {drawn(bar, begin, largest, min(LONGEST, room))} {bar.text}"
            else:
                below = drawn(bar, begin, largest, max(1, min(LONGEST, console.width - 5)))
                line = f"  {bar.name} {bar.text}" + (f"\n    {below}" if below else "")
            console.print(line, markup=False, highlight=False)
