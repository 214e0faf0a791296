"""Starts fork servers and asks each question in a fresh child of one, within limits of time and memory.

The parent sleeps in ``select`` while a child works; it wakes for a message, for a limit, and a few
times a second to look at the child's resident size.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from effbench.errors import EffbenchError
from effbench.outcome import Outcome, with_cause

_WATCH_S = 0.05  # between looks at the resident size
_START_S = 120.0  # for a server to import torch on a cold disk
_GRACE_S = 2.0  # for a child that closed its channel to end
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: Python's arguments for a fork server.
PROGRAM = ("-m", "effbench.forkserver")


Leaving = dict[tuple["Server", int], Mapping[str, Any]]  # children that end, and what was said of their end


class Server:
    """One fork server: an environment of its own, children that each answer one question."""

    def __init__(
        self,
        kind: str,
        environment: Mapping[str, str],
        program: Sequence[str] = PROGRAM,
        folder: Path | None = None,
        leaving: Leaving | None = None,
    ) -> None:
        """``program`` are Python's arguments, to which kind and descriptor are added; ``folder`` is where.

        ``leaving`` is shared by the servers of one thread: whoever it asks next waits for them all.
        """
        self.kind = kind
        self.environment = dict(environment)
        self._program, self._folder = program, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._control: socket.socket | None = None
        self._heard = b""
        self.leaving: Leaving = {} if leaving is None else leaving

    @property
    def identity(self) -> str:
        """Names the process whose children answer: the unit of replication."""
        return f"{self.kind}-{self._process.pid}" if self._process else ""

    def start(self) -> None:
        """See the server ready: it has imported torch."""
        self.spawn()
        if self._ready:
            return
        if self._hear("ready", time.monotonic() + _START_S) is None:
            error = self._last_words()
            self.stop()
            raise EffbenchError(f"the {self.kind} server did not start: {error}")
        self._ready = True

    def spawn(self) -> None:
        """Start the server without waiting for it; nothing where it runs already."""
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, *self._program, self.kind, str(theirs.fileno())],
                cwd=self._folder,
                env={**os.environ, **self.environment},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        self._control, self._heard = ours, b""

    def stop(self) -> None:
        """End the server and every child of it."""
        self._hang_up()
        self._ready = False
        if self._process is not None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stderr:
                self._process.stderr.close()
            self._process = None

    def _hang_up(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None
        for child in [child for child in self.leaving if child[0] is self]:
            del self.leaving[child]

    def ask(self, request: Mapping[str, Any], **limits: Any) -> Outcome:
        """Ask one question in a fresh child; ``limits`` are those of ``begin``."""
        with self.begin(request, **limits) as conversation:
            conversation.listen()
        return conversation.outcome

    def begin(
        self,
        request: Mapping[str, Any],
        *,
        log: Path,
        allow: float,
        memory: int | None = None,
        until: float | None = None,
    ) -> Conversation:
        """Put a question to a fresh child, once all that are ``leaving`` are gone.

        At the end of the ``with`` block the child is gone, or has answered and ends.

        Args:
            request: plain data for ``worker.answer``.
            log: where the child's output goes.
            allow: seconds to the first message; each message states the seconds to the next.
            memory: bytes of resident size at which the child is killed.
            until: a time of ``time.monotonic`` at which the child is stopped whatever it does.
        """
        self.start()
        ours, theirs = socket.socketpair()
        conversation = Conversation(self, ours, allow, memory, until)
        with theirs, log.open("ab") as file:
            assert self._control is not None
            try:
                socket.send_fds(self._control, [b"f"], [theirs.fileno(), file.fileno()])
                forked = self._hear("forked", time.monotonic() + _START_S)
            except OSError:
                forked = None
        if forked is None:
            self.stop()
            conversation.outcome = Outcome(ended="died", reason="the fork server is gone")
        else:
            conversation.pid = int(forked["forked"])
            while self.leaving:
                server, pid = next(iter(self.leaving))
                server.end(pid, patient=True)
            conversation.say(request)
        return conversation

    def leave(self, pid: int) -> None:
        """A child has answered: its end is seen to when the next one is there, which takes as long."""
        if self._control is not None:
            self.leaving[self, pid] = {}

    def end(self, pid: int, *, patient: bool) -> Mapping[str, Any]:
        """See a child end, by force where it does not by itself."""
        if ended := self.leaving.pop((self, pid), None):
            return ended
        ended = self._hear("ended", time.monotonic() + _GRACE_S, pid) if patient else None
        if ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            ended = self._hear("ended", time.monotonic() + _START_S, pid)
            if ended is not None:
                ended = {**ended, "forced": True}
        if ended is None:
            self.stop()
        return ended or {}

    def _hear(self, what: str, deadline: float, pid: int | None = None) -> dict[str, Any] | None:
        """The server's next word of that (of the process ``pid``); None where it is gone or late."""
        assert self._control is not None
        while True:
            while b"\n" not in self._heard:
                ready, _, _ = select.select([self._control], [], [], max(0.0, deadline - time.monotonic()))
                received = self._control.recv(4096) if ready else b""
                if not received:
                    return None
                self._heard += received
            line, self._heard = self._heard.split(b"\n", 1)
            message: dict[str, Any] = json.loads(line)
            if what in message and pid in (None, message[what]):
                return message
            if (child := (self, message.get("ended"))) in self.leaving:
                self.leaving[child] = message

    def _last_words(self) -> str:
        if self._process is None or self._process.stderr is None:
            return "no output"
        self._process.kill()
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"


