"""Axis expressions: ``1024``, ``64,128``, ``1024..65536``, ``1024..8192:+1024``, ``256..65536:5``.

``a..b`` doubles and always ends with b; ``:+step`` counts up by step; ``:count`` gives that many
points in geometric progression. Suffixes K and M mean 1024 and 1024 squared.
"""

from __future__ import annotations

import re
from typing import Any

from effbench.errors import BadInput

FORMS = "accepted: 1024 · 64,128,512 · 1024..65536 · 1024..8192:+1024 · 256..65536:5 · suffixes K and M"
_MOST = 10_000  # points of one range: more is a slip of the pen
_SUFFIX = {"": 1, "k": 1024, "m": 1024 * 1024}
_NUMBER = re.compile(r"(\d+)([kKmM]?)")
_FRACTION = re.compile(r"[-+]?(\d*\.\d+|\d+(\.\d*)?[eE][-+]?\d+)")
_RANGE = re.compile(r"(?P<start>[^.:]+)\.\.(?P<stop>[^.:]+)(?::(?P<step>\+?)(?P<by>.+))?")


def parse_axis(value: Any, *, where: str, least: int = 1) -> list[int]:
    """The whole numbers that an expression, a number or a list of them stands for, in their order.

    Raises:
        BadInput: names ``where``, what was wrong and what is accepted; a value given twice is wrong.
    """
    items = value if isinstance(value, list) else [value]
    if not items:
        raise BadInput(f"{where}: the list is empty; {FORMS}")
    values = [number for item in items for number in _parse_item(item, where)]
    for number in values:
        if number < least:
            raise BadInput(f"{where}: {number} is too small, the least is {least}")
    twice = sorted({number for number in values if values.count(number) > 1})
    if twice:
        raise BadInput(f"{where}: {', '.join(map(str, twice))} is asked twice")
    return values


def parse_option(value: Any, *, where: str) -> list[Any]:
    """The values of an option: numbers by the grammar of axes; words, true, false and none as they are."""
    if isinstance(value, list):
        values = [one for item in value for one in parse_option(item, where=where)]
        if not values:
            raise BadInput(f"{where}: the list is empty")
        return values
    if not isinstance(value, str):
        return [value]
    words = [word.strip() for word in value.split(",")]
    if re.match(r"[-+]?\d", words[0]) and not all(_FRACTION.fullmatch(word) for word in words):
        return list(parse_axis(value, where=where, least=0))
    return [_word(word) for word in words]


def _word(text: str) -> Any:
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return float(text)
    except ValueError:
        return text


def _parse_item(item: Any, where: str) -> list[int]:
    if isinstance(item, bool) or not isinstance(item, int | str):
        raise BadInput(f"{where}: {item!r} is not a whole number; {FORMS}")
    if isinstance(item, int):
        return [item]
    return [number for part in item.split(",") for number in _parse_part(part.strip(), where)]


def _parse_part(text: str, where: str) -> list[int]:
    if ".." not in text:
        return [_number(text, text, where)]
    match = _RANGE.fullmatch(text)
    if not match:
        raise BadInput(f"{where}: {text!r} is not a range; {FORMS}")
    start, stop = (_number(match[end].strip(), text, where) for end in ("start", "stop"))
    if stop < start:
        raise BadInput(f"{where}: {text!r} runs backwards; write the smaller end first")
    if match["by"] is None:
        return _doubling(start, stop, text, where)
    by = _number(match["by"].strip(), text, where)
    if match["step"]:
        if by == 0:
            raise BadInput(f"{where}: {text!r} has step 0; {FORMS}")
        return _steps(start, stop, by, text, where)
    return _geometric(start, stop, by, text, where)


def _number(text: str, whole: str, where: str) -> int:
    match = _NUMBER.fullmatch(text)
    if not match:
        raise BadInput(f"{where}: {text!r} in {whole!r} is not a whole number; {FORMS}")
    return int(match[1]) * _SUFFIX[match[2].lower()]


def _doubling(start: int, stop: int, text: str, where: str) -> list[int]:
    if start == 0:
        raise BadInput(f"{where}: {text!r} cannot double from 0; start at 1 or give a step, 0..8:+2")
    values = []
    while start < stop:
        values.append(start)
        start *= 2
    return [*values, stop]


def _steps(start: int, stop: int, by: int, text: str, where: str) -> list[int]:
    values = range(start, stop + 1, by)
    if len(values) > _MOST:
        raise BadInput(f"{where}: {text!r} has {len(values)} points, more than {_MOST}")
    return list(values)


def _geometric(start: int, stop: int, count: int, text: str, where: str) -> list[int]:
    if start == 0 or not 2 <= count <= _MOST:
        raise BadInput(f"{where}: {text!r} needs a start above 0 and 2 to {_MOST} points; {FORMS}")
    ratio = stop / start
    values = [round(start * ratio ** (i / (count - 1))) for i in range(count)]
    if len(set(values)) < count:
        raise BadInput(f"{where}: {text!r} holds fewer than {count} whole numbers")
    return values
