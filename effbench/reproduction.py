"""Each claim held against a run: holds, does not hold, or cannot be compared, and why.

A ratio holds where its whole interval lies within what the claim allows, and does not hold where all of it
lies outside; an interval across a bound decides nothing. An exponent likewise, by its range. An order holds
where every pair of neighbouring groups is decidedly in it, and does not where a pair is decidedly not. What
comes sooner does so where its whole interval of lengths is at or below the other's.
Nothing rests on a cell that failed or carries a flag which puts the number in doubt.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Literal

from effbench.claim import TIMED, Beside, Claim, Growth, Order, Ratio, Reach, Sooner, Statement
from effbench.claims import Claims
from effbench.evidence import Missing, matching, not_asked, number, onset, ratio, reached, sound_row
from effbench.fit import Exponent
from effbench.frame import Run
from effbench.lines import Line, Row, Setting
from effbench.metrics import METRICS
from effbench.ranking import time_text
from effbench.scaling import growth_of

Verdict = Literal["holds", "does not hold", "not comparable"]
_OUT_OF_MEMORY = ("oom", "oom-predicted")
#: Parameters that differ by more are said beside a ratio.
_SAME_CAPACITY = 1.1


@dataclass(frozen=True)
class Shown:
    """A ratio beside the claim, in words."""

    says: str
    printed: str
    measured: str


@dataclass(frozen=True)
class Outcome:
    """What a run says to a claim; ``measured`` is empty where there is nothing, and ``reason`` says why."""

    claim: Claim
    verdict: Verdict
    printed: str
    allowed: str
    measured: str
    reason: str = ""
    also: tuple[Shown, ...] = ()


def reproduce(run: Run, claims: Claims) -> list[Outcome]:
    """What a run says to every claim, in their order."""
    return [_outcome(run, one, claims) for one in claims.claim]


def _outcome(run: Run, claim: Claim, claims: Claims) -> Outcome:
    match claim:
        case Ratio():
            found = _of_ratio(run, claim)
        case Growth():
            found = _of_growth(run, claim)
        case Order():
            found = _of_order(run, claim)
        case Reach():
            found = _of_reach(run, claim)
        case Sooner():
            found = _of_sooner(run, claim)
        case Statement():
            found = Outcome(claim, "not comparable", claim.printed, "", "")
    source = claims.sources[claim.source]
    reason = claim.not_comparable
    if isinstance(claim, Ratio) and claim.metric in TIMED and source.device == "tpu":
        reason = reason or f"printed on {source.hardware}, whose matrix units have no like here"
    if not reason:
        return found
    reason = "; ".join(filter(None, [reason, "" if found.measured else found.reason]))
    return replace(found, verdict="not comparable", reason=reason)


def _of_ratio(run: Run, claim: Ratio) -> Outcome:
    also = tuple(_beside(run, claim, one) for one in claim.also)
    printed, allowed = number(claim.printed), _span(claim.allowed)
    try:
        of, to = (sound_row(run, cell, claim.metric) for cell in (claim.of_cell, claim.to_cell))
        found = ratio(run, of, to, claim.metric)
    except Missing as missing:
        return Outcome(claim, "not comparable", printed, allowed, "", str(missing), also)
    reasons = ["different shapes, as the paper compares them"] if claim.across_shapes else []
    reasons += _capacity(of, to) if claim.metric != "params" else []
    verdict: Verdict
    if math.isnan(found.low):
        verdict = "not comparable"
        reasons.insert(0, "nothing is known of how processes differ: no cell was visited twice")
    else:
        verdict, why = _within((found.low, found.high), claim.allowed)
        reasons = [why, *reasons] if why else reasons
    return Outcome(claim, verdict, printed, allowed, str(found), "; ".join(reasons), also)


def _capacity(of: Row, to: Row) -> list[str]:
    """What is said where two blocks or models are of different capacity."""
    if not (of["level"] == to["level"] and of["level"] in ("block", "model")):
        return []
    share = of["params"] / to["params"]
    return [f"{number(share)} times the parameters"] if max(share, 1 / share) > _SAME_CAPACITY else []


def _beside(run: Run, claim: Ratio, one: Beside) -> Shown:
    printed = "" if one.printed is None else number(one.printed)
    try:
        of, to = (sound_row(run, cell, claim.metric) for cell in claim.cells_of(one))
        return Shown(one.says, printed, str(ratio(run, of, to, claim.metric)))
    except Missing as missing:
        return Shown(one.says, printed, str(missing))


def _of_growth(run: Run, claim: Growth) -> Outcome:
    printed, allowed = number(claim.printed), _span(claim.allowed)
    rows = sorted(matching(run, claim.of_cell), key=lambda row: int(row[claim.along]))
    sizes = [row[claim.along] for row in rows]
    if len(set(sizes)) < len(sizes):
        reason = f"several cells of this run are {claim.of_cell} at one {claim.along}"
        return Outcome(claim, "not comparable", printed, allowed, "", reason)
    if not rows:
        return Outcome(claim, "not comparable", printed, allowed, "", not_asked(claim.of_cell))
    line = Line(str(claim.of_cell), claim.along, tuple(map(_per_sample, rows)))
    growth = growth_of(run, Setting(claim.along, {}, (line,)), line, claim.metric)
    found = growth.exponent
    measured = "" if found.trend == "none" else f"{found} ({claim.along} {_ends(found)})"
    verdict, reason = _growth_verdict(found, claim.allowed)
    failed = ", ".join(f"{row[claim.along]}: {row['status']}" for row in rows if row["status"] != "ok")
    flagged = f"{growth.left_out} with a flag that puts them in doubt" if growth.left_out else ""
    reasons = filter(None, [reason, flagged, failed])
    return Outcome(claim, verdict, printed, allowed, measured, "; ".join(reasons))


def _ends(found: Exponent) -> str:
    return f"{found.sizes[0]:g} to {found.sizes[1]:g}"


def _growth_verdict(found: Exponent, allowed: tuple[float, float]) -> tuple[Verdict, str]:
    low, high = allowed
    match found.trend:
        case "settled":
            return _within((found.low, found.high), allowed)
        case "rising" if found.local[-1] > high:
            return "does not hold", ""
        case "falling" if found.local[-1] < low:
            return "does not hold", ""
        case "none":
            return "not comparable", found.reason
        case _:
            return "not comparable", "the exponent has not settled at these sizes"


def _per_sample(row: Row) -> Row:
    batch = row["batch"]
    numbers = ("time_s", "time_low_s", "time_high_s", "alloc_bytes", "flops")
    return row | {name: row[name] / batch for name in numbers}


def _of_order(run: Run, claim: Order) -> Outcome:
    rows: dict[int, Row] = {}
    labels: dict[int, str] = {}
    missing: list[str] = []
    groups: list[list[int]] = []
    for own, whole in zip(claim.groups, claim.group_cells, strict=True):
        groups.append([])
        for label, cell in zip(own, whole, strict=True):
            place = len(labels)
            labels[place] = str(label)
            groups[-1].append(place)
            try:
                rows[place] = sound_row(run, cell, claim.metric)
            except Missing as reason:
                missing.append(str(reason))
    wrong, undecided = [], []
    for lower, upper in itertools.combinations(groups, 2):
        for a, b in itertools.product(lower, upper):
            if a in rows and b in rows:
                try:
                    found = ratio(run, rows[a], rows[b], claim.metric)
                except Missing as reason:
                    undecided.append(f"{labels[a]} over {labels[b]}: {reason}")
                    continue
                pair = f"{labels[a]} over {labels[b]} is {found}"
                if found.low > 1:
                    wrong.append(pair)
                elif not found.high < 1:
                    undecided.append(pair)
    known = sorted(rows, key=lambda place: float(rows[place][claim.metric]))
    measured = ", ".join(f"{labels[place]} {_value(rows[place], claim.metric)}" for place in known)
    verdict: Verdict = "does not hold" if wrong else "not comparable" if missing or undecided else "holds"
    return Outcome(
        claim,
        verdict,
        claim.printed,
        " < ".join(" ≈ ".join(labels[place] for place in group) for group in groups),
        measured,
        "; ".join(wrong or [*missing, *(f"undecided: {pair}" for pair in undecided)]),
    )


def _of_reach(run: Run, claim: Reach) -> Outcome:
    blank = Outcome(claim, "not comparable", number(claim.printed), f"≥ {number(claim.least)}", "")
    try:
        (far, end), (near, stop) = reached(run, claim.of_cell), reached(run, claim.to_cell)
    except Missing as missing:
        return replace(blank, reason=str(missing))
    found = replace(blank, measured=f"{'' if end else '≥ '}{number(far / near)} ({far} over {near} tokens)")
    if stop not in _OUT_OF_MEMORY:
        ended = (
            f"the next length ended with {stop}, not for want of memory" if stop else "none longer was asked"
        )
        return replace(found, reason=f"{claim.to_cell}: {ended}")
    if far / near >= claim.least:
        return replace(found, verdict="holds")
    if end in _OUT_OF_MEMORY:
        return replace(found, verdict="does not hold")
    return replace(found, reason=f"{claim.of_cell}: how far it goes was not measured to its end")


def _of_sooner(run: Run, claim: Sooner) -> Outcome:
    sides = (claim.first, claim.second)
    blank = Outcome(claim, "not comparable", claim.printed, f"{sides[0].says} < {sides[1].says}", "")
    found, missing = [], []
    for one in sides:
        try:
            found.append(onset(run, *claim.rivals(one), one.metric))
        except Missing as reason:
            missing.append(f"{one.says}: {reason}")
    if missing:
        return replace(blank, reason="; ".join(missing))
    first, second = found
    measured = ", ".join(f"{one.says} {at.words}" for one, at in zip(sides, found, strict=True))
    blank = replace(blank, measured=measured)
    if first.high <= second.low:
        return replace(blank, verdict="holds")
    if second.high <= first.low:
        return replace(blank, verdict="does not hold")
    return replace(blank, reason="too close to call: the two lengths may be the same")


def _within(interval: tuple[float, float], allowed: tuple[float, float]) -> tuple[Verdict, str]:
    low, high = allowed
    if low <= interval[0] and interval[1] <= high:
        return "holds", ""
    if interval[1] < low or high < interval[0]:
        return "does not hold", ""
    bound = low if interval[0] < low else high
    return "not comparable", f"too close to call: its interval reaches across {number(bound)}"


def _value(row: Row, metric: str) -> str:
    return time_text(row) if metric == "time_s" else METRICS[metric].text(row[metric])


def _span(allowed: tuple[float, float]) -> str:
    low, high = allowed
    if low == 0:
        return f"≤ {number(high)}"
    return f"≥ {number(low)}" if math.isinf(high) else f"{number(low)} to {number(high)}"