class Conversation:
    """One child from its question to its end; ``outcome`` is there once it has answered or failed."""

    def __init__(
        self, server: Server, channel: socket.socket, allow: float, memory: int | None, until: float | None
    ) -> None:
        self.server = server
        self.pid = 0
        self.outcome = Outcome(ended="died", reason="it was not listened to")
        self._channel = channel
        self._memory, self._until = memory, until
        self._stage = "load"
        self._closed = self._done = False
        self._started = time.monotonic()
        self._deadline, self._allowed = self._started + allow, allow
        self._looked = self._started  # at its resident size
        self._heard = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """See the child end, by force where it does not by itself, and close the channel."""
        if self.pid and self.outcome.ended == "answered":
            self.server.leave(self.pid)
        elif self.pid:
            ended = self.server.end(self.pid, patient=self._closed)
            self.outcome = with_cause(self.outcome, ended)
        if self.pid:
            self.outcome = replace(self.outcome, server=self.server.identity)
        self._channel.close()

    def keep(self) -> tuple[socket.socket, bytes]:
        """The channel to a child that shall live on, and what was heard on it and not yet read."""
        return self._channel, self._heard

    def say(self, message: Mapping[str, Any], allow: float | None = None) -> None:
        """Tell the child something; ``allow`` is how long it may then be silent."""
        if allow is not None:
            self._deadline, self._allowed = time.monotonic() + allow, allow
        with contextlib.suppress(OSError):  # it is gone, which listening will tell
            self._channel.sendall(json.dumps(message).encode() + b"\n")

    def listen(self) -> Mapping[str, Any] | None:
        """The child's next part of an answer; None where it is at its end, and ``outcome`` says how."""
        while self.pid and not self._done:
            ready, _, _ = select.select([self._channel], [], [], _WATCH_S)
            try:
                received = self._channel.recv(1 << 16) if ready else b""
            except OSError:  # it is gone, and had not heard all that was said
                received = b""
            if ready and not received:
                self._closed = True
                self._over("died", "it closed its channel")
                return None
            self._heard += received
            heard = self._read() if ready else None
            if heard is not None:
                return heard.get("part")
            if self._overrun():
                return None
        return None

    def _over(self, ended: str, reason: str = "", answer: Mapping[str, Any] | None = None) -> None:
        self._done = True
        self.outcome = Outcome(ended=ended, stage=self._stage, reason=reason, answer=answer or {})

    def _read(self) -> Mapping[str, Any] | None:
        """The first message that ends the listening: a part, or the answer, with which the outcome is set."""
        while b"\n" in self._heard:
            line, self._heard = self._heard.split(b"\n", 1)
            try:
                message: dict[str, Any] = json.loads(line)
                self._stage = str(message["stage"])
            except (ValueError, KeyError, TypeError):
                self._over("died", "its answer could not be read")
                return {}
            if "answer" in message:
                self._closed = True
                self._over("answered", answer=message["answer"])
                return message
            if "part" in message:
                return message
            self._allowed = float(message["allow"])
            self._deadline = time.monotonic() + self._allowed
        return None

    def _overrun(self) -> bool:
        now = time.monotonic()
        if now > self._deadline:
            self._over("timeout", f"took more than {self._allowed:g} s")
        elif self._until is not None and now > self._until:
            self._over("until")
        elif self._memory is not None and now - self._looked >= _WATCH_S:
            self._looked = now
            if (resident := _resident(self.pid)) <= self._memory:
                return False
            self._over("memory", f"resident size {resident} bytes is over the limit of {self._memory} bytes")
        else:
            return False
        return True


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
