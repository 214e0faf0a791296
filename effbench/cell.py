"""A cell is the question, a budget is the effort spent on the answer; the axes and their defaults."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

LEVELS = ("op", "layer", "block", "model")
MODES = ("forward", "train", "decode", "generate")
#: The modes that go token by token.
STEPWISE = ("decode", "generate")
DTYPES = ("float32", "bfloat16", "float16", "float64")
GEMMS = ("torch", "onednn", "auto")
PRECISIONS = ("highest", "high")
ALLOCATORS = ("warm", "default")

#: The axes along which a cell has a size: larger never costs less.
SIZE_AXES = ("batch", "seq", "dim", "heads")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of a sweep: everything that the question holds, and nothing else."""

    mechanism: str
    options: Mapping[str, Any] = field(default_factory=dict)
    level: str = "layer"
    mode: str = "forward"
    causal: bool = False
    batch: int = 1
    seq: int
    dim: int
    heads: int
    dtype: str = "float32"
    device: str = "cpu"
    threads: int
    compile: bool = False
    gemm: str = "torch"
    precision: str = "highest"
    allocator: str = "warm"
    stack: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits that depend on the question alone."""
        text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def line(self) -> str:
        """What cells have in common that differ in size only."""
        rest = {name: value for name, value in asdict(self).items() if name not in SIZE_AXES}
        return json.dumps(rest, sort_keys=True, separators=(",", ":"))

    def exceeds(self, other: Cell) -> bool:
        """Whether this is ``other`` made larger along at least one axis and smaller along none."""
        if self.line != other.line or self.id == other.id:
            return False
        return all(getattr(self, axis) >= getattr(other, axis) for axis in SIZE_AXES)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The effort: no part of the question, so it is not hashed into a cell's id."""

    memory_limit: int  # bytes that one cell may add to its process
    gpu_limit: int | None = None  # bytes of a GPU that one cell may take; left out: memory_limit
    heap_limit: int | None = None  # bytes that a warm heap, holes and all, may take; left out: memory_limit
    cell_timeout: float = 60.0  # seconds for one pass; start, warm-up and compilation are not counted
    total: float | None = None  # seconds for the whole run
    patience: float = 0.0  # seconds for visiting cells again: cores were slow, or processes disagree
    min_samples: int = 5
    min_time: float = 0.3  # seconds of samples in one visit; a cheap cell has two
    costly: float = 5.0  # seconds a pass from which one pass must do
    rounds: tuple[tuple[float, int], ...] = ((0.1, 2),)  # (a pass faster than this, visits)
    load_timeout: float = 60.0  # seconds to import a plugin and to build a module

    @property
    def sampling(self) -> dict[str, Any]:
        """What a visit takes: samples, their seconds, and how much longer it waits for calm ones."""
        patience_s = 2 * self.min_time if self.patience else 0.0
        return {"min_samples": self.min_samples, "min_time": self.min_time, "patience_s": patience_s}

    @property
    def most_rounds(self) -> int:
        """The visits of the cheapest cell."""
        return max((visits for _, visits in self.rounds), default=1)

    def memory(self, device: str) -> int:
        """Bytes of a device's own memory that one cell may take."""
        return self.memory_limit if device == "cpu" else self.gpu_limit or self.memory_limit

    def heap(self, device: str) -> int:
        """Bytes that a process may take which times on a warm heap; a GPU's leaves no such holes."""
        return self.heap_limit or self.memory_limit if device == "cpu" else self.memory(device)

    def limits(self, cell: Cell, allocator: str) -> dict[str, int]:
        """What a process that times with this allocator may take, where it is not the limit of all others."""
        return {"memory_limit": self.heap(cell.device)} if allocator == "warm" else {}

    def rounds_for(self, seconds: float) -> int:
        """How many visits, each in processes of its own, a pass of this many seconds deserves."""
        return next((rounds for limit, rounds in self.rounds if seconds < limit), 1)


def usable_cores() -> int:
    """The cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def default_heads(dim: int) -> int:
    """About one head for every 64 channels: the most, up to that, which divide the width."""
    return next(heads for heads in range(max(1, dim // 64), 0, -1) if dim % heads == 0)
