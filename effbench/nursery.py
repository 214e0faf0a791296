"""A mechanism is loaded once for all questions of a kind: by a child that forks those who answer.

What a plugin's import does stays in such a child as it would in any other. Where it raises, aborts or hangs,
or leaves a thread or a process behind, each question is put to a child of the server, which loads it itself.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from effbench.processes import Conversation, Server

_READY_S = 5.0  # from the mechanism's being loaded


class Nursery(Server):
    """A fork server that is itself a child of one, and knows one mechanism."""

    def __init__(self, server: Server, request: Mapping[str, Any], *, log: Path, allow: float) -> None:
        """``request`` is the question "load"; ``log`` and ``allow`` are for its answer, as in ``begin``."""
        super().__init__(server.kind, server.environment, leaving=server.leaving)
        self._parent, self._request, self._log, self._allow = server, request, log, allow
        self._tried = ""  # the server that was asked last: each is asked once

    @property
    def identity(self) -> str:
        """The server's: all its descendants have their addresses from it."""
        return self._parent.identity

    def spawn(self) -> None:
        """Have the mechanism loaded, once for each server."""
        self._parent.start()
        if self._tried == self._parent.identity:
            return
        self.stop()
        self._tried = self._parent.identity
        conversation = self._parent.begin(self._request, log=self._log, allow=self._allow)
        conversation.listen()
        if conversation.outcome.answer.get("status") == "ok":
            self._control, self._heard = conversation.keep()
            if self._hear("ready", time.monotonic() + _READY_S):
                return
        self.stop()
        conversation.end()

    def start(self) -> None:
        """See it ready, if it can be."""
        self.spawn()

    def stop(self) -> None:
        """Let it end, and every child of it; its server buries it."""
        self._hang_up()

    def begin(self, request: Mapping[str, Any], **limits: Any) -> Conversation:
        """Put a question to a child that has the mechanism; else to one of the server."""
        self.start()
        if self._control is not None:
            conversation = super().begin(request, **limits)
            if conversation.pid:
                return conversation
            conversation.end()
        return self._parent.begin(request, **limits)
