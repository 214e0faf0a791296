"""Says a verdict: as a table on the terminal, as Markdown for a pull request, as annotations of its files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from effbench.judgement import WORSE, Call, Judgement, Verdict
from effbench.metrics import METRICS, is_vague

_BY_WEIGHT: tuple[Call, ...] = (
    "broke",
    "gone",
    "slower",
    "bigger",
    "inconclusive",
    "incomparable",
    "fixed",
    "new",
    "faster",
    "smaller",
    "same",
)
_HEADER = ("cell", "metric", "verdict", "base", "head", "head / base", "why")


def table(verdict: Verdict, explain: bool = False) -> str:
    """A table of what is not the same, worst first (of everything with ``explain``), and the last lines."""
    shown = flagged(verdict, everything=explain)
    text = tabulate([_line(one) for one in shown], _HEADER, disable_numparse=True) + "\n\n" if shown else ""
    return text + "\n".join(summary(verdict))


def markdown(verdict: Verdict, remarks: Sequence[str] = ()) -> str:
    """A comment for a pull request."""
    shown = flagged(verdict)
    sign = {"fine": "✅", "worse": "❌", "inconclusive": "❔"}[verdict.overall]
    parts = [f"### {sign} effbench gate: {verdict.overall}", ""]
    if shown:
        rows = [[text.replace("|", "\\|") for text in _line(one)] for one in shown]
        parts += [tabulate(rows, _HEADER, tablefmt="github", disable_numparse=True), ""]
    parts += [f"* {line}" for line in (*summary(verdict), *remarks)]
    return "\n".join(parts) + "\n"


def github_annotations(
    verdict: Verdict, mechanisms: Mapping[str, Mapping[str, Any]], top: Path
) -> Iterator[str]:
    """GitHub's workflow commands that mark the file of each mechanism of which something is worse or open."""
    for one in flagged(verdict):
        level = "error" if one.call in WORSE else "warning"
        if one.excused or (level == "warning" and one.call != "inconclusive"):
            continue
        file = str(mechanisms.get(one.mechanism, {}).get("file", ""))
        own = bool(file) and Path(file).is_relative_to(top)
        where = f"file={_property(str(Path(file).relative_to(top)))}," if own else ""
        title = _property(f"{one.cell}: {_title(one)} {one.call}")
        text = f"{_numbers(one)}. {one.why}".lstrip(". ")
        yield f"::{level} {where}title={title}::{_data(text)}"


def flagged(verdict: Verdict, *, everything: bool = False) -> list[Judgement]:
    """What is not the same, worst first."""
    order = {call: rank for rank, call in enumerate(_BY_WEIGHT)}
    shown = [one for one in verdict.judgements if everything or one.call != "same"]
    return sorted(shown, key=lambda one: (bool(one.excused), order[one.call], -abs((one.ratio or 1) - 1)))


def summary(verdict: Verdict) -> list[str]:
    """The geometric means with their numbers of cells, and the verdict in a line."""
    lines = [
        f"{METRICS[metric].title}: geometric mean of head / base {mean:.3f} over {count} cells"
        for metric, (mean, count) in verdict.mean_ratios().items()
    ]
    counted = ", ".join(f"{number} {call}" for call, number in verdict.counts.most_common())
    excused = sum(bool(one.excused) for one in verdict.judgements)
    remark = f" {excused} of them do not count." if excused else ""
    remark += "" if verdict.compared else " Nothing was compared."
    return [*lines, f"{verdict.overall}: {counted or 'no row on either side'}.{remark}"]


def _line(one: Judgement) -> list[str]:
    metric = METRICS.get(one.metric)
    base, head = (
        "" if value is None or metric is None else metric.text(value) for value in (one.base, one.head)
    )
    call = f"({one.call})" if one.excused else one.call
    why = f"does not count: {one.excused}; {one.why}" if one.excused else one.why
    return [one.cell, _title(one), call, base, head, _ratio(one), " ".join(why.split())]


def _title(one: Judgement) -> str:
    return METRICS[one.metric].title if one.metric in METRICS else "Status"


def _ratio(one: Judgement) -> str:
    ratio = "" if one.ratio is None else f"{one.ratio:.3f}"
    if one.low is None or one.high is None:
        return ratio
    return f"{ratio} ±?" if is_vague(one.low, one.high) else f"{ratio} [{one.low:.3f}, {one.high:.3f}]"


def _numbers(one: Judgement) -> str:
    if one.metric not in METRICS or one.base is None or one.head is None:
        return ""
    text = METRICS[one.metric].text
    return f"{text(one.base)} became {text(one.head)}, {_ratio(one)}"


def _data(text: str) -> str:
    """Escaped as GitHub's toolkit escapes a message."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
