"""What the page's chart draws: the lines of every setting, as plain data for plotly."""

from __future__ import annotations

from typing import Any

import pandas as pd

from effbench.frame import Run
from effbench.metrics import METRICS

from ._lines import variants_of
from ._style import DASHES, MARKERS, look
from ._ticks import step_ticks, value_ticks
from ._views import ALONG, views

#: The metrics that can be charted; the first is shown first.
CHARTED = (
    *("time_s", "total_bytes", "state_bytes", "flops", "tokens_per_s", "flops_per_s", "ceiling_fraction"),
)
_SYMBOLS = (
    *("circle", "square", "triangle-up", "triangle-down", "diamond", "cross", "x"),
    *("triangle-left", "triangle-right", "star"),
)
_DASHES = ("solid", "dash", "dot", "dashdot")


def settings(run: Run) -> list[dict[str, Any]]:
    """Each view along a length or width: its title, its steps, and for each series the cells it holds."""
    place = {cell_id: number for number, cell_id in enumerate(run.frame["id"])}
    return [
        {
            "along": ALONG[view.along],
            "title": view.title,
            "ticks": step_ticks(view.along, view.steps),
            "lines": [
                [label, [[row[view.along], place[row["id"]]] for row in rows]]
                for label, rows in view.by_series.items()
            ],
        }
        for view in views(run)
        if view.along
    ]


def looks(run: Run) -> dict[str, dict[str, Any]]:
    """How each series is drawn, in plotly's words; the same colour and marker as in the figures."""
    variants = variants_of(run)
    found = {}
    for mechanism, label in dict.fromkeys(zip(run.frame["mechanism"], run.series, strict=True)):
        one = look(mechanism, variants[label])
        found[label] = {
            "colour": one.colour,
            "dark": one.dark,
            "symbol": _SYMBOLS[MARKERS.index(one.marker)] + ("-open" if one.hollow else ""),
            "dash": _DASHES[DASHES.index(one.dash)],
        }
    return found


def metrics(run: Run) -> dict[str, dict[str, Any]]:
    """Title, values by cell and ticks of each metric of which this run has numbers."""
    found = {}
    for name in CHARTED:
        values = run.values(name)
        drawn = values[values > 0]
        if len(drawn):
            found[name] = {
                "title": METRICS[name].title,
                "values": [None if pd.isna(value) else float(f"{value:.6g}") for value in values],
                "texts": ["" if pd.isna(value) else METRICS[name].text(value) for value in values],
                "ticks": value_ticks(name, drawn.min() / 1.2, drawn.max() * 1.2),
            }
    return found
