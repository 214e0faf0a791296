"""The report as a page of a repository: ``README.md``, whose pictures are dark where the reader's page is.

GitHub shows a folder's README.md, and chooses among the sources of a ``picture`` by the reader's theme.
"""

from __future__ import annotations

from pathlib import Path

from markupsafe import escape

from effbench.frame import Run

from . import markdown, png
from ._figures import Picture, pictures
from ._style import DARK


def render(run: Run, folder: Path) -> None:
    """Writes ``README.md``, and each picture twice: ``time-by-seq.png`` and ``time-by-seq-dark.png``."""
    png.render(run, folder)
    for picture in pictures(run):
        (Path(folder) / _dark(picture)).write_bytes(picture.saved("png", DARK))
    (Path(folder) / "README.md").write_text(markdown.text_of(run, _set_picture), encoding="utf-8")


def _dark(picture: Picture) -> str:
    return f"{picture.name}-dark.png"


def _set_picture(picture: Picture) -> str:
    return (
        "<picture>\n"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_dark(picture)}">\n'
        f'<img src="{picture.file}" alt="{escape(picture.title)}" width="800">\n'
        "</picture>"
    )
