"""The report as ``report.md``, with the pictures that it shows beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from tabulate import tabulate

from effbench.frame import Run

from . import png
from ._document import document
from ._escape import markdown
from ._figures import Picture
from ._tables import Table


def render(run: Run, folder: Path) -> None:
    """Writes ``report.md`` and the PNG files."""
    png.render(run, folder)
    (Path(folder) / "report.md").write_text(text_of(run, _set_picture), encoding="utf-8")


def text_of(run: Run, set_picture: Callable[[Picture], str]) -> str:
    """The report in Markdown; ``set_picture`` says how a picture is shown."""
    environment = Environment(  # Markdown, not HTML: the filter `md` escapes
        loader=PackageLoader("effbench.reports", ""),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": markdown, "tabulate": _set_table, "picture": set_picture}
    return environment.get_template("report.md.j2").render(report=document(run))


def _set_picture(picture: Picture) -> str:
    return f"![{markdown(picture.title)}]({picture.file})"


def _set_table(table: Table) -> str:
    """A pipe table: the first column to the left, numbers to the right."""
    rows = [[markdown(cell) for cell in row] for row in table.rows]
    header = [markdown(name) for name in table.header]
    align = ["left", *["right" if table.numeric else "left"] * (len(header) - 1)]
    return tabulate(rows, header, tablefmt="pipe", disable_numparse=True, colalign=align if rows else None)
