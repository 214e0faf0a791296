"""Strangers' text (names, reasons, paths) made harmless for Markdown and LaTeX.

HTML needs nothing from here: its template escapes.
"""

from __future__ import annotations

import re
from unicodedata import normalize

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
    "×": r"$\times$",
    "²": r"$^2$",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
}
#: Combining accents that LaTeX sets over and under letters in every encoding: `é`, `ñ`, `ü`, `š`, `å`, `ç`.
_ACCENTS = frozenset("\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327")


def one_line(text: str) -> str:
    """The text without line breaks and control characters."""
    return re.sub(r"[\x00-\x1f\x7f\u0085\u2028\u2029]+", " ", text).strip()


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in a paragraph or in a cell of a table."""
    plain = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!$])", r"\\\1", plain)


def latex(text: str) -> str:
    """Text that LaTeX sets as it is; a letter that its fonts lack is named by its code: ``{[}U+6F22]``."""
    return "".join(map(_latex_letter, one_line(text)))


def _latex_letter(letter: str) -> str:
    if letter in _LATEX:
        return _LATEX[letter]
    first, *accents = list(normalize("NFD", letter))
    if letter.isascii() or (first.isascii() and first.isalpha() and _ACCENTS.issuperset(accents)):
        return letter
    return f"{{[}}U+{ord(letter):04X}]"
