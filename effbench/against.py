"""Each mechanism of a run against a baseline: from which length or width on it is faster, from which smaller.

Only rows that may support a finding are used, and only pairs whose matrix products came from one provider:
who multiplies is worth a factor of two, and no merit of a mechanism. Pairs of different providers are
compared all the same, but apart (``other_product``), next to the same mechanism against exact attention on
its own provider.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from effbench.crossover import Crossing, Overtaking, overtaking
from effbench.frame import Run
from effbench.lines import ALONG, Line, Row, Setting, once_a_run, settings
from effbench.metrics import METRICS, step_label
from effbench.plausibility import by_one_pass, on_slowed_cores, sound
from effbench.stats import ratio_interval
from effbench.words import listed

#: What is compared, and what a mechanism is called that costs less of it.
COMPARED = {"time_s": "faster", "total_bytes": "smaller"}
#: Exact attention that can use any provider.
TILED = "mha-tiled"


@dataclass(frozen=True, eq=False)
class Rivalry:
    """One mechanism against the baseline in one setting, by one metric."""

    setting: Setting
    line: Line
    baseline: Line
    metric: str
    found: Overtaking  # over the sizes that both have; no size where they share none
    other_product: Overtaking | None = None  # over the sizes at which different providers multiplied
    tiled: Overtaking | None = None  # where there are such: against TILED on the same provider

    @property
    def is_finding(self) -> bool:
        return bool(self.found.sizes)

    @property
    def caveat(self) -> str:
        """At which of the sizes a single pass or slowed cores had to do, in words; empty where at none."""
        if self.metric != "time_s":
            return ""
        asked = {"one pass only": by_one_pass, "cores slowed": on_slowed_cores}
        return "; ".join(f"{words} at {at}" for words, is_so in asked.items() if (at := self._where(is_so)))

    def _where(self, is_so: Callable[[Row], bool]) -> str:
        """The sizes found at which something is so of one of the two."""
        rows, along = (*self.line.rows, *self.baseline.rows), self.line.along
        sizes = {row[along] for row in rows if is_so(row)}
        found = [step_label(along, size) for size in self.found.sizes if size in sizes]
        if len(found) == len(self.found.sizes) > 2:
            return "every size"
        return listed(found) if found else ""


def default_baseline(run: Run) -> str:
    """The run's baseline where it holds it; empty where there is none."""
    name = str(run.info.get("baseline") or "")
    return name if name in set(run.frame["mechanism"]) else ""


@once_a_run
def rivalries(run: Run) -> list[Rivalry]:
    """Every mechanism against the run's baseline, in every setting with several lengths, then widths."""
    baseline = default_baseline(run)
    found = []
    for setting in (setting for along in ALONG for setting in settings(run, along)):
        # The first in the order of the plan, where the baseline's options vary.
        base = next((line for line in setting.lines if line.mechanism == baseline), None)
        tiled = next((line for line in setting.lines if line.mechanism == TILED), None)
        for line in setting.lines:
            if base is not None and line.series != base.series:
                found += [_rivalry(run, setting, line, base, tiled, metric) for metric in COMPARED]
    return found


def _rivalry(run: Run, setting: Setting, line: Line, base: Line, tiled: Line | None, metric: str) -> Rivalry:
    pairs = _pairs(line, base, metric)
    same = [pair for pair in pairs if same_product(run, *pair)]
    others = [pair for pair in pairs if not same_product(run, *pair)]
    found = met(run, same, metric, line.along)
    if not others:
        return Rivalry(setting, line, base, metric, found)
    exact = [] if tiled is None or tiled is line else _pairs(line, tiled, metric)
    exact = [pair for pair in exact if same_product(run, *pair)]
    return Rivalry(
        setting,
        line,
        base,
        metric,
        found,
        met(run, others, metric, line.along),
        met(run, exact, metric, line.along) if exact else None,
    )


def _pairs(line: Line, base: Line, metric: str) -> list[tuple[Row, Row]]:
    """Sound rows of both at one size: (the mechanism's, the baseline's). A time needs an interval."""
    needed = "time_low_s" if metric == "time_s" else metric
    own, other = (
        {row[line.along]: row for row in one.rows if sound(row, metric) and pd.notna(row[needed])}
        for one in (line, base)
    )
    return [(own[size], other[size]) for size in own if size in other]


def same_product(run: Run, row: Row, other: Row) -> bool:
    """Whether one provider multiplied matrices for both; what multiplies none agrees with everybody."""
    ours, theirs = product_of(run, row["id"]), product_of(run, other["id"])
    return ours == theirs or not (ours and theirs)


def product_of(run: Run, cell_id: str) -> str:
    """Who multiplied matrices in a cell: ``torch``, ``onednn``, ``torch+onednn``; empty where nobody did.

    What a mechanism multiplies by itself is torch's.
    """
    answer = run.answer(cell_id)
    if answer is None:
        return ""
    flops = answer.flops
    work = (flops and (flops.counted or flops.formula)) or {}
    return "+".join(answer.providers) or ("torch" if work.get("matmul") else "")


def met(run: Run, pairs: Sequence[tuple[Row, Row]], metric: str, along: str) -> Overtaking:
    """What becomes of the ratio of pairs of rows, (one's, the other's), over their sizes."""
    ratios = [own[metric] / base[metric] for own, base in pairs]
    intervals = [ratio_of(run, own, base, metric) for own, base in pairs]
    return overtaking([own[along] for own, _ in pairs], ratios, intervals)


