"""The figures as SVG, for light pages and for dark ones: ``time-by-seq.svg``, ``time-by-seq-dark.svg``."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from effbench.frame import Run

from ._figures import pictures
from ._style import DARK


def render(run: Run, folder: Path) -> None:
    """Writes two files a figure; letters are outlines, so that they look the same everywhere."""
    with mpl.rc_context({"svg.hashsalt": "effbench"}):
        for picture in pictures(run):
            (Path(folder) / f"{picture.name}.svg").write_bytes(picture.saved("svg"))
            (Path(folder) / f"{picture.name}-dark.svg").write_bytes(picture.saved("svg", DARK))
