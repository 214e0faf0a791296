"""What the page says of every cell: a row of the table, and all that is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from effbench.frame import AXES, Run
from effbench.lines import Row, rows_of
from effbench.metrics import METRICS, step_label
from effbench.plausibility import flags_of, legend, sound

from ._machine import plain
from ._repeat import command
from ._tables import FAILURES, MARK, NO_NUMBER, interval

#: The metrics of the table; the view of one cell shows every number.
SHOWN = ("time_s", "tokens_per_s", "total_bytes", "peak_bytes", "flops", "flops_per_s", "ceiling_fraction")
#: Characters of a log that are kept, from its end.
MOST_LOG = 4000


@dataclass(frozen=True)
class Column:
    """One column of the table; ``choices`` are the values to filter by."""

    title: str
    metric: str = ""
    choices: Sequence[str] = ()


@dataclass(frozen=True)
class CellRow:
    """One cell: what its row says, and what each entry is sorted by (None: nothing to sort by)."""

    id: str
    entries: Sequence[str]
    keys: Sequence[str | float | None]


@dataclass(frozen=True)
class CellTable:
    """Every cell of the plan, in its order."""

    columns: Sequence[Column]
    rows: Sequence[CellRow] = field(default_factory=list)


def cell_table(run: Run) -> CellTable:
    """The table of all cells, each number in the unit that suits it."""
    axes = list(dict.fromkeys(("seq", "dim", *run.varying)))
    labels = {"seq": "Length", "dim": "Width"}
    rows = []
    for row in rows_of(run):
        sizes = [(_said(axis, row[axis]), row[axis]) for axis in axes]
        numbers = [(_entry(row, name), row[name]) for name in SHOWN]
        status = FAILURES.get(row["status"], row["status"])
        flags = ", ".join(flags_of(row))
        both = [(row["series"], row["series"]), *sizes, (status, status), *numbers, (flags, flags)]
        rows.append(CellRow(row["id"], [text for text, _ in both], [_key(key) for _, key in both]))
    titles = ["Mechanism", *(labels.get(axis, axis.capitalize()) for axis in axes), "Status"]
    chosen = [Column(title, choices=_choices(rows, place)) for place, title in enumerate(titles)]
    return CellTable([*chosen, *(Column(METRICS[name].title, name) for name in SHOWN), Column("Flags")], rows)


def details(run: Run) -> list[dict[str, Any]]:
    """For each cell what its view shows, as plain data: axes, numbers, samples, visits, log and command.

    ``axes`` are in the order of ``AXES`` and ``numbers`` in that of ``METRICS``.
    """
    planned = {entry["id"]: entry["cell"] for entry in run.info.get("plan", [])}
    found = []
    for row in rows_of(run):
        answer = run.answer(row["id"])
        bounds = [row["time_low_s"], row["time_high_s"]]
        known = not pd.isna(bounds).any()
        found.append(
            {
                "id": row["id"],
                "axes": [plain(row[axis]) for axis in AXES],
                "status": FAILURES.get(row["status"], row["status"]),
                "stage": answer.stage if answer else "",
                "reason": row["reason"],
                "cause": answer.caused_by if answer else "",
                "flags": flags_of(row),
                "bounds": bounds if known else None,
                "interval": " to ".join(_text("time_s", bound) for bound in bounds) if known else "",
                "numbers": [_text(name, row[name]) for name in METRICS],
                "samples": [[float(f"{one:.6g}") for one in group] for group in run.samples(row["id"])],
                "visits": [_visit(visit) for visit in run.visits.get(row["id"], ())],
                "path": {name: part for name, part in (answer.path if answer else {}).items() if part},
                "source": answer.source if answer else "",
                "log": run.log(row["id"])[-MOST_LOG:],
                "command": command(planned[row["id"]], run.info),
            }
        )
    return found


def flag_meanings(run: Run) -> dict[str, str]:
    """The meaning of each flag that a cell of this run carries."""
    return legend(flag for flags in run.frame["flags"] for flag in flags.split(";") if flag)


def _said(axis: str, value: Any) -> str:
    return step_label(axis, value) if axis in ("seq", "dim") else plain(value)


def _entry(row: Row, name: str) -> str:
    """A number of a row that has numbers, with its interval and whether a flag puts it in doubt."""
    value = row[name]
    if row["status"] != "ok":
        return ""
    if pd.isna(value):
        return NO_NUMBER
    scale = METRICS[name].format([value])
    width = ""
    if name == "time_s" and pd.notna(row["time_low_s"]):
        width = interval(row["time_low_s"], value, row["time_high_s"], scale)
    return scale(value) + width + ("" if sound(row, name) else MARK)


def _text(name: str, value: float) -> str:
    return "" if pd.isna(value) else METRICS[name].text(value)


def _key(value: Any) -> str | float | None:
    if isinstance(value, float) and pd.isna(value):
        return None
    return value if isinstance(value, str) else float(value)


def _choices(rows: Sequence[CellRow], place: int) -> list[str]:
    """The values of a column, numbers by size and words as they come."""
    pairs = dict.fromkeys((row.keys[place], row.entries[place]) for row in rows)
    numeric = all(isinstance(key, float) for key, _ in pairs)
    return [text for _, text in (sorted(pairs) if numeric else pairs)]


def _visit(visit: Any) -> dict[str, Any]:
    """When and by whom a cell was visited, as far as it is recorded."""
    time = visit.time
    return {
        "round": visit.round,
        "process": visit.process,
        "started": visit.started,
        "took": METRICS["time_s"].text(visit.took_s) if visit.took_s else "",
        "first": METRICS["time_s"].text(time.first_call_s) if time and time.first_call_s else "",
        "faults": plain(time.minor_faults) if time else "",
        "others": plain(time.other_cores) if time else "",
        "status": visit.status,
    }
