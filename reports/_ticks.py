"""Ticks of logarithmic axes at numbers that people use: 1 ms, 10 ms; 16 MiB, 64 MiB; lengths as measured."""

from __future__ import annotations

import math
from collections.abc import Sequence

from effbench.metrics import METRICS, step_label

MOST = 9


def value_ticks(name: str, low: float, high: float) -> tuple[list[float], list[str]]:
    """Ticks and labels of a metric between two values: powers of two for bytes, of ten for the rest."""
    base = 2.0 if METRICS[name].unit == "B" else 10.0
    first, last = math.floor(math.log(low, base)), math.ceil(math.log(high, base))
    if base == 10 and last - first <= 2:
        ticks = [part * 10.0**power for power in range(first, last + 1) for part in (1, 2, 5)]
    else:
        stride = max(1, math.ceil((last - first + 1) / MOST))
        ticks = [base**power for power in range(first, last + 1) if power % stride == 0]
    ticks = [tick for tick in ticks if low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9)]
    return ticks, [_short(name, tick) for tick in ticks]


def step_ticks(along: str, steps: Sequence[int]) -> tuple[list[int], list[str]]:
    """The measured lengths or widths, thinned where there are too many to read."""
    stride = math.ceil(len(steps) / (MOST + 3))
    kept = list(steps)[::stride]
    return kept, [step_label(along, step) for step in kept]


def _short(name: str, value: float) -> str:
    """One tick's label: no digits that say nothing."""
    scale = METRICS[name].format([value * (1 + 1e-9)])
    return f"{value / scale.factor:.4g} {scale.unit}".strip()
