"""Two runs against each other, row by row: what became slower or bigger, and what broke.

Times count only beyond a practical threshold *and* with a bootstrap interval of the ratio clear of it, and
only between rows of one environment; memory, FLOPs and instructions are near-exact and count on any machine.
A row that is missing or failed on one side is never green. The thresholds stand in ``metrics.METRICS``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pandas as pd

from effbench.frame import Run
from effbench.judgement import EXCLUDED, USUAL, Call, Judgement, Rules, Verdict
from effbench.metrics import Gate, size_label
from effbench.paired import Paired
from effbench.stats import ratio_interval

#: The metrics that are compared, in this order.
COMPARED = ("time_s", "instructions", "alloc_bytes", "peak_bytes", "state_bytes", "flops")
#: Statuses that say the same: too large for this machine and these limits.
_RAN_OUT = frozenset({"oom", "oom-predicted", "timeout", "skipped"})
#: Statuses that are the mechanism's own fault.
_AT_FAULT = frozenset({"incorrect", "error", "crashed"})


def judge(base: Run, head: Run, rules: Rules = USUAL) -> Verdict:
    """Compares every cell that either run planned."""
    sides = _rows(base), _rows(head)
    named = {
        cell_id: label
        for run in (head, base)
        for cell_id, label in zip(run.frame["id"], labels(run), strict=True)
    }
    paired = Paired(base, head, rules, {**sides[0], **sides[1]})
    found: list[Judgement] = []
    for cell_id in dict.fromkeys([*sides[0], *sides[1]]):
        before, after = sides[0].get(cell_id), sides[1].get(cell_id)
        mechanism = (after or before or {})["mechanism"]
        blank = Judgement(cell_id, named[cell_id], "status", "same", "", mechanism=mechanism)
        call, why = _row_call(before, after)
        if call is None and before and after:
            for metric in COMPARED:
                one = replace(blank, metric=metric, base=_number(before[metric]), head=_number(after[metric]))
                if one.base is not None or one.head is not None:
                    found.append(_metric(one, (base, head), (before, after), rules, paired))
        else:
            found.append(replace(blank, call=call or "same", why=why))
    return Verdict([one.excuse(rules) for one in found])


def suspects(verdict: Verdict) -> dict[str, set[str]]:
    """Cell id -> metrics, of what looks worse or is undecided in a verdict on pairs: to be measured again."""
    found: dict[str, set[str]] = {}
    for one in verdict.judgements:
        if one.metric != "status" and one.call in ("bigger", "inconclusive"):
            found.setdefault(one.id, set()).add(one.metric)
    return found


def _number(value: Any) -> float | None:
    return None if pd.isna(value) else float(value)


def _rows(run: Run) -> dict[str, dict[str, Any]]:
    """The frame's rows by id, with the state of decoding and the id of the cell that caused a status."""
    found: dict[str, dict[str, Any]] = {}
    for row in run.frame.assign(state_bytes=run.values("state_bytes")).to_dict("records"):
        answer = run.answer(row["id"])
        named = {str(column): value for column, value in row.items()}
        found[row["id"]] = {**named, "caused_by": answer.caused_by if answer else ""}
    return found


def _row_call(base: dict[str, Any] | None, head: dict[str, Any] | None) -> tuple[Call | None, str]:
    """What the rows say before any number is looked at; None where both have numbers."""
    if head is None:
        return "gone", "head did not plan this cell"
    if base is None:
        failed = head["status"] in _AT_FAULT
        return ("broke" if failed else "new"), f"base did not plan this cell; head {_ending(head)}"
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
    one: Judgement,
    runs: tuple[Run, Run],
    rows: tuple[dict[str, Any], dict[str, Any]],
    rules: Rules,
    paired: Paired,
) -> Judgement:
    """One metric of a cell that has numbers on both sides, this one on one side at least."""
    if one.base is None:
        return replace(one, call="new", why="base has no number")
    if one.head is None:
        return replace(one, call="inconclusive", why="head has no number")
    gate = rules.gate(one.mechanism, one.metric)
    if not gate.interval:
        call, why = _near_exact(one.base, one.head, gate)
        one = replace(one, call=call, why=why)
    elif rows[0]["environment"] != rows[1]["environment"]:
        why = f"environments differ: {rows[0]['environment']} and {rows[1]['environment']}"
        if not rules.advisory:
            return replace(one, call="incomparable", why=why)
        return replace(_unpaired(one, runs, gate.relative), excused=f"advisory only: {why}")
    elif one.id in paired:
        one = paired.judge(one)
    else:
        one = _unpaired(one, runs, gate.relative)
    if one.call in ("faster", "smaller") and (one.ratio or 0) * rules.too_good < 1:
        why = f"an improvement beyond a factor of {rules.too_good:g} is rather a mistake"
        return replace(one, call="inconclusive", why=why)
    return one


def _unpaired(one: Judgement, runs: tuple[Run, Run], threshold: float) -> Judgement:
    """Time of two runs that were measured one after the other."""
    groups = [run.samples(one.id) for run in runs]
    spreads = [run.spread.alone(side) for run, side in zip(runs, groups, strict=True)]
    found = ratio_interval(groups[0], groups[1], spreads[0], spreads[1])
    slower = [run.hindered(one.id) for run in runs]
    seen = " and ".join(f"{sum(map(len, side))} passes in {len(side)} processes" for side in groups)
    if found is None:
        why = f"{seen}: one process on a side says nothing about how processes differ"
        return replace(one, call="inconclusive", why=why)
    low, high = found[0] / slower[1], found[1] * slower[0]
    call, why = _timed(one.ratio or 0.0, low, high, threshold)
    slowed = "; the cores were below their best" if max(slower) > 1 else ""
    return replace(one, call=call, why=f"{why}; {seen}{slowed}", low=low, high=high)


def _near_exact(base: float, head: float, gate: Gate) -> tuple[Call, str]:
    """Memory, FLOPs and instructions."""
    margin = gate.relative * base + gate.absolute
    allowed = f"the tolerance is {gate.relative:.4%} of base" + (
        f" + {gate.absolute:.0f}" if gate.absolute else ""
    )
    if head > base + margin:
        return "bigger", f"grew by {head - base:.6g}; {allowed}"
    if head < base - margin:
        return "smaller", f"shrank by {base - head:.6g}; {allowed}"
    return "same", f"differs by {head - base:.6g}; {allowed}"


def _timed(ratio: float, low: float, high: float, threshold: float) -> tuple[Call, str]:
    """Times, by the interval of head / base."""
    slow, fast = 1 + threshold, 1 / (1 + threshold)
    limits = f"[{low:.4g}, {high:.4g}], thresholds {fast:.3f} and {slow:.3f}"
    if low > slow:
        return "slower", f"the interval {limits} lies above"
    if high < fast:
        return "faster", f"the interval {limits} lies below"
    if not fast <= ratio <= slow:
        return "inconclusive", f"the ratio passes a threshold and the interval {limits} does not"
    if high > 1 + EXCLUDED * threshold:
        return "inconclusive", f"the interval {limits} does not leave out {EXCLUDED * threshold:.0%} more"
    return "same", f"the ratio lies within the thresholds, interval {limits}"


def labels(run: Run) -> list[str]:
    """Each row in a few words: mechanism, sizes, and what else varied."""
    others = [axis for axis in run.varying if axis not in ("seq", "dim")]
    return [
        " ".join(
            [label, f"seq={size_label(row['seq'])}", f"dim={row['dim']}", *(f"{a}={row[a]}" for a in others)]
        )
        for label, row in zip(run.series, run.frame.to_dict("records"), strict=True)
    ]
