"""Amounts as people type them: ``6GiB``, ``500MB``, ``60s``, ``10m``."""

from __future__ import annotations

import re

from effbench.errors import BadInput

_BYTES = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SECONDS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_SOME = 5e-324  # the least above nothing
_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)\s*")


def parse_bytes(text: str | int, *, where: str) -> int:
    """Bytes; raises BadInput for anything that is not a positive amount."""
    return int(_parse(str(text), _BYTES, where, "6GiB · 500MB · a number of bytes"))


def parse_seconds(text: str | float, *, where: str, least: float = _SOME) -> float:
    """Seconds; raises BadInput for anything that is no amount, or less than the least."""
    return _parse(str(text), _SECONDS, where, "60s · 10m · 1h · 500ms · a number of seconds", least)


def _parse(
    text: str, units: dict[str, float] | dict[str, int], where: str, forms: str, least: float = _SOME
) -> float:
    match = _AMOUNT.fullmatch(text)
    if not match or match[2].lower() not in units or float(match[1]) < least:
        raise BadInput(f"{where}: {text!r} is no amount; accepted: {forms}")
    return float(match[1]) * units[match[2].lower()]