def ratio_of(run: Run, row: Row, base: Row, metric: str) -> tuple[float, float]:
    """The 95 % interval of row / base; nan where nothing is known of how processes differ.

    Where the cores were below their best, it allows for either of the two having been hindered alone.
    Memory is near-exact: what the gate would let pass decides nothing, and nothing is known where a pass took
    no more than the meter sees.
    """
    if metric == "time_s":
        samples = run.samples(base["id"]), run.samples(row["id"])
        spreads = run.spread.of(samples[0]), run.spread.of(samples[1])
        low, high = ratio_interval(*samples, *spreads) or (math.nan, math.nan)
        return low / run.hindered(row["id"]), high * run.hindered(base["id"])
    gate = METRICS["peak_bytes"].gate
    assert gate is not None
    margin = sum(gate.relative * one["peak_bytes"] + gate.absolute for one in (row, base))
    if min(row[metric], base[metric]) <= 0:
        return math.nan, math.nan
    ratio, share = row[metric] / base[metric], margin / min(row[metric], base[metric])
    return ratio / (1 + share), ratio * (1 + share)


def function_of(run: Run, mechanism: str) -> str:
    """The name of what a mechanism computes: its own, or that of the one it declares itself the same as."""
    about: dict[str, Any] = run.info.get("mechanisms", {}).get(mechanism, {})
    return str(about.get("same_as") or mechanism)


def same_function(run: Run, mechanism: str, other: str) -> bool:
    """Whether two mechanisms can be exchanged without training."""
    return function_of(run, mechanism) == function_of(run, other)


def verdict(found: Overtaking, word: str, along: str = "seq") -> str:
    """In words: where it becomes cheaper, where dearer again, and where there is nothing to find.

    Args:
        word: what is said of a mechanism that costs less: ``faster``, ``smaller``.
        along: what the sizes are: lengths (``seq``) or widths (``dim``).
    """
    noun = {"seq": "length", "dim": "width"}[along]
    if not found.sizes:
        return f"no {noun} with sound numbers on both sides"
    if found.crossings:
        return "; ".join(_said(crossing, word, along) for crossing in found.crossings)
    signs = set(found.signs)
    if signs == {-1} and len(found.sizes) > 1:
        return f"{word} at every {noun} measured ({_reach(found.sizes, along)})"
    if signs == {0}:
        return f"no difference seen ({_reach(found.sizes, along)})"
    if -1 not in signs:
        return f"not {word}: none up to {step_label(along, int(found.sizes[-1]))}"
    if len(list(groupby(found.signs))) == 2 and found.cheaper_from is not None:
        return f"{word} from {step_label(along, int(found.cheaper_from))} on; no difference seen below"
    return "; ".join(_part(sign, sizes, word, along) for sign, sizes in _parts(found))


def _parts(found: Overtaking) -> Iterator[tuple[int, list[float]]]:
    """Neighbouring sizes of one sign."""
    for sign, pairs in groupby(zip(found.signs, found.sizes, strict=True), key=lambda pair: pair[0]):
        yield sign, [size for _, size in pairs]


def _part(sign: int, sizes: Sequence[float], word: str, along: str) -> str:
    return f"{word if sign else 'no difference seen'} at {_reach(sizes, along)}"


def _reach(sizes: Sequence[float], along: str) -> str:
    first, last = (step_label(along, int(sizes[end])) for end in (0, -1))
    return first if first == last else f"{first} to {last}"


def brief(found: Overtaking, along: str = "seq") -> str:
    """Where it becomes cheaper, in as few words as fit a column."""
    cheaper = [crossing for crossing in found.crossings if crossing.to == "cheaper"]
    if cheaper:
        dearer = len(found.crossings) - len(cheaper)
        more = " …" if dearer or len(cheaper) > 1 else ""
        kind = ", extrapolated" * (cheaper[0].kind == "extrapolated")
        return f"≈ {about(cheaper[0].at, along)}{kind}{more}"
    if not found.sizes:
        return "not known"
    if found.crossings:
        return f"up to ≈ {about(found.crossings[0].at, along)} only"
    first, last = (step_label(along, int(found.sizes[end])) for end in (0, -1))
    if set(found.signs) == {-1}:
        return f"{first}, the {'shortest' if along == 'seq' else 'narrowest'}"
    if found.signs[-1] >= 0 and -1 in found.signs:
        cheapest = max(size for size, sign in zip(found.sizes, found.signs, strict=True) if sign < 0)
        return f"up to {step_label(along, int(cheapest))} only"
    return f"none up to {last}" if found.cheaper_from is None else step_label(along, int(found.cheaper_from))


def _said(crossing: Crossing, word: str, along: str) -> str:
    high = "" if math.isnan(crossing.high) else about(crossing.high, along)
    low = about(crossing.low, along)
    interval = f"({low}–{high})" if high else f"({low} or more)"
    beyond = word if crossing.to == "cheaper" else f"no longer {word}"
    return f"{beyond} from ≈ {about(crossing.at, along)} {interval}, {crossing.kind}"


def about(size: float, along: str = "seq") -> str:
    """A length to three digits, as people say it, or a width: 107, 5.21K, 81.9K; 1782."""
    if along == "dim":
        return f"{size:.0f}"
    for suffix, factor in (("M", 1024**2), ("K", 1024)):
        if size >= factor:
            return f"{float(f'{size / factor:.3g}'):g}{suffix}"
    return f"{size:.0f}"
