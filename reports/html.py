"""The report as one self-contained file, ``report.html``: pictures, data and programs are inside.

Everything can be read without JavaScript. With it there are a chart to zoom into, a table to sort and
filter, and a view of each cell. The page's own policy lets no script run but the two whose hashes it names,
and nothing be fetched, whatever a plugin calls itself.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from effbench.frame import AXES, Run
from effbench.metrics import METRICS

from ._cells import CellTable, cell_table, details, flag_meanings
from ._chart import looks, metrics, settings
from ._document import document
from ._figures import Picture
from ._machine import sentence


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
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    table = cell_table(run)
    scripts = [get_plotlyjs(), _own("page.js")]
    text = environment.get_template("report.html.j2").render(
        report=document(run),
        table=table,
        data=_data(run, table),
        style=_own("page.css"),
        scripts=scripts,
        hashes=[_hash(script) for script in scripts],
    )
    (Path(folder) / "report.html").write_text(text, encoding="utf-8")


def _data(run: Run, table: CellTable) -> dict[str, Any]:
    """What the page's program works on."""
    return {
        "axes": AXES,
        "numbers": [metric.title for metric in METRICS.values()],
        "keys": [row.keys for row in table.rows],
        "cells": details(run),
        "flags": flag_meanings(run),
        "metrics": metrics(run),
        "looks": looks(run),
        "settings": settings(run),
        "environment": {"id": run.info.get("environment", ""), "sentence": sentence(run.machine)},
    }


def _own(name: str) -> str:
    return resources.files("effbench.reports").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return f"sha256-{b64encode(sha256(script.encode()).digest()).decode()}"


def _data_uri(picture: Picture) -> str:
    return f"data:image/png;base64,{b64encode(picture.png).decode()}"
