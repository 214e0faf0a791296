"""Strangers' text (names, reasons, paths) made harmless for Markdown and LaTeX.

HTML needs nothing from here: its template escapes.
"""

from __future__ import annotations

import re

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "µ": r"\textmu{}",
    "±": r"$\pm$",
    "·": r"$\cdot$",
    "†": r"\dag{}",
    "[": "{[}",  # after a line break of a table, or an item, it would begin an argument
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "→": r"$\rightarrow$",
    "–": "--",
}


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    return re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+", " ", text).strip()


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a paragraph or in a cell of a table."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!$])", r"\\\1", plain)


def latex(text: str) -> str:
    """Text that LaTeX sets as it is."""
    return "".join(_LATEX.get(letter, letter) for letter in one_line(text))
