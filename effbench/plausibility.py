"""What each flag of a row means, and which rows may support a finding.

A flag is a name on a row. Some only say how a number came about; others put it in doubt, and then the row
keeps its numbers and its place in every table, but no sentence of a report may rest on it.

In doubt is what may be wrong: disturbed, unlike the others, or impossible. A number that is merely known
less well is not: that is what its interval says, as long as it is as wide as it must be. So a single pass of
a long cell (``few-samples``) may support a finding, by an interval that borrows both how processes and how
passes of the run differ; so may a cell that no sample shows on cores at their best (``slowed``), by an
interval that reaches down to what it may take there. A finding says where it rests on such.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

TIME, MEMORY, WORK = "time", "memory", "work"
RATE = "rate"  # work a second, which has no interval of its own
CEILING = "ceiling"  # what the machine can do; of the row itself it says nothing
EVERYTHING = (TIME, MEMORY, WORK)

#: Which of these a column of the frame, or ``total_bytes``, rests on.
_RESTS_ON: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("time_s", "time_low_s", "time_high_s", "tokens_per_s"), (TIME,)),
    **dict.fromkeys(("peak_bytes", "alloc_bytes", "live_bytes", "total_bytes"), (MEMORY,)),
    "state_bytes": (),
    **dict.fromkeys(("flops", "transcendentals", "bytes_moved", "instructions"), (WORK,)),
    "flops_per_s": (TIME, WORK, RATE),
    "ceiling_fraction": (TIME, WORK, RATE, CEILING),
}


@dataclass(frozen=True)
class Flag:
    """What a flag says, and what it doubts: nothing, time, memory, work (FLOPs and such), rate, ceiling."""

    meaning: str
    doubts: tuple[str, ...] = ()


#: Every flag that effbench sets. The first ones are remarks, the others doubts.
FLAGS: Mapping[str, Flag] = {
    "borrowed": Flag(
        "measured in one process; its interval borrows the run's pooled process-to-process spread"
    ),
    "few-samples": Flag(
        "timed by one pass, because it takes long; its interval borrows how processes and passes of this run "
        "differ"
    ),
    "slowed": Flag(
        "no sample was taken while the cores worked as fast as they do at best: a neighbour on the same "
        "physical core, a lower clock, cores far apart, or threads that waited for one; the interval, and "
        "that of every comparison, allows for what the time may be without",
        (RATE,),
    ),
    "unverified": Flag("the mechanism has no reference to be compared with"),
    "gradient-unverified": Flag("its reference could not be differentiated, so only the output was compared"),
    "no-prediction": Flag("its memory could not be predicted before it ran"),
    "no-counts": Flag("its operators could not be counted; FLOPs are the closed form where there is one"),
    "random-layout": Flag(
        "instructions were counted at random addresses, which moves them by about 0.2 % from run to run"
    ),
    "power-limited": Flag("the GPU was at its power limit when the passes ended, below its highest clock"),
    "throttled": Flag("the GPU was held below its clocks by its temperature or a fault", (TIME,)),
    "counts-differ": Flag(
        "matrix products and transforms as counted and as declared in closed form part by more than 1 %",
        (WORK,),
    ),
    "uncounted-ops": Flag("some operators have no rule and are not in the FLOPs: see the record", (WORK,)),
    "unsteady": Flag("the passes of a process drifted or jumped", (TIME,)),
    "visit-failed": Flag("a later visit of this cell failed; the numbers are those of the others", (TIME,)),
    "page-faults": Flag("passes still took new memory from the system, which costs time", (TIME,)),
    "default-allocator": Flag("a warm heap would not fit, so passes pay for fresh memory each time", (TIME,)),
    "loaded": Flag("other processes needed cores that the passes needed too", (TIME,)),
    "flat": Flag(
        "at least 8 times as long as a cell that took about as much time: not all of it was worked on, or "
        "the work is hidden by the cost of calls",
        (TIME,),
    ),
    "off-declared": Flag(
        "from the next shorter cells on, time grows far from how the mechanism declares it to", (TIME,)
    ),
    "above-ceiling": Flag(
        "faster than this machine multiplies or copies: work was left out, or is counted wrongly",
        (TIME, WORK),
    ),
    "disturbed-ceiling": Flag(
        "its ceiling was taken only while something else ran: its share of the ceiling may be far too high",
        (CEILING,),
    ),
    "other-threads": Flag("it changed torch's number of threads while it was timed", (TIME,)),
    "remembered": Flag(
        "a pass gave again what it had given for other values of its input: it remembers instead of working",
        (TIME,),
    ),
    "peak-too-low": Flag("the peak is below the output that the pass must hold", (MEMORY,)),
    "resident-excess": Flag("the process came to hold more than the mechanism asked for", (MEMORY,)),
    "memory-off-declared": Flag(
        "from the next shorter cells on, memory grows far faster than the mechanism declares", (MEMORY,)
    ),
    "params-differ": Flag(
        "a block or model with parameters over 10 % more or fewer than the baseline's: not the same capacity",
        EVERYTHING,
    ),
    "not-finite": Flag("the output of a pass at this size holds values that are not finite", EVERYTHING),
}


def doubts(flag: str) -> tuple[str, ...]:
    """What a flag puts in doubt; a flag that the table does not know puts everything in doubt."""
    return FLAGS[flag].doubts if flag in FLAGS else EVERYTHING


def flags_of(row: Mapping[str, Any]) -> list[str]:
    """The flags of a row of the frame, in their order."""
    return [flag for flag in str(row["flags"]).split(";") if flag]


def sound(row: Mapping[str, Any], metric: str = "") -> bool:
    """Whether a row of the frame may support a finding about a metric, or about anything at all.

    True where the row has numbers (``status`` ok) and none of its flags puts the metric in doubt; without
    a metric, where none puts anything in doubt. ``row`` needs ``status`` and ``flags`` (joined by ``;``).
    """
    return row["status"] == "ok" and not _doubted(str(row["flags"]), metric)


@lru_cache(
    maxsize=1024
)  # a report asks this of every row many times, and few combinations of flags are there
def _doubted(flags: str, metric: str) -> bool:
    rests_on = set(_RESTS_ON.get(metric, EVERYTHING))
    return any(rests_on & set(doubts(flag)) for flag in flags.split(";") if flag)


def by_one_pass(row: Mapping[str, Any]) -> bool:
    """Whether a row was timed by a single pass, which a finding that rests on it must say."""
    return "few-samples" in flags_of(row)


def on_slowed_cores(row: Mapping[str, Any]) -> bool:
    """Whether no sample shows the cores at their best, which a finding that rests on the row must say."""
    return "slowed" in flags_of(row)


def legend(flags: Any) -> dict[str, str]:
    """The meaning of each of some flags, in the table's order, unknown ones last."""
    asked = set(flags)
    known = {name: flag.meaning for name, flag in FLAGS.items() if name in asked}
    return known | dict.fromkeys(sorted(asked - set(FLAGS)), "a flag that this version does not know")
