"""``effbench verify``: asks every law of a mechanism in a child of its own, and shows what became of it.

A law that aborts or hangs costs its own row. After one that hangs the others are not asked: they would
wait as long.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from effbench.cell import Budget, usable_cores
from effbench.environment import default_memory_limit
from effbench.errors import BadInput, EffbenchError
from effbench.plan import Description, option_sets
from effbench.registry import MECHANISMS, Registry
from effbench.servers import Servers
from effbench.status import judge
from effbench.visit import Visitor

PASSED, SKIPPED, WAIVED, FAILED = "passed", "skipped", "waived", "FAILED"


@dataclass(frozen=True)
class Verified:
    """A mechanism and its options with (law, outcome, remark) for each law, or why it does not load."""

    name: str
    options: Mapping[str, Any]
    rows: Sequence[tuple[str, str, str]] = ()
    error: str = ""

    @property
    def broken(self) -> bool:
        """Whether a law is."""
        return any(outcome == FAILED for _, outcome, _ in self.rows)

    def table(self) -> str:
        """For people."""
        options = ", ".join(f"{k}={v}" for k, v in self.options.items())
        title = f"{self.name} ({options})" if options else self.name
        if self.error:
            return f"{title}\n  nothing checked: {self.error}"
        counted = {
            kind: sum(o == kind for _, o, _ in self.rows) for kind in (PASSED, SKIPPED, WAIVED, FAILED)
        }
        summary = ", ".join(f"{count} {kind}" for kind, count in counted.items() if count)
        lines = tabulate(self.rows, tablefmt="plain", disable_numparse=True).splitlines()
        return "\n".join([f"{title}: {summary}", *(f"  {line}" for line in lines)])


def verify(
    specs: Sequence[str],
    *,
    options: Mapping[str, Mapping[str, Sequence[Any]]],
    waive: Mapping[str, str],
    strict: bool,
    timeout: float,
) -> Iterator[Verified]:
    """Hold the laws against each mechanism, once for every combination of its options.

    Args:
        specs: mechanisms by any way of naming one.
        options: values of options by mechanism.
        waive: reasons by law, or by ``law:part``.
        strict: add the strict laws.
        timeout: seconds to import a mechanism, and for one law.

    Raises:
        BadInput: something named does not exist, before any law is asked.
    """
    registry = Registry.installed(MECHANISMS)
    for spec in specs:
        registry.check(spec)
    with _visitor(timeout) as visitor:
        laws = _laws(visitor, waive, strict)
        described = [visitor.describe(spec, threads=usable_cores()) for spec in specs]
        asked = [(one, chosen) for one in described for chosen in _options(one, options, described)]
        for description, chosen in asked:
            if description.error is not None:
                yield Verified(description.name, {}, error=description.error)
            else:
                rows = _rows(visitor, description, chosen, laws, waive)
                yield Verified(description.name, chosen, rows)


@contextmanager
def _visitor(timeout: float) -> Iterator[Visitor]:
    servers = Servers()
    budget = Budget(memory_limit=default_memory_limit(), load_timeout=timeout, cell_timeout=timeout)
    with tempfile.TemporaryDirectory() as logs:
        try:
            yield Visitor(servers=servers, budget=budget, logs=Path(logs), seed=0)
        finally:
            servers.stop()


def _options(
    one: Description, given: Mapping[str, Mapping[str, Sequence[Any]]], described: Sequence[Description]
) -> list[dict[str, Any]]:
    unknown = set(given) - {d.name for d in described}
    if unknown:
        raise BadInput(f"--option: {min(unknown)} is none of {', '.join(d.name for d in described)}")
    return list(option_sets(one, given.get(one.name, {})))


def _laws(visitor: Visitor, waive: Mapping[str, str], strict: bool) -> list[str]:
    """The names of the laws, from a child: the laws import torch."""
    answer, failure = _ask(visitor, {"question": "laws", "waive": dict(waive), "strict": strict})
    if failure:
        raise EffbenchError(f"the laws could not be listed: {failure[1]}")
    if "laws" not in answer:
        raise BadInput(f"--waive: {answer['reason']}")
    return list(answer["laws"])


def _rows(
    visitor: Visitor,
    description: Description,
    options: Mapping[str, Any],
    laws: Sequence[str],
    waive: Mapping[str, str],
) -> list[tuple[str, str, str]]:
    rows: list[tuple[str, str, str]] = []
    hung = ""
    for law in laws:
        if hung:
            rows.append((law, SKIPPED, f"not asked, since {hung} hangs"))
            continue
        mine = {place: why for place, why in waive.items() if place.partition(":")[0] == law}
        request = {"question": "verify", "spec": description.spec, "options": dict(options), "law": law}
        answer, failure = _ask(visitor, {**request, "waive": mine})
        if failure:
            hung = law if failure[0] == "timeout" else ""
            rows.append((law, FAILED, failure[1]))
        else:
            rows.append((law, answer["outcome"], answer["remark"]))
    return rows


def _ask(visitor: Visitor, request: Mapping[str, Any]) -> tuple[Mapping[str, Any], tuple[str, str] | None]:
    """The answer of a child, and (how it ended, why) where it gave none."""
    limits = visitor.budget
    outcome = visitor.servers.get("counts", threads=usable_cores(), allocator="default").ask(
        {
            **request,
            "path": sys.path,
            "load_timeout": limits.load_timeout,
            "cell_timeout": limits.cell_timeout,
        },
        log=visitor.logs / "verify.log",
        allow=limits.load_timeout,
        memory=limits.memory_limit,
    )
    if outcome.ended == "answered" and (
        outcome.answer.get("status") == "ok" or outcome.answer.get("bad_input")
    ):
        return outcome.answer, None
    _, _, reason = judge(outcome)
    return outcome.answer, (outcome.ended, reason)
