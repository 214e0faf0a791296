"""What was found, in sentences: each by one rule, and with no number that is not in a table of the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from effbench.against import COMPARED, Rivalry, default_baseline, rivalries, verdict
from effbench.frame import NOT_YET, Run
from effbench.lines import Setting, rows_of
from effbench.metrics import METRICS, size_label
from effbench.plausibility import by_one_pass, on_slowed_cores, sound
from effbench.ranking import Place, Ranking, points, ratio_text, time_text
from effbench.scaling import TIMED, growths
from effbench.words import apart, counted, listed, said, share

from ._views import views

#: Settings that sentences are made for; the others stand in the tables.
SETTINGS = 4
#: What is said of a mechanism, and of several, from their first failure on.
_RAN_OUT = {
    "oom": ("runs out of memory", "run out of memory"),
    "oom-predicted": ("is predicted to run out of memory", "are predicted to run out of memory"),
    "timeout": ("runs out of time", "run out of time"),
}


def findings(run: Run) -> list[str]:
    """Sentences, the most useful first."""
    found = [*missing(run), *_at_points(run), *_crossovers(run), *_growth(run), *_ran_out(run), *_doubts(run)]
    return found or ["Nothing can be said: no cell has numbers."]


def missing(run: Run) -> Iterator[str]:
    """What an unfinished or damaged run lacks."""
    for text in run.info.get("damage", ()):
        yield f"Damaged: {text}."
    state = run.info.get("state", "finished")
    waiting = int((run.frame["reason"] == NOT_YET).sum())
    if state != "finished" or waiting:
        unanswered = share(waiting, len(run.frame), "has", "have")
        known = "" if state == "finished" else f" ({state})"
        yield f"The run is not complete{known}: {unanswered} no answer yet; what follows leaves them out."


def _at_points(run: Run) -> Iterator[str]:
    ranked = points(run)[:SETTINGS]
    others = apart([_without(one.setting, "seq", "dim") for one in ranked])
    for ranking, more in zip(ranked, others, strict=True):
        yield from _at_point(run, ranking, more)


def _at_point(run: Run, ranking: Ranking, more: str) -> Iterator[str]:
    found = [place for place in ranking.places if place.rank]
    if not found:
        return
    place = [said(axis, ranking.setting[axis]) for axis in ("seq", "dim")]
    at, which = ", ".join(filter(None, [*place, more])), _of_the_ranked(ranking.places)
    if len(found) == 1 and which:
        yield f"At {at}, only {found[0].row['series']} ({time_text(found[0].row)}) is ranked."
        return
    yield f"At {at}: {_fastest(found, which)}{_of_the_time(ranking, found)}."
    if ranking.baseline and not found[0].same_function:
        yield _in_its_place(ranking, [one for one in found if one.same_function])
    limit = run.info.get("memory_limit")
    if limit is not None:
        within, amount = ranking.cheapest_within(limit), METRICS["total_bytes"].text(limit)
        yield f"Within {amount}, {_fastest(within) if within else 'none that is ranked is known to fit'}."


def _in_its_place(ranking: Ranking, own: Sequence[Place]) -> str:
    """What can take the baseline's place without training."""
    name = ranking.baseline
    if sum(place.same_function for place in ranking.places) == 1:
        return f"Nothing else here computes the same function as {name}: what takes its place needs training."
    same = f"those that compute the same function as {name}, and can take its place without training"
    best = [place for place in own if place.rank == own[0].rank]
    if [place.row["series"] for place in best] == [name]:
        return f"None of {same}, is faster than it ({time_text(best[0].row)})."
    which = _of_the_ranked([place for place in ranking.places if place.same_function])
    return f"Of {same}, {_fastest(own, which) if own else 'none is ranked'}."


def _of_the_ranked(places: Sequence[Place]) -> str:
    """Said where some have a time that is in doubt, has no interval or is by another matrix product."""
    unranked = any(place.rank is None and place.row["status"] == "ok" for place in places)
    return " of those that are ranked" if unranked else ""


def _fastest(ranked: Sequence[Place], which: str = "") -> str:
    best = [place for place in ranked if place.rank == ranked[0].rank]
    names = [f"{place.row['series']} ({time_text(place.row)})" for place in best]
    if len(names) == 1:
        return f"{names[0]} is the fastest{which}"
    return f"{listed(names)} are the fastest{which} and cannot be told apart"


def _of_the_time(ranking: Ranking, ranked: Sequence[Place]) -> str:
    first = ranked[0]
    if not ratio_text(first) or ranking.baseline not in {place.row["series"] for place in ranked}:
        return ""
    alone = sum(place.rank == first.rank for place in ranked) == 1
    who = "it" if alone else first.row["series"]
    return f"; {who} takes {ratio_text(first)} of the time of {ranking.baseline}"


