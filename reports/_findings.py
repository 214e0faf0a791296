"""What was found, in sentences: each by one rule, and with no number that is not in a table of the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from effbench.against import COMPARED, Rivalry, default_baseline, rivalries
from effbench.frame import NOT_YET, Run
from effbench.lines import rows_of
from effbench.metrics import METRICS, size_label
from effbench.plausibility import by_one_pass, sound
from effbench.ranking import Place, Ranking, points, ratio_text, time_text
from effbench.scaling import COUNTED, TIMED, growths

from ._answers import point_title, said
from ._views import setting_title, views

#: Settings that sentences are made for; the others stand in the tables.
SETTINGS = 4
#: What is said of a mechanism from its first failure on.
_RAN_OUT = {
    "oom": "runs out of memory",
    "oom-predicted": "is predicted to run out of memory",
    "timeout": "runs out of time",
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
        yield (
            f"The run is not complete ({state}): {waiting} of {len(run.frame)} cells have no answer yet; "
            "what follows rests on those that have."
        )


def _at_points(run: Run) -> Iterator[str]:
    for ranking in points(run)[:SETTINGS]:
        ranked = [place for place in ranking.places if place.rank]
        if not ranked:
            continue
        yield f"At {point_title(ranking)}, {_fastest(ranked)}{_against_baseline(ranking, ranked[0])}."
        own = [place for place in ranked if place.same_function]
        if ranking.baseline and own and not ranked[0].same_function:
            yield (
                f"Of those that compute the same function as {ranking.baseline}, and so can take its place "
                f"without training, {_fastest(own)}."
            )
        limit = run.info.get("memory_limit")
        if limit is not None and (within := ranking.cheapest_within(limit)):
            yield f"Within {METRICS['total_bytes'].text(limit)}, {_fastest(within)}."


def _fastest(ranked: Sequence[Place]) -> str:
    best = [place for place in ranked if place.rank == ranked[0].rank]
    names = [f"{place.row['series']} ({time_text(place.row)})" for place in best]
    if len(names) == 1:
        return f"{names[0]} is the fastest"
    return f"{_listed(names)} are the fastest and cannot be told apart"


def _against_baseline(ranking: Ranking, first: Place) -> str:
    if not ratio_text(first):
        return ""
    return f"; {first.row['series']} takes {ratio_text(first)} of the time of {ranking.baseline}"


def _crossovers(run: Run) -> Iterator[str]:
    """One sentence for each mechanism that crosses, one for all that never do and that always do."""
    found = [one for one in rivalries(run) if one.line.along == "seq"]
    settings = list(dict.fromkeys(one.setting for one in found))
    for setting in settings[:SETTINGS]:
        where = f" ({setting_title(setting.values)})" if len(settings) > 1 else ""
        for metric in COMPARED:
            own = [
                one for one in found if one.setting is setting and one.metric == metric and one.found.sizes
            ]
            for text, names in _grouped(own).items():
                against = f"{METRICS[metric].title} against {own[0].baseline.series}{where}"
                yield f"{against}, {text}: {_listed(names)}."


def _grouped(found: Sequence[Rivalry]) -> dict[str, list[str]]:
    """The series of which the same is said, by what is said."""
    groups: dict[str, list[str]] = {}
    for one in found:
        groups.setdefault(said(one), []).append(one.line.series)
    return groups


def _growth(run: Run) -> Iterator[str]:
    """Exponents of time; what does not grow as declared."""
    found = [growth for growth in growths(run) if growth.line.along == "seq"]
    settings = list(dict.fromkeys(growth.setting for growth in found))
    for setting in settings[:SETTINGS]:
        where = f" ({setting_title(setting.values)})" if len(settings) > 1 else ""
        own = [g for g in found if g.setting is setting]
        settled = [g for g in own if g.metric == TIMED and g.exponent.trend == "settled"]
        if settled:
            listed = _listed([f"{g.line.series} {g.exponent}" for g in settled])
            yield f"Exponents of time over the length{where}: {listed}."
        moving = [g for g in own if g.metric == TIMED and g.exponent.trend in ("rising", "falling")]
        if moving:
            listed = _listed([f"{g.line.series} {g.exponent}" for g in moving])
            yield f"Exponents of time that have not settled{where}: {listed}."
        for metric in (TIMED, *COUNTED):
            strangers = [g for g in own if g.metric == metric and g.mismatch]
            if strangers:
                listed = _listed([f"{g.line.series} {g.exponent}, declared {g.declared}" for g in strangers])
                yield f"{METRICS[metric].title} that does not grow as declared{where}: {listed}."


def _ran_out(run: Run) -> Iterator[str]:
    """From which length on a mechanism runs out of memory or time."""
    shown = [view for view in views(run) if view.along == "seq"]
    for view in shown[:SETTINGS]:
        where = f" ({view.title})" if len(shown) > 1 else ""
        for series in view.series:
            rows = view.by_series[series]
            first = next((row for row in rows if row["status"] in _RAN_OUT), None)
            if first is not None:
                what = _RAN_OUT[first["status"]]
                yield f"{series} {what} from length {size_label(first['seq'])} on{where}."


def _doubts(run: Run) -> Iterator[str]:
    timed = [row for row in rows_of(run) if row["status"] == "ok"]
    flagged = sum(not sound(row, "time_s") for row in timed)
    if flagged:
        yield (
            f"{flagged} of {len(timed)} cells with numbers carry a flag that puts their time in doubt; "
            "no sentence about time rests on them."
        )
    single = sum(by_one_pass(row) for row in timed)
    if single:
        yield (
            f"{single} of {len(timed)} cells with numbers were timed by one pass; their intervals borrow how "
            "processes and passes of this run differ."
        )
    if not default_baseline(run) and run.info.get("baseline") not in ("none", "", None):
        yield f"Nothing is compared with a baseline: {run.info['baseline']} is not in this run."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
