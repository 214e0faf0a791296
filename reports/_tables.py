"""The tables of a report as plain text in rows; how they are set is up to each format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from effbench.frame import Run
from effbench.lines import Row, rows_of
from effbench.metrics import METRICS, Scale, step_label
from effbench.plausibility import flags_of, legend, sound

from ._views import ALONG, View, setting_text

#: How a cell without numbers looks in a table and in a figure; never a hole.
FAILURES = {
    "oom": "OOM",
    "oom-predicted": "OOM (predicted)",
    "timeout": "TIMEOUT",
    "error": "ERROR",
    "crashed": "CRASHED",
    "incorrect": "INCORRECT",
    "unsupported": "UNSUPPORTED",
    "skipped": "SKIPPED",
}
NO_NUMBER = "n/a"
#: An interval with a larger half-width (share of the value) is shown by its ends.
WIDE = 0.3
#: FLOPs needed are shown where they are less than this share of those done.
DEAD = 0.99
#: Follows a number whose cell carries a flag that may put it in doubt.
MARK = " †"

#: What is tabulated against length and width.
TABULATED = ("time_s", "total_bytes", "flops", "tokens_per_s")
IN_SOME_RUNS = ("instructions", "state_bytes")


@dataclass(frozen=True)
class Table:
    """A title, one row of headers, rows of text, and a remark below."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    numeric: bool = False  # numbers in every column but the first


def tabulated(run: Run) -> tuple[str, ...]:
    """The metrics that tables show: some only where a run has them."""
    return TABULATED + tuple(name for name in IN_SOME_RUNS if run.values(name).notna().any())


def scaling_table(view: View, name: str) -> Table:
    """One metric of one setting: mechanisms down, lengths or widths across; each column has one unit."""
    metric = METRICS[name]
    found: dict[int, list[Row]] = {step: [] for step in view.steps}
    for row in view.rows:
        found[row[view.along]].append(row)
    header, columns = [""], []
    for step, rows in found.items():
        scale = metric.format(row[name] for row in rows)
        header.append(f"{step_label(view.along, step)} ({scale.unit})")
        columns.append({row["series"]: _entry(row, name, scale) for row in rows})
    body = [[label, *(column.get(label, "not asked") for column in columns)] for label in view.series]
    title = f"{metric.title} by {ALONG[view.along]} ({view.title})"
    return Table(title, header, body, _note(name, body), numeric=True)


def point_table(run: Run, view: View) -> Table:
    """Every metric of one setting at one point: mechanisms down, metrics across."""
    header, columns = [""], []
    for name in tabulated(run):
        scale = METRICS[name].format(row[name] for row in view.rows)
        header.append(f"{METRICS[name].title} ({scale.unit})")
        columns.append([_entry(row, name, scale) for row in view.rows])
    body = [[row["series"], *cells] for row, *cells in zip(view.rows, *columns, strict=True)]
    return Table(f"At {view.title}", header, body, _note("total_bytes", body), numeric=True)


def status_table(run: Run) -> Table:
    """How many cells ended how; the counts add up to the plan."""
    counts = Counter(run.frame["status"])
    known = ["ok", *FAILURES]
    body = [[status, str(counts[status])] for status in known if counts[status]]
    return Table("", ["Status", "Cells"], [*body, ["all", str(len(run.frame))]], numeric=True)


def mechanism_table(run: Run) -> Table:
    """What was compared, as the mechanisms declare themselves."""
    body = []
    for name, about in run.info.get("mechanisms", {}).items():
        growth = about.get("complexity") or {}
        body.append(
            [
                name,
                about.get("title") or name,
                about.get("paper") or "",
                growth.get("time", "not declared"),
                growth.get("memory", "not declared"),
                about.get("same_as") or "",
            ]
        )
    header = ["Name", "Mechanism", "Paper", "Time (declared)", "Memory (declared)", "Same function as"]
    return Table("", header, body)


def failed_table(run: Run) -> Table:
    """Every cell without numbers, and why."""
    known = {row["id"]: row for row in rows_of(run)}

    def named(cell_id: str) -> str:
        found = known.get(cell_id)
        return f"{found['series']}, {setting_text(found, run.varying)} ({cell_id})" if found else cell_id

    body = []
    for row in known.values():
        if row["status"] != "ok":
            answer = run.answer(row["id"])
            body.append(
                [
                    row["series"],
                    setting_text(row, run.varying),
                    FAILURES.get(row["status"], row["status"]),
                    answer.stage if answer else "",
                    row["reason"],
                    named(answer.caused_by) if answer else "",
                ]
            )
    return Table("", ["Mechanism", "Setting", "Status", "Stage", "Reason", "Caused by"], body)


def flagged_table(run: Run) -> Table:
    """Every cell with numbers that carries a flag."""
    flagged = [row for row in rows_of(run) if row["status"] == "ok" and row["flags"]]
    body = [
        [row["series"], setting_text(row, run.varying), row["flags"].replace(";", ", ")] for row in flagged
    ]
    used = legend(flag for row in flagged for flag in flags_of(row))
    note = "; ".join(f"{flag}: {meaning}" for flag, meaning in used.items())
    return Table("", ["Mechanism", "Setting", "Flags"], body, note)


def missing_table(run: Run) -> Table:
    """Why cells with numbers lack one: each reason with how many cells it holds for."""
    answers = [run.answer(cell_id) for cell_id in run.frame["id"]]
    counts = Counter(pair for answer in answers if answer for pair in answer.missing.items())
    body = [[METRICS[name].title, reason, str(cells)] for (name, reason), cells in counts.most_common()]
    return Table("", ["Number", "Why it is missing", "Cells"], body)


def _entry(row: Row, name: str, scale: Scale) -> str:
    """One cell of a table: the number with its interval, or why there is none."""
    value = row[name]
    if row["status"] != "ok":
        return FAILURES.get(row["status"], str(row["status"]).upper())
    if pd.isna(value):
        return NO_NUMBER
    text = scale.number(value)
    if name == "time_s" and pd.notna(row["time_low_s"]):
        text += interval(row["time_low_s"], value, row["time_high_s"], scale)
    if name == "total_bytes":
        text += f" (+{scale.number(row['peak_bytes'])})"
    if name == "flops" and row["flops_needed"] < DEAD * value:
        text += f" (needed {scale.number(row['flops_needed'])})"
    return text + ("" if sound(row, name) else MARK)


def interval(low: float, value: float, high: float, scale: Scale) -> str:
    """Half the width in per cent; both ends where that would mislead."""
    share = (high - low) / 2 / value
    if share >= WIDE:
        return f" [{scale.number(low)}, {scale.number(high)}]"
    return f" ±{100 * share:.0f} %" if share >= 0.01 else f" ±{100 * share:.1f} %"


def _note(name: str, body: Sequence[Sequence[str]]) -> str:
    """What a reader must know to read this table."""
    cells = [cell for row in body for cell in row[1:]]
    parts = []
    if any("±" in cell or "[" in cell for cell in cells):
        parts.append("± is half of the 95 % interval, a wide one is in [brackets]")
    if name == "total_bytes" and any("(+" in cell for cell in cells):
        parts.append("memory in place before the call plus the peak above it; in brackets the rise alone")
    if any("(needed " in cell for cell in cells):
        parts.append("FLOPs as done; in brackets what an output depends on, without the dead parts of tiles")
    if any(cell.endswith(MARK) for cell in cells):
        parts.append(f"{MARK.strip()} flagged, see the end of this report")
    text = "; ".join(parts)
    return text[:1].upper() + text[1:] + "." if text else ""
