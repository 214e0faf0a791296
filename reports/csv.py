"""The frame as ``table.csv``: one row for every cell of the plan."""

from __future__ import annotations

from pathlib import Path

from effbench.frame import Run, write_table


def render(run: Run, folder: Path) -> None:
    """Writes ``table.csv`` with the frame's columns, units plain SI."""
    write_table(run, Path(folder) / "table.csv")
