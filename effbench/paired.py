"""Calls the times of two sides that were measured in pairs.

The first ``SCREENING`` pairs of a cell only find suspects. What is called slower is called from later pairs
alone, which the suspicion did not choose: their one-sided chances, adjusted by Holm over all suspects and
held to half the risk, since two looks may accuse, bound by 5 % the risk that a gate with nothing changed
calls anything slower. An earlier look only clears, by all pairs so far, which takes nothing from that bound.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from effbench.frame import Run
from effbench.judgement import EXCLUDED, Call, Judgement, Rules
from effbench.pairs import chance, holm, interval, log_ratio, spread

#: So many pairs look for suspects. Those after them decide: a suspect may be cleared after each of ``LOOKS``
#: pairs, and called slower from ``ACCUSING`` of them on.
SCREENING, ACCUSING = 3, 8
LOOKS = (4, ACCUSING, 2 * ACCUSING)
_ACCUSATIONS = sum(pairs >= ACCUSING for pairs in LOOKS)
#: The risk that anything is called slower where nothing changed.
RISK = 0.05


class Paired:
    """What pairs say of the times of each cell; empty for runs that were not measured in pairs."""

    def __init__(self, base: Run, head: Run, rules: Rules, rows: Mapping[str, Mapping[str, Any]]) -> None:
        self._rules = rules
        self._floors = rules.floors.get(str(head.info.get("environment", "")), {})
        self._screened: dict[str, list[float]] = {}
        self._deciding: dict[str, list[float]] = {}
        for cell_id in rows:
            for number, samples in head.pairs(base, cell_id).items():
                kept = self._screened if number < SCREENING else self._deciding
                kept.setdefault(cell_id, []).append(log_ratio(*samples))
        self._spread = spread(self._screened.values())
        chances = {
            cell_id: chance(logs, self._limit(cell_id, rows[cell_id]["mechanism"]))
            for cell_id, logs in self._deciding.items()
        }
        self._chances = holm(chances)

    def __contains__(self, cell_id: str) -> bool:
        return cell_id in self._screened

    def _logs(self, cell_id: str) -> list[float]:
        """Those that decide, once they are enough to call a cell slower; until then all."""
        deciding = self._deciding.get(cell_id, [])
        return deciding if len(deciding) >= ACCUSING else [*self._screened[cell_id], *deciding]

    def _limit(self, cell_id: str, mechanism: str) -> float:
        """The ratio beyond which a slowdown counts: clear of the threshold and of the A/A floor."""
        threshold = self._rules.gate(mechanism, "time_s").relative
        return 1 + max(threshold, self._floors.get(cell_id, 0.0))

    def judge(self, one: Judgement) -> Judgement:
        """The call of one cell's time."""
        logs = self._logs(one.id)
        found = interval(logs, self._spread)
        if found is None:
            return replace(one, call="inconclusive", why="a single pair says nothing about how pairs differ")
        ratio = math.exp(sum(logs) / len(logs))
        call, why = self._call(one, ratio, *found)
        floor = self._floors.get(one.id)
        known = "" if floor is None else f"; A/A floor {floor:.1%}"
        why = f"{why}; interval [{found[0]:.3f}, {found[1]:.3f}] of {len(logs)} pairs{known}"
        return replace(one, call=call, why=why, paired=ratio, low=found[0], high=found[1])

    def _call(self, one: Judgement, ratio: float, low: float, high: float) -> tuple[Call, str]:
        threshold = self._rules.gate(one.mechanism, "time_s").relative
        limit, most = self._limit(one.id, one.mechanism), 1 + EXCLUDED * threshold
        again = one.id in self._deciding
        if high < 1 / limit and chance([-log for log in self._logs(one.id)], limit) <= RISK:
            return "faster", f"the interval lies below {1 / limit:.3f}"
        if len(self._deciding.get(one.id, [])) >= ACCUSING:
            risk = self._chances[one.id]
            if low > limit and risk <= RISK / _ACCUSATIONS:
                return "slower", f"the interval lies above {limit:.3f}, adjusted chance {risk:.1g}"
        if ratio <= (1 + threshold if again else math.sqrt(1 + threshold)) and high <= most:
            if limit > 1 + threshold:
                return "inconclusive", "not gateable for time: equal sides differ by more than the threshold"
            return "same", "no slowdown beyond the threshold" if again else "no sign of a slowdown"
        if not again:
            return "inconclusive", "looks slower, or may be; to be measured again with more pairs"
        return "inconclusive", f"neither above {limit:.3f} for certain nor below {most:.3f}"
