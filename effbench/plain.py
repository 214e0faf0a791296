"""Output where the terminal knows ASCII only: a sign that it lacks is written by one that it has."""

from __future__ import annotations

import codecs
import sys
from io import TextIOWrapper

_SIGNS = {
    **dict.fromkeys("█▉▊▋▌▍▎▏", "#"),
    **{"░": "-", "±": "+-", "≈": "~", "–": "-", "→": "->", "†": "!", "≠": "!=", "…": "...", "·": "|"},
    **{"×": "x", "²": "^2", "µ": "u", "“": '"', "”": '"', "‘": "'", "’": "'"},
}


def _instead(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_SIGNS.get(sign, "?") for sign in lacking), error.end


def allow_plain_terminals() -> None:
    """Let standard output and error replace what their encoding lacks, instead of ending the program."""
    codecs.register_error("effbench", _instead)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="effbench")
