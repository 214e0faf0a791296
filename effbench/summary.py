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
from effbench.bars import Bar, show_bars
from effbench.frame import NOT_YET, Run
from effbench.lines import Line, Row, Setting, settings
from effbench.metrics import METRICS
from effbench.plausibility import flags_of, sound
from effbench.ranking import HEADER, Place, Ranking, points, texts, time_text
from effbench.scaling import TIMED, growth_of
from effbench.words import counted, setting_title, share

#: Columns that a table of a summary needs; below that, lines.
NARROW = 90


def summarise(run: Run, folder: Path, console: Console) -> None:
    """Print what each mechanism costs, how that grows and what to doubt, and where the report is."""
    lines = settings(run, "seq") or settings(run, "dim")
    if lines:
        setting = max(lines, key=_size)
        title = f"At {setting_title({setting.along: _largest(setting), **setting.values})}"
        show(console, title, _header(run, setting.along), _rows(run, setting))
    else:
        answer_at_points(run, console)
    baseline = default_baseline(run)
    if lines and baseline:
        console.print(f"= computes the same function as {baseline}; † a flag puts it in doubt", style="dim")
    counts = run.frame["status"].value_counts()
    console.print(
        f"{counted(len(run.frame), 'cell')}: " + ", ".join(f"{n} {status}" for status, n in counts.items())
    )
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
    title = f"At {ranking.title}"
    show_bars(console, f"{title}: time", [(name, [_timed(p) for p in own]) for name, own in ranking.groups])
    console.print("full: up to the low end of the 95 % interval; shaded: to its high end; = tie", style="dim")
    for name, places in ranking.groups:
        show(console, name or title, HEADER, [texts(place) for place in places])
    limit, memory = run.info.get("memory_limit"), METRICS["total_bytes"]
    if limit is not None:
        held = [(name, [_holding(p, limit) for p in own]) for name, own in ranking.groups]
        show_bars(console, f"{title}: memory, with the limit of {memory.text(limit)}", held)
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


def _timed(place: Place) -> Bar:
    row, name = place.row, f"{place.row['series']} {place.rank_text}".rstrip()
    if row["status"] != "ok":
        return Bar(name, row["status"].upper())
    text = time_text(row) + ("" if sound(row, "time_s") else " †")
    if pd.isna(row["time_low_s"]):
        return Bar(name, text, row["time_s"], row["time_s"])
    return Bar(name, text, row["time_low_s"], row["time_high_s"])


def _holding(place: Place, limit: float) -> Bar:
    row = place.row
    if row["status"] != "ok" or pd.isna(row["total_bytes"]):
        return Bar(row["series"], "n/a" if row["status"] == "ok" else row["status"].upper())
    over = "" if row["total_bytes"] <= limit else ", over the limit"
    text = METRICS["total_bytes"].text(row["total_bytes"]) + ("" if sound(row, "total_bytes") else " †")
    return Bar(row["series"], text + over, row["total_bytes"], row["total_bytes"])


def say_what_is_missing(run: Run, console: Console) -> None:
    """Print what an unfinished or damaged run lacks, and the one beside it; nothing of whole ones."""
    if run.beside is not None:
        say_what_is_missing(run.beside, console)
    for text in run.info.get("damage", ()):
        console.print(f"damaged: {text}", style="bold", markup=False)
    waiting = int((run.frame["reason"] == NOT_YET).sum())
    if waiting:
        console.print(f"{share(waiting, len(run.frame), 'has', 'have')} no answer yet", style="bold")


def _size(setting: Setting) -> tuple[int, int]:
    steps = {row[setting.along] for line in setting.lines for row in line.rows}
    return len(steps), sum(len(line.rows) for line in setting.lines)


def _largest(setting: Setting) -> int:
    return int(max(row[setting.along] for line in setting.lines for row in line.rows))


def _header(run: Run, along: str) -> Sequence[str]:
    baseline = default_baseline(run)
    compared = (f"Faster than {baseline} from",) if baseline else ()
    grows = f"Time grows as {'n' if along == 'seq' else 'd'}^"
    return ("Mechanism", "Time", "Memory (live + peak)", grows, *compared, "Flags")


def _rows(run: Run, setting: Setting) -> list[tuple[str, ...]]:
    """Fastest first; those without a number at the largest size last."""
    largest = _largest(setting)
    baseline = default_baseline(run)
    crossovers = {
        one.line.series: brief(one.found, setting.along)
        for one in rivalries(run)
        if one.metric == TIMED and one.setting.values == setting.values
    }
    found = []
    for line in setting.lines:
        row = line.rows[-1] if line.rows[-1][setting.along] == largest else None
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
