"""Findings for people and for programs: a table, a list where the terminal is narrow, plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from effbench.doctor.finding import Finding, State

_NARROW = 72  # columns, below which a table would leave no room for words
_STYLES: dict[State, str] = {"ok": "green", "limited": "yellow", "absent": "red"}


def as_objects(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """The findings as plain data, in their order."""
    return [asdict(finding) for finding in findings]


def show(findings: Iterable[Finding]) -> None:
    """Print the findings and how many are in each state; the state is a word, colour only repeats it."""
    with Console(stderr=True).status("Looking at this machine"):
        known = list(findings)
    console = Console()
    if console.width < _NARROW:
        for finding in known:
            console.print(Text.assemble(finding.name, ": ", (finding.state, _STYLES[finding.state])))
            console.print(Padding(_words(finding), (0, 0, 0, 2)))
    else:
        table = Table(header_style="", show_lines=True)
        table.add_column("what", max_width=16)
        table.add_column("state", no_wrap=True)
        table.add_column("found, and what it means")
        for finding in known:
            table.add_row(finding.name, Text(finding.state, _STYLES[finding.state]), _words(finding))
        console.print(table)
    states = [finding.state for finding in known]
    console.print(", ".join(f"{states.count(state)} {state}" for state in _STYLES))


def _words(finding: Finding) -> Text:
    words = Text(f"{finding.found}\n{finding.means}")
    if finding.remedy:
        words.append(f"\nremedy: {finding.remedy}", style="bold")
    return words
