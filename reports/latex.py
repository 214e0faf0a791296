"""For a paper: tables of numbers, ``tables.tex``, answers, ``answers.tex``, and a paragraph, ``methods.tex``.

Both files of tables need booktabs, graphicx and textcomp. A table that is wider than the text is set smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effbench.frame import Run

from ._document import answers
from ._escape import latex
from ._findings import findings
from ._methods import methods
from ._tables import Table, point_table, scaling_table, tabulated
from ._views import views

_HEAD = "% Written by effbench. Needs \\usepackage{booktabs,graphicx,textcomp}.\n"
#: As wide as it is, but no wider than the text.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"
#: A column with longer texts is set in lines of a share of the page.
_LONG, _SHARE = 36, 0.24


def render(run: Run, folder: Path) -> None:
    """Writes ``tables.tex``, one ``table`` environment for every metric and setting, and the other two.

    ``answers.tex`` has the findings as a list of sentences, then rankings, exponents and crossovers.
    """
    (Path(folder) / "methods.tex").write_text(latex(methods(run)) + "\n", encoding="utf-8")
    shown = views(run)
    tables = [scaling_table(view, name) for name in tabulated(run) for view in shown if view.along]
    tables += [point_table(run, view) for view in shown if not view.along]
    (Path(folder) / "tables.tex").write_text(_HEAD + "\n".join(map(_set_table, tables)), encoding="utf-8")
    sentences = [r"\begin{itemize}", *(rf"\item {latex(text)}" for text in findings(run)), r"\end{itemize}"]
    asked = [block for section in answers(run) for block in section.blocks if isinstance(block, Table)]
    text = "\n".join([*sentences, "", *map(_set_table, asked)])
    (Path(folder) / "answers.tex").write_text(_HEAD + text, encoding="utf-8")


def _set_table(table: Table) -> str:
    rows = [" & ".join(map(latex, row)) + r" \\" for row in table.rows]
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(' '.join([table.title + '.', table.note]))}}}",
        _FITTED,
        rf"\begin{{tabular}}{{{_columns(table)}}}",
        r"\toprule",
        " & ".join(map(latex, table.header)) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _columns(table: Table) -> str:
    """The first column and words to the left, numbers to the right, long texts in lines."""
    if table.numeric:
        return "l" + "r" * (len(table.header) - 1)
    columns: Sequence[Sequence[str]] = list(zip(table.header, *table.rows, strict=True))
    return "".join(
        rf"p{{{_SHARE}\linewidth}}" if max(map(len, column)) > _LONG else "l" for column in columns
    )
