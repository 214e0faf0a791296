"""For a paper: the tables of numbers, ``tables.tex`` (needs booktabs), and a paragraph, ``methods.tex``."""

from __future__ import annotations

from pathlib import Path

from effbench.frame import Run

from ._escape import latex
from ._methods import methods
from ._tables import Table, point_table, scaling_table, tabulated
from ._views import views


def render(run: Run, folder: Path) -> None:
    """Writes ``tables.tex``, one ``table`` environment for every metric and setting, and ``methods.tex``."""
    (Path(folder) / "methods.tex").write_text(latex(methods(run)) + "\n", encoding="utf-8")
    shown = views(run)
    tables = [scaling_table(view, name) for name in tabulated(run) for view in shown if view.along]
    tables += [point_table(run, view) for view in shown if not view.along]
    text = "% Written by effbench. Needs \\usepackage{booktabs} and \\usepackage{textcomp}.\n"
    (Path(folder) / "tables.tex").write_text(text + "\n".join(map(_set_table, tables)), encoding="utf-8")


def _set_table(table: Table) -> str:
    rows = [" & ".join(map(latex, row)) + r" \\" for row in table.rows]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(' '.join([table.title + '.', table.note]))}}}",
        rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
        r"\toprule",
        " & ".join(map(latex, table.header)) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"
