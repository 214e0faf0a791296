"""The facts of a machine: in one sentence, and as rows of a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from effbench.metrics import METRICS


def sentence(facts: Mapping[str, Any]) -> str:
    """What a reader must know of the machine, as far as it is known."""
    cpu, memory, system = (_group(facts, name) for name in ("cpu", "memory", "os"))
    cores, size = cpu.get("usable_cores"), memory.get("limit") or memory.get("physical")
    parts = [
        cpu.get("model") or "an unnamed CPU",
        f"{cores} core{'s' * (cores != 1)}" if cores else "",
        f"{_size(size)} of memory" if size else "",
        *(plain(gpu) for gpu in facts.get("gpu") or ()),
        " ".join(plain(system[name]) for name in ("system", "kernel") if system.get(name)),
        facts.get("python") or "",
        f"torch {_group(facts, 'torch').get('version')}" if facts.get("torch") else "",
    ]
    return f"Measured on {', '.join(str(part) for part in parts if part)}."


def rows(facts: Mapping[str, Any]) -> list[list[str]]:
    """Every fact that is known: its name and its value, amounts of memory in binary units."""
    return [[name, _size(value) if _is_size(name, value) else plain(value)] for name, value in _leaves(facts)]


def plain(value: Any) -> str:
    """A value of run.json in words; nothing for null."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, list | tuple):
        return ", ".join(plain(part) for part in value)
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _group(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = facts.get(name)
    return found if isinstance(found, Mapping) else {}


def _leaves(tree: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{path}{name} ")
        elif value is not None and value != []:
            yield f"{path}{name}", value


def _is_size(name: str, value: Any) -> bool:
    return "memory" in name and isinstance(value, int) and value >= 2**20


def _size(value: float) -> str:
    return METRICS["live_bytes"].text(value)
