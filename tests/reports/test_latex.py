"""What is written for papers is set by a real LaTeX, hostile names and all."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from effbench.frame import Run, load_run
from effbench.reports import latex
from effbench.reports._escape import latex as escaped
from tests.synthetic import make_cell, measured, write_example, write_run

HOSTILE = r"_ & % $ # { } ~ ^ \ [q] <é> | \input{x} $$ %% “漢” ² × → ðß"
PAPER = r"""\documentclass{article}
\usepackage{booktabs,graphicx,textcomp}
\begin{document}
\input{methods} \input{answers} \input{tables}
\end{document}
"""


def hostile(folder: Path) -> Run:
    """A run whose title and one of whose mechanisms are called by all that LaTeX takes for its own."""
    cells = [make_cell(name, seq=n) for name in ("mha-sdpa", HOSTILE) for n in (1024, 2048)]
    records = [
        measured(cell, [0.1 * (1 + i / 200)] * 3, round=i, process=f"p{i}", flags=["of " + HOSTILE])
        for cell in cells
        for i in range(2)
    ]
    return load_run(write_run(folder, cells, records, title=HOSTILE))


@pytest.mark.parametrize("kind", ["example", "hostile"])
def test_it_compiles(kind: str, tmp_path: Path) -> None:
    if not shutil.which("pdflatex"):
        missing = "no pdflatex on the PATH to set it with (apt-get install texlive-latex-recommended)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    run = hostile(tmp_path / "run") if kind == "hostile" else load_run(write_example(tmp_path / "run"))
    latex.render(run, tmp_path)
    (tmp_path / "paper.tex").write_text(PAPER)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=120)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    assert "Missing character" not in said
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


def test_a_letter_that_latex_lacks_is_named() -> None:
    assert escaped("é ñ") == "é ñ"
    assert escaped("漢") == "{[}U+6F22]"
    assert escaped("50 % of_a #1 ~^") == r"50 \% of\_a \#1 \textasciitilde{}\textasciicircum{}"
