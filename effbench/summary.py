"""What a run says on the terminal: each mechanism in a line, the answer at a point, and what is missing.

A terminal too narrow for a table gets a few lines a mechanism instead. Colours, and NO_COLOR, are rich's job.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from effbench.against import brief, default_baseline, rivalries, same_function
from effbench.frame import NOT_YET, Run
from effbench.lines import Line, Row, Setting, settings
from effbench.metrics import METRICS, size_label
from effbench.plausibility import flags_of, sound
from effbench.ranking import HEADER, Ranking, is_one_point, points, texts, time_text
from effbench.scaling import TIMED, growth_of

#: Columns that a table of a summary needs; below that, lines.
NARROW = 90


def summarise(run: Run, folder: Path, console: Console) -> None:
    """Print what each mechanism costs, how that grows and what to doubt, and where the report is."""
    lines = settings(run, "seq")
    if lines:
        setting = max(lines, key=_size)
        title = f"At length {size_label(_longest(setting))}, {_where(setting.lines[0].rows[0])}"
        show(console, title, _header(run), _rows(run, setting))
    elif is_one_point(run):
        answer_at_points(run, console)
    baseline = default_baseline(run)
    if lines and baseline:
        console.print(f"= computes the same function as {baseline}; † a flag puts it in doubt", style="dim")
    counts = run.frame["status"].value_counts()
    console.print(f"{len(run.frame)} cells: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    console.print("Cost is not quality: a cheaper mechanism may compute something else.", style="dim")
    console.print(
        f"Report: {folder / 'report.md'} · {folder / 'report.html'} · {folder / 'table.csv'}", soft_wrap=True
    )


def answer_at_points(run: Run, console: Console) -> None:
    """Print the answer at the points that were asked for, or that the run gives by itself."""
    for ranking in points(run):
        answer(run, ranking, console)


def answer(run: Run, ranking: Ranking, console: Console) -> None:
    """Print the ranking at a point, and the fastest within a memory limit."""
    setting = ranking.setting
    title = f"At length {size_label(setting['seq'])}, {_where(setting)}"
    if ranking.baseline:
        groups = (
            (f"the same function as {ranking.baseline}", [p for p in ranking.places if p.same_function]),
            ("other functions, which need training", [p for p in ranking.places if not p.same_function]),
        )
    else:
        groups = (("", list(ranking.places)), ("", []))
    for name, places in groups:
        if places:
            show(console, f"{title}: {name}" if name else title, HEADER, [texts(place) for place in places])
    limit, memory = run.info.get("memory_limit"), METRICS["total_bytes"]
    if limit is not None:
        within = ranking.cheapest_within(limit)
        names = ", ".join(f"{place.row['series']} ({time_text(place.row)})" for place in within)
        names = names or "none that is ranked is known to hold so little"
        console.print(f"Fastest within {memory.text(limit)}: {names}", markup=False)
    elif ranking.frontier:
        names = ", ".join(
            f"from {memory.text(p.row['total_bytes'])} {p.row['series']}" for p in ranking.frontier
        )
        console.print(f"Fastest within a memory limit: {names}", markup=False)
    console.print("Cost is not quality: a cheaper mechanism may compute something else.", style="dim")


def say_what_is_missing(run: Run, console: Console) -> None:
    """Print what an unfinished or damaged run lacks, and the one beside it; nothing of whole ones."""
    if run.beside is not None:
        say_what_is_missing(run.beside, console)
    for text in run.info.get("damage", ()):
        console.print(f"damaged: {text}", style="bold", markup=False)
    waiting = int((run.frame["reason"] == NOT_YET).sum())
    if waiting:
        console.print(f"{waiting} of {len(run.frame)} cells have no answer yet", style="bold")


def _size(setting: Setting) -> tuple[int, int]:
    lengths = {row["seq"] for line in setting.lines for row in line.rows}
    return len(lengths), sum(len(line.rows) for line in setting.lines)


def _longest(setting: Setting) -> int:
    return int(max(row["seq"] for line in setting.lines for row in line.rows))


def _where(row: Row) -> str:
    mode = f"{row['mode']}, causal" if row["causal"] else row["mode"]
    return f"width {row['dim']}, {mode}, batch {row['batch']}, {row['dtype']}, {row['threads']} threads"


def _header(run: Run) -> Sequence[str]:
    baseline = default_baseline(run)
    compared = (f"Faster than {baseline} from",) if baseline else ()
    return ("Mechanism", "Time", "Memory (live + peak)", "Time grows as n^", *compared, "Flags")


def _rows(run: Run, setting: Setting) -> list[tuple[str, ...]]:
    """Fastest first; those without a number at the largest length last."""
    longest = _longest(setting)
    baseline = default_baseline(run)
    crossovers = {
        one.line.series: brief(one.found)
        for one in rivalries(run)
        if one.metric == TIMED and one.setting.values == setting.values
    }
    found = []
    for line in setting.lines:
        row = line.rows[-1] if line.rows[-1]["seq"] == longest else None
        known = row is not None and row["status"] == "ok" and pd.notna(row["time_s"])
        exponent = growth_of(run, setting, line, TIMED)
        compared = (crossovers.get(line.series, ""),) if baseline else ()
        place = (0, row["time_s"]) if row is not None and known else (1, 0.0)
        name = line.series
        if baseline and line.mechanism != baseline and same_function(run, line.mechanism, baseline):
            name += " ="
        found.append((place, (name, *_costs(row), str(exponent), *compared, _flags(line))))
    return [texts for _, texts in sorted(found, key=lambda one: one[0])]


def _costs(row: Row | None) -> tuple[str, str]:
    if row is None:
        return "not asked", ""
    if row["status"] != "ok":
        return str(row["status"]).upper(), ""
    memory: str = "n/a" if pd.isna(row["total_bytes"]) else METRICS["total_bytes"].text(row["total_bytes"])
    return (
        time_text(row) + ("" if sound(row, "time_s") else " †"),
        memory + ("" if sound(row, "total_bytes") else " †"),
    )


def _flags(line: Line) -> str:
    """The flags of a mechanism's cells that put something in doubt."""
    return ", ".join(
        dict.fromkeys(
            flag
            for row in line.rows
            for flag in flags_of(row)
            if row["status"] == "ok" and not sound({"status": "ok", "flags": flag})
        )
    )


def show(console: Console, title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table, or on a narrow terminal a few lines for each row."""
    if console.width >= NARROW:
        table = Table(title=escape(title), title_justify="left", header_style="")
        for name in header:
            table.add_column(escape(name), overflow="fold")
        for row in rows:
            table.add_row(*map(escape, row))  # intervals are in [brackets], names are strangers'
        console.print(table)
        return
    console.print(title, style="bold", markup=False)
    name_at = 1 if header[0] == "Rank" else 0
    for row in rows:
        console.print(row[name_at], style="bold", markup=False)
        for name, text in zip(header, row, strict=True):
            if text and name != header[name_at]:
                console.print(f"  {name}: {text}", markup=False, highlight=False)
