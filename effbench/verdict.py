"""Two runs against each other, row by row: what became slower or bigger, and what broke.

Times count only beyond a practical threshold *and* with a bootstrap interval of the ratio clear of it, and
only between rows of one environment; memory and FLOPs are near-exact and count on any machine. A row that
is missing or failed on one side is never green. The thresholds stand in ``metrics.METRICS``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from tabulate import tabulate

from effbench.frame import Run
from effbench.metrics import METRICS, Gate, size_label
from effbench.stats import ratio_interval

Call = Literal[
    "same",
    "faster",
    "slower",
    "bigger",
    "smaller",
    "broke",
    "fixed",
    "new",
    "gone",
    "inconclusive",
    "incomparable",
]
WORSE: frozenset[Call] = frozenset({"slower", "bigger", "broke", "gone"})

#: The metrics that are compared, in this order.
COMPARED = ("time_s", "alloc_bytes", "peak_bytes", "flops")
#: An improvement beyond this factor is rather a mistake than a success.
TOO_GOOD = 4.0
#: `same` needs an interval that leaves out a slowdown of so many thresholds.
EXCLUDED = 2.0


@dataclass(frozen=True)
class Judgement:
    """What became of one metric of one cell; metric ``status`` speaks of the row as a whole."""

    id: str
    cell: str
    metric: str
    call: Call
    why: str
    base: float | None = None  # SI units
    head: float | None = None
    low: float | None = None  # the 95 % interval of head / base
    high: float | None = None

    @property
    def ratio(self) -> float | None:
        """head / base."""
        return self.head / self.base if self.base and self.head is not None else None


@dataclass(frozen=True)
class Verdict:
    """Every judgement, and what follows from them."""

    judgements: Sequence[Judgement]

    @property
    def counts(self) -> Counter[str]:
        return Counter(judgement.call for judgement in self.judgements)

    @property
    def overall(self) -> Literal["worse", "inconclusive", "fine"]:
        """``worse`` if anything is, else ``inconclusive`` if anything is or nothing was there to judge."""
        calls = set(self.counts)
        if calls & WORSE:
            return "worse"
        return "inconclusive" if "inconclusive" in calls or not calls - {"incomparable"} else "fine"

    def table(self, explain: bool = False) -> str:
        """A table of what is not the same, worst first (of everything with ``explain``), and a last line."""
        order = {call: rank for rank, call in enumerate(_BY_WEIGHT)}
        shown = [judgement for judgement in self.judgements if explain or judgement.call != "same"]
        shown.sort(key=lambda judgement: (order[judgement.call], -abs((judgement.ratio or 1) - 1)))
        rows = [_line(judgement, explain) for judgement in shown]
        header = ["cell", "metric", "verdict", "base", "head", "head / base", *(["why"] if explain else [])]
        table = tabulate(rows, header, disable_numparse=True) + "\n\n" if rows else ""
        counted = ", ".join(f"{number} {call}" for call, number in self.counts.most_common())
        nothing = {"new", "fixed", "gone", "broke"} >= set(self.counts)
        remark = " Nothing was compared." if nothing else ""
        return f"{table}{self.overall}: {counted or 'no row on either side'}.{remark}"


#: Statuses that say the same: too large for this machine and these limits.
_RAN_OUT = frozenset({"oom", "oom-predicted", "timeout", "skipped"})
_BY_WEIGHT: tuple[Call, ...] = (
    "broke",
    "gone",
    "slower",
    "bigger",
    "inconclusive",
    "incomparable",
    "fixed",
    "new",
    "faster",
    "smaller",
    "same",
)


def judge(base: Run, head: Run) -> Verdict:
    """Compares every cell that either run planned."""
    sides = [_rows(run) for run in (base, head)]
    labels = {
        cell_id: label
        for run in (head, base)
        for cell_id, label in zip(run.frame["id"], _labels(run), strict=True)
    }
    found: list[Judgement] = []
    for cell_id in dict.fromkeys([*sides[0], *sides[1]]):
        before, after = sides[0].get(cell_id), sides[1].get(cell_id)
        call, why = _row_call(before, after)
        if call is None and before and after:
            found += [
                judgement
                for metric in COMPARED
                if (judgement := _metric(metric, cell_id, labels[cell_id], (base, head), (before, after)))
            ]
        else:
            found.append(Judgement(cell_id, labels[cell_id], "status", call or "same", why))
    return Verdict(found)


def _rows(run: Run) -> dict[str, dict[str, Any]]:
    """The frame's rows by id, each with the id of the cell that caused its status."""
    found: dict[str, dict[str, Any]] = {}
    for row in run.frame.to_dict("records"):
        answer = run.answer(row["id"])
        named = {str(column): value for column, value in row.items()}
        found[row["id"]] = {**named, "caused_by": answer.caused_by if answer else ""}
    return found


def _row_call(base: dict[str, Any] | None, head: dict[str, Any] | None) -> tuple[Call | None, str]:
    """What the rows say before any number is looked at; None where both have numbers."""
    if head is None:
        return "gone", "head did not plan this cell"
    if base is None:
        return "new", "base did not plan this cell"
    if base["status"] == head["status"] == "ok":
        return None, ""
    why = f"base {_ending(base)}; head {_ending(head)}"
    if _unanswered(head):
        return "inconclusive", why
    if _unanswered(base):
        return ("new", why) if head["status"] == "ok" else ("inconclusive", why)
    if head["status"] == "ok":
        return "fixed", why
    if base["status"] == "ok":
        return "broke", why
    alike = base["status"] == head["status"] or {base["status"], head["status"]} <= _RAN_OUT
    return ("same" if alike else "inconclusive"), why


