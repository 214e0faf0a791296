"""Which samples speak for a cell: one group a process, of those taken while the cores were fully at hand."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median

from effbench.calm import ENOUGH, SLOWER, Pace, calm_samples, hindrance, steady
from effbench.record import Record

#: By threads, seconds of the fixed works beside the samples at their best.
Best = Mapping[int, Pace]
#: Medians of the calm samples of different processes that are no further apart agree.
AGREED = 1.03
#: Doubts about samples, which those that have no say do not arouse.
_LOADED, _UNSTEADY = "loaded", "unsteady"


def groups_of(visits: Sequence[Record], best_s: Best) -> list[list[float]]:
    """Samples in seconds, one list a process; visits that name no process are one each.

    The calm ones (``effbench.calm``) of each process that has enough of them; where none has, those that were
    hindered hardly more than the least hindered ones.
    """
    processes = _by_process(visits)
    calm = [samples for samples in map(_calm(best_s), processes) if samples]
    return calm or _least_hindered(processes, best_s)


def all_groups(visits: Sequence[Record]) -> list[list[float]]:
    """All samples in seconds, those without a say too, one list a process."""
    return [[s for visit in own for s in _samples(visit)] for own in _by_process(visits)]


def slowed(visits: Sequence[Record], best_s: Best, wanted: int = 1) -> list[int]:
    """The processes of a cell without enough calm samples, each by its place in the order of first visits.

    None where so many as ``wanted`` have enough.
    """
    calm, processes = _calm(best_s), _by_process(visits)
    found = [place for place, own in enumerate(processes) if not calm(own)]
    return found if len(processes) - len(found) < wanted else []


def undecided(visits: Sequence[Record], best_s: Best) -> int:
    """How many processes a cell has, if calm samples of these do not agree, or most are unsteady; else 0."""
    processes = _by_process(visits)
    medians = [median(samples) for samples in map(_calm(best_s), processes) if samples]
    apart = bool(medians) and max(medians) > AGREED * min(medians)
    return len(processes) if apart or _UNSTEADY in flags_of(visits, best_s) else 0


def hindered(visits: Sequence[Record], best_s: Best) -> float:
    """How many times as long the samples that speak may have lasted as with the cores fully at hand.

    1 where they are calm.
    """
    if not slowed(visits, best_s):
        return 1.0
    return _most([_marked(own, best_s) for own in _by_process(visits)])


def flags_of(visits: Sequence[Record], best_s: Best) -> list[str]:
    """The flags of all visits: what doubts samples only where these have a say, unsteady if half are."""
    speaking = _speaking(visits, best_s)
    found: list[str] = []
    unsteady: list[bool] = []
    for visit in visits:
        flags, drifts = visit.flags, _UNSTEADY in visit.flags
        if visit.time and visit.time.pace_s:
            samples = speaking(visit)
            flags = [flag for flag in flags if samples or flag != _LOADED]
            drifts = not steady(samples)
        else:
            samples = _samples(visit)
        unsteady += [drifts] if samples else []
        found += [flag for flag in flags if flag != _UNSTEADY]
    found += [_UNSTEADY] if sum(unsteady) * 2 >= max(len(unsteady), 1) else []
    return list(dict.fromkeys(found))


def _speaking(visits: Sequence[Record], best_s: Best) -> Callable[[Record], list[float]]:
    """Gives the samples of one visit that speak for the cell."""
    calm = _calm(best_s)
    if not slowed(visits, best_s):
        return lambda visit: calm([visit])
    most = _most([_marked(own, best_s) for own in _by_process(visits)])
    return lambda visit: [sample for sample, factor in _marked([visit], best_s) if factor <= most]


def _by_process(visits: Sequence[Record]) -> list[list[Record]]:
    """The visits with samples of a cell that is ok, one list a process."""
    found: dict[str, list[Record]] = defaultdict(list)
    for visit in visits:
        if visits[0].status == "ok" and _samples(visit):
            found[visit.process or f"round {visit.round}"].append(visit)
    return list(found.values())


def _calm(best_s: Best) -> Callable[[Sequence[Record]], list[float]]:
    """Gives the calm samples of one process' visits, if they are enough to speak for it."""

    def samples(own: Sequence[Record]) -> list[float]:
        best = best_s.get(own[0].cell["threads"])
        times = [visit.time for visit in own if visit.time]
        calm = [s for t in times for s in calm_samples(t.samples_s, t.pace_s, t.waited, best)]
        return calm if len(calm) >= min(ENOUGH, sum(len(time.samples_s) for time in times)) else []

    return samples


def _least_hindered(processes: Sequence[Sequence[Record]], best_s: Best) -> list[list[float]]:
    """Of a cell that was slowed throughout; beside a busy core others may last a hundred times as long."""
    marked = [_marked(own, best_s) for own in processes]
    most = _most(marked)
    kept = [[sample for sample, factor in own if factor <= most] for own in marked]
    return [samples for samples in kept if samples]


def _most(marked: Sequence[Sequence[tuple[float, float]]]) -> float:
    """How many times as long the cores may have made a sample last that speaks for such a cell."""
    ranked = sorted(factor for own in marked for _, factor in own)
    return SLOWER * ranked[min(ENOUGH, len(ranked)) - 1] if ranked else 1.0


def _marked(own: Sequence[Record], best_s: Best) -> list[tuple[float, float]]:
    """Each sample of a process, and about how many times as long the cores made it last."""
    best, found = best_s.get(own[0].cell["threads"]), []
    for time in [visit.time for visit in own if visit.time]:
        unknown = [None] * len(time.samples_s)
        beside = zip(time.samples_s, time.pace_s or unknown, time.waited or unknown, strict=True)
        found += [(sample, hindrance(pace, waited, best)) for sample, pace, waited in beside]
    return found


def _samples(visit: Record) -> list[float]:
    return visit.time.samples_s if visit.time else []
