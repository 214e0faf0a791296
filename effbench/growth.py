"""Declared growth, such as ``n^2 d + n d log n``: sums of products of n, d, s, h, r and log n.

What an exponent must be held against: what is *measured* is ``fit``'s business.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

LETTERS = "ndshr"
Sizes = tuple[tuple[str, float], ...]
#: What is written leaves coefficients out: one term may weigh so many times another of the sum.
COEFFICIENTS = 16.0
_TERM = re.compile(rf"\s*(?:(?:log\s+)?[{LETTERS}](?:\^\d+)?\s*)+")


def terms(declared: str) -> list[str]:
    """The products of a sum.

    Raises:
        ValueError: one is no product of n, d, s, h, r and log n.
    """
    found = declared.split("+")
    for term in found:
        if not _TERM.fullmatch(term):
            raise ValueError(f"complexity {term.strip()!r} is no product of n, d, s, h, r and log n")
    return found


def value(term: str, sizes: Mapping[str, float]) -> float:
    """A product at some sizes; letters that have none there do not change, so they count as 1."""
    product = 1.0
    for log, letter, power in _letters(term):
        size = float(sizes.get(letter, 1))
        product *= math.log2(max(size, 2.0)) if log else size ** int(power or 1)
    return product


@lru_cache(maxsize=256)
def _letters(term: str) -> list[tuple[str, str, str]]:
    """The factors of a product: (log or nothing, letter, power or nothing) each."""
    return re.findall(r"(log\s+)?([a-z])(?:\^(\d+))?", term)


def factors(declared: str, small: Mapping[str, float], large: Mapping[str, float]) -> tuple[float, float]:
    """(least, most) by which a declared sum grows between two sizes, whatever its coefficients are.

    The sum grows least where its slowest terms weigh most, and most where its fastest do; a coefficient
    may be up to ``COEFFICIENTS`` times another.

    Raises:
        ValueError: as ``terms``.
    """
    return _factors(declared, tuple(small.items()), tuple(large.items()))


@lru_cache(maxsize=4096)  # the lines of a run ask the same of the same sizes, setting by setting
def _factors(declared: str, small: Sizes, large: Sizes) -> tuple[float, float]:
    pairs = sorted(
        ((value(term, dict(small)), value(term, dict(large))) for term in terms(declared)),
        key=lambda pair: pair[1] / pair[0],
    )
    grown = []
    for split in range(len(pairs) + 1):
        slow, fast = (_sums(part) for part in (pairs[:split], pairs[split:]))
        for weights in ((COEFFICIENTS, 1.0), (1.0, COEFFICIENTS)):
            before, after = (weights[0] * slow[side] + weights[1] * fast[side] for side in (0, 1))
            grown.append(after / before)
    return min(grown), max(grown)


def _sums(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(before for before, _ in pairs), sum(after for _, after in pairs)


def exponents(
    declared: str, smaller: Mapping[str, Any], larger: Mapping[str, Any], along: str = "seq"
) -> tuple[float, float]:
    """(least, most) exponent of the length or width that a declaration allows between two cells.

    Everything where it says nothing that can be read. A window or rank (s, r) stays small or is about as
    large as any; one that an option sets beyond the shorter length is cut off by the sequence, and so grows
    with it.

    Args:
        smaller, larger: rows of the frame: ``seq``, ``dim``, ``heads`` and ``options`` as JSON.
            Of blocks and models, what surrounds the mechanism may be all that is seen of it.
        along: the axis that grows, ``seq`` or ``dim``.
    """
    if not declared:
        return -math.inf, math.inf
    options = json.loads(smaller["options"]).values()
    numbers = [v for v in options if isinstance(v, int | float) and not isinstance(v, bool)]
    sizes: list[tuple[float, float]] = [(1, 1), (1024, 1024)]
    if any(number > smaller["seq"] for number in numbers):
        sizes.append((smaller["seq"], larger["seq"]))
    grown: list[float] = []
    for before, after in sizes:
        small, large = (
            {"n": one["seq"], "d": one["dim"], "h": one["heads"], "s": size, "r": size}
            for one, size in ((smaller, before), (larger, after))
        )
        try:
            grown += factors(declared, small, large)
        except ValueError:  # no declaration that can be read
            return -math.inf, math.inf
        if smaller.get("level") in ("block", "model"):  # tokens pass what surrounds the mechanism one by one
            grown += factors("n d + n d^2", small, large)
    over = math.log(larger[along] / smaller[along])
    return math.log(min(grown)) / over, math.log(max(grown)) / over
