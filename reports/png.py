"""The figures as PNG files, wide enough to be read at 800 pixels."""

from __future__ import annotations

from pathlib import Path

from effbench.frame import Run

from ._figures import pictures


def render(run: Run, folder: Path) -> None:
    """Writes ``time-by-seq.png`` and the like; a facet stands in the name where there are several."""
    for picture in pictures(run):
        (Path(folder) / picture.file).write_bytes(picture.png)
