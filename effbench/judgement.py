"""What is said of two runs: the calls, the rules that they follow, and the verdict that they make."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from effbench.metrics import METRICS, Gate

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
#: An improvement beyond this factor is rather a mistake than a success.
TOO_GOOD = 4.0
#: `same` needs an interval that leaves out a slowdown of so many thresholds.
EXCLUDED = 2.0

#: Stands for every mechanism.
ALL = "*"


@dataclass(frozen=True, kw_only=True)
class Excuse:
    """Why what became worse of a metric does not count: up to a ratio, where one is given, and for a time."""

    mechanism: str
    metric: str
    reason: str
    up_to: float | None = None
    expires: str = ""
    expired: bool = False


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What counts: the gates of (mechanism or ALL, metric) that differ from the table's, and the noise."""

    gates: Mapping[tuple[str, str], Gate] = field(default_factory=dict)
    #: Environment -> cell id -> the difference in time that it shows with nothing changed.
    floors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    too_good: float = TOO_GOOD
    excuses: Sequence[Excuse] = ()
    #: Whether times of different environments are compared all the same; they never count.
    advisory: bool = False

    def gate(self, mechanism: str, metric: str) -> Gate:
        """The gate of one metric of a mechanism."""
        found = self.gates.get((mechanism, metric)) or self.gates.get((ALL, metric)) or METRICS[metric].gate
        assert found is not None, f"{metric} is compared, so METRICS must give it a gate"
        return found


USUAL = Rules()


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
    mechanism: str = ""
    paired: float | None = None  # head / base as pairs that took turns have it
    excused: str = ""  # why it does not count

    @property
    def ratio(self) -> float | None:
        """head / base."""
        if self.paired is not None:
            return self.paired
        return self.head / self.base if self.base and self.head is not None else None

    def excuse(self, rules: Rules) -> Judgement:
        """This judgement with the excuse that the rules have for it, where it is worse or open."""
        if self.call not in WORSE | {"inconclusive"}:
            return self
        for one in rules.excuses:
            if (one.mechanism, one.metric) != (self.mechanism, self.metric):
                continue
            if one.expired:
                return replace(self, why=f"{self.why}; accepted until {one.expires} only: {one.reason}")
            if one.up_to is None or (self.ratio is not None and self.ratio <= one.up_to):
                until = f" (until {one.expires})" if one.expires else ""
                return replace(self, excused=f"{one.reason}{until}")
        return self


@dataclass(frozen=True)
class Verdict:
    """Every judgement, and what follows from them."""

    judgements: Sequence[Judgement]

    @property
    def counts(self) -> Counter[str]:
        return Counter(judgement.call for judgement in self.judgements)

    @property
    def overall(self) -> Literal["worse", "inconclusive", "fine"]:
        """``worse`` if anything is, else ``inconclusive`` if anything is or nothing was there to judge.

        What is excused does not count.
        """
        calls = {one.call for one in self.judgements if not one.excused}
        if calls & WORSE:
            return "worse"
        return (
            "inconclusive" if "inconclusive" in calls or not set(self.counts) - {"incomparable"} else "fine"
        )

    @property
    def compared(self) -> int:
        """How many cells have numbers on both sides."""
        return len({one.id for one in self.judgements if one.base is not None and one.head is not None})

    def mean_ratios(self) -> dict[str, tuple[float, int]]:
        """Metric -> geometric mean of head / base, and over how many cells; both sides finished those."""
        logs: dict[str, list[float]] = {}
        for one in self.judgements:
            if one.ratio and one.call != "incomparable":
                logs.setdefault(one.metric, []).append(math.log(one.ratio))
        return {metric: (math.exp(sum(found) / len(found)), len(found)) for metric, found in logs.items()}
