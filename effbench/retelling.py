"""How a reproduction is told: a table on the terminal, and a page in Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console

from effbench.claim import Ratio
from effbench.claims import Claims
from effbench.frame import Run
from effbench.reproduction import Outcome
from effbench.summary import show

_HEADER = ("Claim", "Printed", "Holds if", "Here", "Verdict")
_RULE = """A ratio holds where its whole 95 % interval lies within the range of the third column, and
does not hold where all of it lies outside; an interval across a bound decides nothing. An exponent
likewise, by the range that holds it for large sizes. An order holds where each cell of a group is
decidedly below each of the groups after it. How far a mechanism goes is compared where the other ended
for want of memory; what comes sooner does so where its whole interval of lengths lies at or below the
other's. Nothing rests on a cell that failed or that carries a flag which puts the number in doubt;
ratios of times that were printed for a TPU are shown and not judged. Lines with an arrow stand beside
the claim above them and are not judged. Batch sizes and processors are not the paper's: what is
reproduced is a direction, and a size within a factor."""


def tell(outcomes: Sequence[Outcome], claims: Claims, console: Console) -> None:
    """Print claim by claim what was printed, what this run gave, and whether the claim holds."""
    show(console, "What the papers printed, and what this run gave", _HEADER, _rows(outcomes, claims))
    console.print(_counts(outcomes))


def as_markdown(run: Run, outcomes: Sequence[Outcome], claims: Claims) -> str:
    """The same as a page, with the machine, the sources and the rule."""
    rows = [[_plain(text) for text in row] for row in _rows(outcomes, claims)]
    sources = [
        f"* {_plain(one.paper)}: measured on {_plain(one.hardware)}" for one in claims.sources.values()
    ]
    notes = [f"* {_plain(one.claim.name)}: {_plain(one.claim.note)}" for one in outcomes if one.claim.note]
    parts = [
        f"# Reproduced: {_plain(str(run.info.get('title') or run.info.get('suite')))}",
        _plain(str(run.info.get("description", ""))),
        _machine(run),
        f"**{_counts(outcomes)}**",
        "\n".join(f"| {' | '.join(row)} |" for row in (_HEADER, ["---"] * len(_HEADER), *rows)),
        "\n".join(["Sources:", "", *sources]),
        "\n".join(["Where a setting is not the paper's:", "", *notes]) if notes else "",
        _RULE,
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _rows(outcomes: Sequence[Outcome], claims: Claims) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    for one in outcomes:
        printed_in = f"{claims.sources[one.claim.source].paper.partition(',')[0]}, {one.claim.table}"
        verdict: str = one.verdict
        if one.reason:
            verdict += f": {one.reason}" if one.verdict == "not comparable" else f" ({one.reason})"
        claim = f"{one.claim.name} ({printed_in})"
        if isinstance(one.claim, Ratio):
            claim = f"{one.claim.name}: {_LABELS[one.claim.metric]} ({printed_in})"
        found.append((claim, one.printed, one.allowed, one.measured or "–", verdict))
        found += [(f"↳ {also.says}", also.printed or "–", "", also.measured, "") for also in one.also]
    return found


_LABELS = {
    "speed": "ratio of speeds",
    "tokens_per_s": "ratio of tokens/s",
    "time_s": "ratio of times",
    "peak_bytes": "ratio of peaks of memory",
    "total_bytes": "ratio of memory",
    "params": "ratio of parameters",
    "flops": "ratio of FLOPs",
}


def _counts(outcomes: Sequence[Outcome]) -> str:
    verdicts = Counter(one.verdict for one in outcomes)
    return (
        f"{len(outcomes)} claims: {verdicts['holds']} hold, {verdicts['does not hold']} do not hold, "
        f"{verdicts['not comparable']} cannot be compared here"
    )


def _machine(run: Run) -> str:
    machine = run.machine
    cpu, torch = machine.get("cpu", {}), machine.get("torch", {})
    begun = next((one.get("date", "") for one in run.info.get("circumstances", ())), "")
    cards = ", ".join(str(card.get("name", "a GPU")) for card in machine.get("gpu") or ())
    facts = [
        f"{cpu.get('model', 'an unknown processor')}, {cpu.get('usable_cores', '?')} usable cores",
        cards,
        f"torch {torch.get('version', '?')}",
        f"begun {begun[:10]}" if begun else "",
        f"written by effbench {run.info.get('effbench', '')} as `{run.info.get('command', '')}`",
    ]
    return _plain("; ".join(filter(None, facts))) + "."


def _plain(text: str) -> str:
    """What a stranger wrote, as text in a cell of a table."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("\n", " ")
