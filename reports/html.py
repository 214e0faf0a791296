"""The report as one self-contained file, ``report.html``: the pictures are inside, nothing is fetched."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from effbench.frame import Run

from ._document import document
from ._figures import Picture


def render(run: Run, folder: Path) -> None:
    """Writes ``report.html``."""
    environment = Environment(
        loader=PackageLoader("effbench.reports", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["data_uri"] = _data_uri
    text = environment.get_template("report.html.j2").render(report=document(run))
    (Path(folder) / "report.html").write_text(text, encoding="utf-8")


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{b64encode(picture.png).decode()}"