def _unanswered(row: dict[str, Any]) -> bool:
    """Left out for want of time, or not reached yet: says nothing about the mechanism."""
    return bool(row["status"] == "skipped" and not row["caused_by"])


def _ending(row: dict[str, Any]) -> str:
    return f"{row['status']} ({row['reason']})" if row["reason"] else str(row["status"])


def _metric(
    metric: str,
    cell_id: str,
    label: str,
    runs: tuple[Run, Run],
    rows: tuple[dict[str, Any], dict[str, Any]],
) -> Judgement | None:
    """One metric of a cell that has numbers on both sides; None where neither side has this one."""
    base, head = (None if pd.isna(row[metric]) else float(row[metric]) for row in rows)
    if base is None and head is None:
        return None
    if base is None:
        return Judgement(cell_id, label, metric, "new", "base has no number", base, head)
    if head is None:
        return Judgement(cell_id, label, metric, "inconclusive", "head has no number", base, head)
    gate = METRICS[metric].gate
    assert gate is not None, f"{metric} is compared, so METRICS must give it a gate"
    if not gate.interval:
        return Judgement(cell_id, label, metric, *_near_exact(base, head, gate), base, head)
    if rows[0]["environment"] != rows[1]["environment"]:
        why = f"environments differ: {rows[0]['environment']} and {rows[1]['environment']}"
        return Judgement(cell_id, label, metric, "incomparable", why, base, head)
    groups = [run.samples(cell_id) for run in runs]
    interval = ratio_interval(groups[0], groups[1], runs[0].spread, runs[1].spread)
    seen = " and ".join(f"{sum(map(len, side))} passes in {len(side)} processes" for side in groups)
    if interval is None:
        why = f"{seen}: one process on a side says nothing about how processes differ"
        return Judgement(cell_id, label, metric, "inconclusive", why, base, head)
    call, why = _timed(head / base, *interval, gate.relative)
    return Judgement(cell_id, label, metric, call, f"{why}; {seen}", base, head, *interval)


def _near_exact(base: float, head: float, gate: Gate) -> tuple[Call, str]:
    """Memory and FLOPs."""
    margin = gate.relative * base + gate.absolute
    allowed = f"the tolerance is {gate.relative:.4%} of base" + (
        f" + {gate.absolute:.0f}" if gate.absolute else ""
    )
    if head > base + margin:
        return "bigger", f"grew by {head - base:.6g}; {allowed}"
    if head < base - margin:
        if head * TOO_GOOD < base:
            return "inconclusive", f"an improvement beyond a factor of {TOO_GOOD:g} is rather a mistake"
        return "smaller", f"shrank by {base - head:.6g}; {allowed}"
    return "same", f"differs by {head - base:.6g}; {allowed}"


def _timed(ratio: float, low: float, high: float, threshold: float) -> tuple[Call, str]:
    """Times, by the interval of head / base."""
    slow, fast = 1 + threshold, 1 / (1 + threshold)
    limits = f"[{low:.3f}, {high:.3f}], thresholds {fast:.3f} and {slow:.3f}"
    if low > slow:
        return "slower", f"the interval {limits} lies above"
    if high < fast:
        if ratio * TOO_GOOD < 1:
            return "inconclusive", f"an improvement beyond a factor of {TOO_GOOD:g} is rather a mistake"
        return "faster", f"the interval {limits} lies below"
    if not fast <= ratio <= slow:
        return "inconclusive", f"the ratio passes a threshold and the interval {limits} does not"
    if high > 1 + EXCLUDED * threshold:
        return "inconclusive", f"the interval {limits} does not leave out {EXCLUDED * threshold:.0%} more"
    return "same", f"the ratio lies within the thresholds, interval {limits}"


def _labels(run: Run) -> list[str]:
    """Each row in a few words: mechanism, sizes, and what else varied."""
    others = [axis for axis in run.varying if axis not in ("seq", "dim")]
    return [
        " ".join(
            [label, f"seq={size_label(row['seq'])}", f"dim={row['dim']}", *(f"{a}={row[a]}" for a in others)]
        )
        for label, row in zip(run.series, run.frame.to_dict("records"), strict=True)
    ]


def _line(judgement: Judgement, explain: bool) -> list[str]:
    metric = METRICS.get(judgement.metric)
    base, head = (
        "" if value is None or metric is None else metric.text(value)
        for value in (judgement.base, judgement.head)
    )
    ratio = "" if judgement.ratio is None else f"{judgement.ratio:.3f}"
    if judgement.low is not None and judgement.high is not None:
        ratio += f" [{judgement.low:.3f}, {judgement.high:.3f}]"
    title = metric.title if metric else "Status"
    why = [" ".join(judgement.why.split())] if explain or metric is None else []
    found = [judgement.cell, title, judgement.call, base, head, ratio]
    return [*found, *why] if explain else found
