"""The tables of answers: rankings at a point, exponents, and crossovers with the baseline."""

from __future__ import annotations

from collections.abc import Sequence

from effbench.against import (
    COMPARED,
    TILED,
    Rivalry,
    default_baseline,
    rivalries,
    same_function,
    verdict,
)
from effbench.frame import Run
from effbench.lines import ALONG
from effbench.metrics import METRICS, step_label
from effbench.ranking import HEADER, Place, Ranking, texts, time_text
from effbench.scaling import COUNTED, TIMED, Growth, growths
from effbench.words import setting_title

from ._tables import Table
from ._views import ALONG as NAMES


def ranking_tables(run: Run, ranking: Ranking) -> list[Table]:
    """Those that compute the same function as the baseline, and those that do not; ranks are joint."""
    title = f"At {ranking.title}"
    return [
        _ranked(f"{title}: {name}" if name else title, places, _rank_note(places))
        for name, places in ranking.groups
    ]


def _ranked(title: str, places: Sequence[Place], note: str) -> Table:
    return Table(title, HEADER, [texts(place) for place in places], note)


def _rank_note(places: Sequence[Place]) -> str:
    parts = [
        "A rank is one more than the number of mechanisms that are faster by an interval of the ratio that "
        "leaves out 1; = is a tie",
        "a time stands with half of its 95 % interval, or the interval in [brackets]",
    ]
    if any(cell.endswith("†") for place in places for cell in texts(place)):
        parts.append("† flagged")
    return "; ".join(parts) + "."


def memory_table(run: Run, ranking: Ranking) -> Table:
    """The fastest within each memory limit; within the one that was asked for, where one was."""
    limit = run.info.get("memory_limit")
    if limit is None:
        title, amount, places = "Fastest within a memory limit", "From", ranking.frontier
    else:
        title, amount = f"Fastest within {METRICS['total_bytes'].text(limit)}", "It holds"
        places = ranking.cheapest_within(limit)
    header = [amount, "Mechanism", "Time"]
    total = METRICS["total_bytes"]
    body = [
        [total.text(place.row["total_bytes"]), place.row["series"], time_text(place.row)] for place in places
    ]
    note = "" if body else "No ranked mechanism is known to hold so little."
    return Table(f"{title}, at {ranking.title}", header, body, note)


#: How the exponents' columns are called.
_EXPONENTS = {
    TIMED: "Time",
    "flops": "FLOPs",
    "instructions": "Instructions",
    "alloc_bytes": "Memory asked for",
}


def growth_tables(run: Run) -> list[Table]:
    """The exponents of each setting, along lengths and then widths, beside what was declared."""
    found = growths(run)
    return [
        _growth_table(along, [growth for growth in found if growth.setting is setting])
        for along in ALONG
        for setting in dict.fromkeys(g.setting for g in found if g.line.along == along)
    ]


def _growth_table(along: str, found: Sequence[Growth]) -> Table:
    letter = "n" if along == "seq" else "d"
    metrics = [name for name in (TIMED, *COUNTED) if any(g.metric == name for g in found)]
    body = []
    for series in dict.fromkeys(growth.line.series for growth in found):
        own = {growth.metric: growth for growth in found if growth.line.series == series}
        declared = {name: own[name].declared for name in ("alloc_bytes", "flops", TIMED) if name in own}
        body.append(
            [
                series,
                *(_exponent(own.get(name)) for name in metrics),
                declared.get(TIMED) or declared.get("flops") or "–",
                declared.get("alloc_bytes") or "–",
            ]
        )
    header = ["Mechanism", *(_EXPONENTS[name] for name in metrics), "Time (declared)", "Memory (declared)"]
    title = f"Exponent of the {NAMES[along]} {letter} ({setting_title(found[0].setting.values)})"
    return Table(title, header, body, _GROWTH_NOTE)


_GROWTH_NOTE = (
    "p of n^p for large sizes, as a range. Time: c0 + c1 n^p over the largest sizes that one such curve "
    "describes, with the spread of the local slopes; it allows for a factor log n, which looks like a power "
    "of about 0.1. Counts: by increments. In brackets the sizes that were used; ≠ is not as declared."
)


def _exponent(growth: Growth | None) -> str:
    if growth is None:
        return "n/a"
    exponent = growth.exponent
    if exponent.trend == "none":
        left_out = f", {growth.left_out} more flagged" if growth.left_out else ""
        return f"{exponent}{left_out}"
    first, last = (step_label(growth.line.along, int(size)) for size in exponent.sizes)
    return f"{exponent} ({first}–{last}){' ≠' if growth.mismatch else ''}"


def rivalry_tables(run: Run) -> list[Table]:
    """Where each mechanism becomes faster and smaller than the baseline, one table a setting."""
    found = rivalries(run)
    baseline = default_baseline(run)
    return [
        _rivalry_table(run, baseline, [one for one in found if one.setting is setting])
        for setting in dict.fromkeys(one.setting for one in found)
    ]


def _rivalry_table(run: Run, baseline: str, found: Sequence[Rivalry]) -> Table:
    body = []
    for series in dict.fromkeys(one.line.series for one in found):
        own = {one.metric: one for one in found if one.line.series == series}
        same = same_function(run, next(iter(own.values())).line.mechanism, baseline)
        body.append(
            [
                series,
                "yes" if same else "no",
                *(said(own[metric]) for metric in COMPARED),
                _other(own[TIMED]),
            ]
        )
    if not any(row[-1] for row in body):
        body = [row[:-1] for row in body]
    header = ["Mechanism", "Same function", "Time", "Memory (live + peak)", "Other matrix product"]
    title = f"Against {found[0].baseline.series} by {NAMES[found[0].line.along]}"
    title += f" ({setting_title(found[0].setting.values)})"
    return Table(title, header[: len(body[0])], body, _RIVALRY_NOTE)


def said(one: Rivalry) -> str:
    """What was found of two lines in words, and where a single pass had to do for it."""
    text = verdict(one.found, COMPARED[one.metric], one.line.along)
    return f"{text}; {one.caveat}" if one.caveat else text


_RIVALRY_NOTE = (
    "The length or width from which on it costs less, with its 95 % interval: measured where it lies "
    "between two whose ratios are clear of 1; extrapolated, by no more than a factor of two, where the last "
    "ones point at it. Cells in doubt (†) are left out."
)


def _other(one: Rivalry) -> str:
    """What is said, and found nowhere else, of sizes at which different providers multiplied."""
    if one.other_product is None:
        return ""
    along = one.line.along
    parts = [f"against {one.baseline.series}: {verdict(one.other_product, 'faster', along)}"]
    if one.tiled is not None:
        parts.append(f"against {TILED} on the same product: {verdict(one.tiled, 'faster', along)}")
    elif one.line.mechanism != TILED:
        parts.append(f"{TILED} on the same product was not measured")
    return "; ".join(parts)
