"""The child's end of the channel to the runner: what is asked, what is said on the way, what failed."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

import torch

from effbench.errors import BadInput, EffbenchError, Unsupported

_OUT_OF_MEMORY = (
    *("can't allocate memory", "out of memory", "not enough memory", "Cannot allocate memory"),
    "ALLOC_FAILED",  # of a GPU's libraries, whose own memory torch does not allocate
)


class Visit:
    """One question being answered: the request, and the channel that hears of progress."""

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._lines = channel.makefile("rb")
        self.stage = "load"
        self.request: Mapping[str, Any] = self.hear()

    def hear(self) -> dict[str, Any]:
        """The runner's next line."""
        heard: dict[str, Any] = json.loads(self._lines.readline())
        return heard

    def enter(self, stage: str, allow: float) -> None:
        """Say that a part begins, and how many seconds it may take."""
        self.stage = stage
        self.send({"allow": allow})

    def send(self, message: Mapping[str, Any]) -> None:
        """Write one line to the runner."""
        self.channel.sendall(json.dumps({"stage": self.stage, **message}).encode() + b"\n")


def failure(error: BaseException) -> dict[str, Any]:
    """A failed question as an answer: its status and the first line of its reason."""
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0]
    if isinstance(error, Unsupported):
        return {"status": "unsupported", "reason": first}
    memory_error = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if memory_error or (isinstance(error, RuntimeError) and any(m in text for m in _OUT_OF_MEMORY)):
        return {"status": "oom", "reason": first if not memory_error else f"{type(error).__name__}: {first}"}
    named = first if isinstance(error, EffbenchError) else f"{type(error).__name__}: {first}"
    return {"status": "error", "reason": named, "bad_input": isinstance(error, BadInput)}