def _crossovers(run: Run) -> Iterator[str]:
    """One sentence for all mechanisms of which the same is said."""
    found = [one for one in rivalries(run) if one.line.along == "seq"]
    for setting, where in _places(one.setting for one in found):
        for metric in COMPARED:
            own = [
                one for one in found if one.setting is setting and one.metric == metric and one.found.sizes
            ]
            groups: dict[tuple[str, str], list[Rivalry]] = {}
            for one in own:
                groups.setdefault((verdict(one.found, COMPARED[metric]), one.caveat), []).append(one)
            yield from (f"{where}{_overtaking(group)}." for group in groups.values())


def _overtaking(group: Sequence[Rivalry]) -> str:
    """What is said of mechanisms that stand alike to the baseline."""
    one, names = group[0], listed([rivalry.line.series for rivalry in group])
    baseline, are = one.baseline.series, "is" if len(group) == 1 else "are"
    than, last = f"{COMPARED[one.metric]} than {baseline}", size_label(int(one.found.sizes[-1]))
    subject = f"{names} {are}" if one.metric == TIMED else f"In memory (live + peak), {names} {are}"
    signs = set(one.found.signs)
    if one.found.crossings or -1 in signs:
        text = f"{subject} {verdict(one.found, than)}"
    elif signs == {0}:
        what = "time" if one.metric == TIMED else "memory (live + peak)"
        text = f"No difference in {what} from {baseline} is seen for {names}, up to {last}"
    else:
        text = f"{subject} not {than} at any length up to {last}"
    return f"{text}; {one.caveat}" if one.caveat else text


#: How a sentence begins that says of a mechanism that something does not grow as declared.
_SUBJECT = {
    TIMED: "The time of {} does",
    "flops": "The FLOPs of {} do",
    "instructions": "The instructions of {} do",
    "alloc_bytes": "The memory that {} asks for does",
}


def _growth(run: Run) -> Iterator[str]:
    """Exponents of time; what does not grow as declared."""
    found = [growth for growth in growths(run) if growth.line.along == "seq"]
    for setting, where in _places(growth.setting for growth in found):
        own = [g for g in found if g.setting is setting]
        timed = [g for g in own if g.metric == TIMED]
        settled = [f"{g.exponent} for {g.line.series}" for g in timed if g.exponent.trend == "settled"]
        if settled:
            yield f"{where}In the length n, time grows as n^p with p = {listed(settled)}."
        moving = [g for g in timed if g.exponent.trend in ("rising", "falling")]
        if moving:
            names = listed([f"{g.line.series} ({g.exponent})" for g in moving])
            yield f"{where}The exponent of time has not settled for {names}."
        for growth in own:
            if growth.mismatch:
                subject = _SUBJECT[growth.metric].format(growth.line.series)
                known = str(growth.exponent).replace(": ", ", ")
                yield f"{where}{subject} not grow as declared ({growth.declared}): the exponent is {known}."


def _ran_out(run: Run) -> Iterator[str]:
    """From which length on mechanisms run out of memory or time."""
    shown = [view for view in views(run) if view.along == "seq"][:SETTINGS]
    for view, where in zip(shown, _begun([view.setting for view in shown]), strict=True):
        groups: dict[tuple[str, int], list[str]] = {}
        for series, rows in view.by_series.items():
            first = next((row for row in rows if row["status"] in _RAN_OUT), None)
            if first is not None:
                groups.setdefault((first["status"], first["seq"]), []).append(series)
        for (status, length), names in groups.items():
            verb = _RAN_OUT[status][len(names) > 1]
            yield f"{where}{listed(names)} {verb} from length {size_label(length)} on."


def _doubts(run: Run) -> Iterator[str]:
    timed = [row for row in rows_of(run) if row["status"] == "ok"]
    flagged = sum(not sound(row, "time_s") for row in timed)
    cells = f"{counted(len(timed), 'cell')} with numbers"
    if flagged:
        yield f"Flags put the time of {flagged} of {cells} in doubt; no sentence about time rests on it."
    single = sum(by_one_pass(row) for row in timed)
    if single:
        yield (
            f"One pass had to do for each of {single} of {cells}; the interval of such a cell borrows how "
            "processes and passes of this run differ."
        )
    slowed = sum(on_slowed_cores(row) for row in timed)
    if slowed:
        yield (
            f"For {slowed} of {cells} no sample shows the cores at their best; intervals and comparisons "
            "allow for what such a time may be without."
        )
    if timed and not any(place.rank for ranking in points(run) for place in ranking.places):
        yield "Nothing is ranked: no time at these points is free of doubt and has an interval."
    if not default_baseline(run) and run.info.get("baseline") not in ("none", "", None):
        yield f"Nothing is compared with a baseline: {run.info['baseline']} is not in this run."


def _places(settings: Iterable[Setting]) -> list[tuple[Setting, str]]:
    """The first settings, each with how a sentence begins that is about it alone."""
    first = list(dict.fromkeys(settings))[:SETTINGS]
    return list(zip(first, _begun([setting.values for setting in first]), strict=True))


def _begun(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{words[0].upper()}{words[1:]}: " if words else "" for words in apart(settings)]


def _without(setting: Mapping[str, Any], *axes: str) -> dict[str, Any]:
    return {axis: value for axis, value in setting.items() if axis not in axes}
