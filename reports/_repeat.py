"""The command that asks one cell of a run again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

#: The axes that the command line takes a value for; ``causal`` and ``compile`` are switches.
_VALUES = (
    *("seq", "dim", "batch", "heads", "dtype", "mode", "level", "device", "threads"),
    *("gemm", "precision", "allocator"),
)
#: Options of ``run`` that are not in a cell and yet can change its numbers.
_LIMITS = ("--memory-limit", "--cell-timeout")


def command(cell: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    """Words for a shell: this cell alone, with every axis and option said, into a folder of its own.

    ``cell`` is the cell as ``run.json`` plans it. A plugin's file is named as it was for the run.
    """
    name = cell["mechanism"]
    words = ["effbench", "run", "--mechanism", info.get("mechanisms", {}).get(name, {}).get("spec") or name]
    words += [word for axis in _VALUES for word in (f"--{axis}", str(cell[axis]))]
    words.append("--causal" if cell["causal"] else "--no-causal")
    words += ["--compile"] if cell["compile"] else []
    for option, value in cell["options"].items():
        words += ["--option", f"{name}.{option}={_word(value)}"]
    for part, value in cell.get("stack", {}).items():
        words += ["--stack", f"{part}={_word(value)}"]
    words += _limits(info)
    return shlex.join([*words, "--fresh", "--out", "results/again"])


def _word(value: Any) -> str:
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def _limits(info: Mapping[str, Any]) -> list[str]:
    """The limits as the run's own command gave them; as recorded, where it was no command."""
    asked = info.get("command") or ""
    if not asked.startswith("effbench "):
        recorded = {"--memory-limit": "memory_limit", "--cell-timeout": "cell_timeout"}
        known = {option: info.get("limits", {}).get(name) for option, name in recorded.items()}
        return [word for option, value in known.items() if value for word in (option, str(value))]
    words, found = shlex.split(asked), list[str]()
    for word, after in zip(words, [*words[1:], ""], strict=True):
        option, equals, value = word.partition("=")
        found += [option, value if equals else after] if option in _LIMITS else []
    return found
