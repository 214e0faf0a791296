"""The figures as PDF files, one column of a paper wide: ``time-by-seq.pdf`` and the like."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from effbench.frame import Run

from ._figures import pictures
from ._style import COLUMN


def render(run: Run, folder: Path) -> None:
    """Writes one file a figure; fonts are embedded as TrueType, as publishers ask."""
    with mpl.rc_context({"pdf.fonttype": 42}):
        for picture in pictures(run):
            (Path(folder) / f"{picture.name}.pdf").write_bytes(picture.saved("pdf", COLUMN))
