"""What a run says on the terminal when it ends: fastest first at its largest question, and where to look."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from effbench.frame import Run
from effbench.metrics import METRICS

#: Axes that make a setting; a summary shows the setting with the most cells.
_SETTING = ["level", "mode", "causal", "batch", "dtype", "device", "threads", "compile", "gemm", "allocator"]


def summarise(run: Run, folder: Path, console: Console) -> None:
    """Print each mechanism's time and memory over length at the width with most lengths, and the statuses."""
    frame = run.frame
    if not frame.empty:
        part = _longest_line(frame)
        console.print(_table(part, "time_s", f"Time of one pass over length, {_where(part)}"))
        console.print(_table(part, "peak_bytes", "Peak memory above what was in place"))
    counts = frame["status"].value_counts()
    console.print(f"{len(frame)} cells: " + ", ".join(f"{n} {status}" for status, n in counts.items()))
    console.print("Cost is not quality: a cheaper mechanism may compute something else.", style="dim")
    console.print(
        f"Report: {folder / 'report.md'} · {folder / 'report.html'} · {folder / 'table.csv'}", soft_wrap=True
    )


def _longest_line(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of one setting and width that cover most lengths."""
    groups = frame.groupby([*_SETTING, "dim"], dropna=False, sort=False)
    return max((rows for _, rows in groups), key=lambda rows: (rows["seq"].nunique(), len(rows)))


def _where(part: pd.DataFrame) -> str:
    row = part.iloc[0]
    mode = f"{row['mode']}, causal" if row["causal"] else row["mode"]
    return f"{mode}, dim {row['dim']}, batch {row['batch']}, {row['dtype']}, {row['threads']} threads"


def _table(part: pd.DataFrame, metric: str, title: str) -> Table:
    lengths = sorted(part["seq"].unique())
    table = Table(title=title, title_justify="left", header_style="")
    table.add_column("mechanism", no_wrap=True)
    for length in lengths:
        table.add_column(str(length), justify="right")
    rows = []
    for (mechanism, options), cells in part.groupby(["mechanism", "options"], sort=False):
        several = part.loc[part["mechanism"] == mechanism, "options"].nunique() > 1
        label = f"{mechanism} {options}" if several else str(mechanism)
        by_length = cells.set_index("seq")
        texts = [_text(by_length.loc[n], metric) if n in by_length.index else "" for n in lengths]
        measured = by_length[metric].dropna()
        largest = (-measured.index.max(), measured.loc[measured.index.max()]) if len(measured) else (1, 0.0)
        rows.append((largest, label, texts))
    for _, label, texts in sorted(rows, key=lambda row: row[0]):
        table.add_row(label, *texts)
    return table


def _text(row: pd.Series, metric: str) -> str:
    return METRICS[metric].text(float(row[metric])) if pd.notna(row[metric]) else str(row["status"]).upper()
