"""The one table that knows each metric: its title, unit, direction, gate and format.

Values are plain SI everywhere (seconds, bytes, FLOPs); only a ``Scale`` turns them into text, and one
scale serves a whole column of a table, so that its numbers can be compared by eye.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

#: An interval with a larger half-width (share of the value) is shown by its ends.
WIDE = 0.3
#: One whose ends are so many times apart says nothing, as beside a busy core.
VAGUE = 100


@dataclass(frozen=True)
class Scale:
    """How numbers of one column are written: ``factor`` is what one displayed unit is in SI."""

    factor: float
    unit: str

    def number(self, value: float) -> str:
        """Three significant digits in this scale, without the unit and without an exponent."""
        return three_digits(value / self.factor)

    def __call__(self, value: float) -> str:
        """The number with its unit: ``12.3 ms``."""
        joint = "" if self.unit == "%" else " "
        return f"{self.number(value)}{joint}{self.unit}".rstrip()

    def interval(self, low: float, value: float, high: float) -> str:
        """Half the width of an interval in per cent; its ends where that misleads; ``±?``: says nothing."""
        if is_vague(low, high):
            return "±?"
        share = (high - low) / 2 / value
        if share >= WIDE:
            return f"[{self.number(low)}, {self.number(high)}]"
        return f"±{100 * share:.0f} %" if share >= 0.01 else f"±{100 * share:.1f} %"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """When a change counts: beyond ``relative`` of the base plus ``absolute`` (in the metric's unit).

    ``interval``: the bootstrap interval of the ratio must clear the threshold too (for times).
    """

    relative: float
    absolute: float = 0.0
    interval: bool = False


@dataclass(frozen=True, kw_only=True)
class Metric:
    """What is known of one column of numbers."""

    title: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    format: Callable[[Iterable[float]], Scale]
    gate: Gate | None = None

    def text(self, value: float) -> str:
        """One value alone, in the scale that suits it."""
        return self.format([value])(value)


def is_vague(low: float, high: float) -> bool:
    """Whether an interval says nothing: shown as ``±?``."""
    return high > VAGUE * low


def three_digits(value: float) -> str:
    """``0.150``, ``2.20``, ``10.6``, ``316``: three significant digits without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def _scales(units: Sequence[tuple[float, str]]) -> Callable[[Iterable[float]], Scale]:
    """A function that picks one of ``units`` for a whole column.

    The unit suits the middle of the column, and a larger one is taken where the largest value would
    have five digits or more.
    """

    factors = [factor for factor, _ in units]

    def pick(values: Iterable[float]) -> Scale:
        present = [abs(value) for value in values if math.isfinite(value) and value != 0]
        if not present:
            return Scale(*units[0])
        index = max(0, bisect_right(factors, median(present)) - 1)
        while index + 1 < len(units) and max(present) / units[index][0] >= 1e4:
            index += 1
        return Scale(*units[index])

    return pick


def _decimal(unit: str, prefixes: str = " kMGTPE") -> Callable[[Iterable[float]], Scale]:
    return _scales([(1000.0**power, (prefix + unit).strip()) for power, prefix in enumerate(prefixes)])


seconds = _scales([(1e-9, "ns"), (1e-6, "µs"), (1e-3, "ms"), (1.0, "s")])
binary_bytes = _scales(
    [(1024.0**power, unit) for power, unit in enumerate(("B", "KiB", "MiB", "GiB", "TiB"))]
)
percent = _scales([(0.01, "%")])

#: Name -> metric. The names are the frame's columns, and what ``Run.values`` derives.
METRICS: dict[str, Metric] = {
    "time_s": Metric(
        title="Time", unit="s", better="lower", format=seconds, gate=Gate(relative=0.05, interval=True)
    ),
    "tokens_per_s": Metric(title="Throughput", unit="tokens/s", better="higher", format=_decimal("tokens/s")),
    "total_bytes": Metric(title="Memory (live + peak)", unit="B", better="lower", format=binary_bytes),
    "peak_bytes": Metric(
        title="Peak memory (resident rise)",
        unit="B",
        better="lower",
        format=binary_bytes,
        gate=Gate(relative=0.03, absolute=0.5e6),
    ),
    "alloc_bytes": Metric(
        title="Memory asked for (rise)",
        unit="B",
        better="lower",
        format=binary_bytes,
        gate=Gate(relative=0.001, absolute=16 * 1024),
    ),
    "live_bytes": Metric(title="Memory in place", unit="B", better="lower", format=binary_bytes),
    "state_bytes": Metric(
        title="State of decoding", unit="B", better="lower", format=binary_bytes, gate=Gate(relative=0.001)
    ),
    "flops": Metric(
        title="FLOPs", unit="FLOP", better="lower", format=_decimal("FLOP"), gate=Gate(relative=1e-6)
    ),
    "flops_needed": Metric(title="FLOPs needed", unit="FLOP", better="lower", format=_decimal("FLOP")),
    "transcendentals": Metric(title="Transcendentals", unit="", better="lower", format=_decimal("")),
    "instructions": Metric(
        title="Instructions", unit="", better="lower", format=_decimal(""), gate=Gate(relative=0.005)
    ),
    "bytes_moved": Metric(title="Bytes moved", unit="B", better="lower", format=binary_bytes),
    "flops_per_s": Metric(title="Achieved rate", unit="FLOP/s", better="higher", format=_decimal("FLOP/s")),
    "ceiling_fraction": Metric(title="Share of the ceiling", unit="", better="higher", format=percent),
    "params": Metric(title="Parameters", unit="", better="neither", format=_decimal("")),
}


def size_label(size: int) -> str:
    """A length or width as people say it: 1024 -> ``1K``, 65536 -> ``64K``, 1000 -> ``1000``."""
    for suffix, factor in (("M", 1024**2), ("K", 1024)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{suffix}"
    return str(size)


def step_label(along: str, size: float) -> str:
    """A length (``along`` is ``seq``) as people say it, a width as it is."""
    return size_label(int(size)) if along == "seq" else str(int(size))
