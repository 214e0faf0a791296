"""How reports and the terminal say things: a setting in words, numbers with their nouns, names in a row."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from effbench.metrics import size_label

#: What is said of a setting only where it is not this.
_USUAL = {
    "device": "cpu",
    "compile": False,
    "gemm": "torch",
    "precision": "highest",
    "allocator": "warm",
    "stack": "{}",
}


def setting_title(setting: Mapping[str, Any]) -> str:
    """Every axis that is fixed in a setting, in words; what is as usual is left out."""
    return " · ".join(said(axis, value) for axis, value in setting.items() if _is_said(axis, value))


def apart(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each of some settings in as many words as tell it from the others; empty for a single one."""
    plain = [_unstacked(setting) for setting in settings]
    axes = dict.fromkeys(axis for setting in plain for axis in setting)
    differing = [a for a in axes if len({str(setting[a]) for setting in plain if a in setting}) > 1]
    return [", ".join(said(a, setting[a]) for a in differing if a in setting) for setting in plain]


def _unstacked(setting: Mapping[str, Any]) -> dict[str, Any]:
    """A setting with what it says of its stack side by side with its axes."""
    return {axis: value for axis, value in setting.items() if axis != "stack"} | {
        f"stack {name}": value for name, value in json.loads(setting.get("stack", "{}")).items()
    }


def counted(number: int, noun: str) -> str:
    """``1 thread``, ``2 threads``."""
    return f"{number} {noun}{'s' * (number != 1)}"


def share(number: int, total: int, one: str, several: str) -> str:
    """``1 of 110 cells has``, ``2 of 110 cells have``, by the two forms of the verb."""
    return f"{number} of {counted(total, 'cell')} {one if number == 1 else several}"


def listed(names: Sequence[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _is_said(axis: str, value: Any) -> bool:
    return axis not in _USUAL or bool(value != _USUAL[axis])


def said(axis: str, value: Any) -> str:
    """One axis of a cell in words: ``length 8K``, ``not causal``, ``batch 1``."""
    match axis:
        case "seq":
            return f"length {size_label(int(value))}"
        case "dim":
            return f"width {value}"
        case "causal":
            return "causal" if value else "not causal"
        case "threads":
            return counted(value, "thread")
        case "heads":
            return counted(value, "head")
        case "batch" | "gemm" | "precision" | "allocator":
            return f"{axis} {value}"
        case "compile":
            return "compiled" if value else "eager"
        case str() if axis.startswith("stack "):
            return f"{axis.removeprefix('stack ').replace('_', '-')} {value}"
        case "stack":
            parts = json.loads(value).items()
            return ", ".join(f"{name.replace('_', '-')} {part}" for name, part in parts) or "no stack"
        case "level":
            return f"{value} level"
        case _:
            return str(value)
