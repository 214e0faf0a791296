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
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effbench.errors import EffbenchError

_WATCH_S = 0.05  # between looks at the resident size
_START_S = 120.0  # for a server to import torch on a cold disk
_GRACE_S = 2.0  # for a child that closed its channel to end
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a question.

    ``ended`` is ``answered`` (see ``answer``), ``timeout``, ``memory`` (killed for its resident
    size), ``until`` (the run's own time was up) or ``died``; ``stage`` is where it was.
    """

    ended: str
    answer: Mapping[str, Any] = field(default_factory=dict)
    stage: str = "load"
    reason: str = ""
    seconds: float = 0.0


class Server:
    """One fork server: an environment of its own, children that each answer one question."""

    def __init__(self, kind: str, environment: Mapping[str, str]) -> None:
        self.kind = kind
        self.environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._control: socket.socket | None = None
        self._heard = b""

    @property
    def identity(self) -> str:
        """Names the process whose children answer: the unit of replication."""
        return f"{self.kind}-{self._process.pid}" if self._process else ""

    def start(self) -> None:
        """See the server ready: it has imported torch."""
        self.spawn()
        if self._ready:
            return
        if "ready" not in (self._control_message(time.monotonic() + _START_S) or {}):
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
                [sys.executable, "-m", "effbench.forkserver", self.kind, str(theirs.fileno())],
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
        if self._control is not None:
            self._control.close()
            self._control = None
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

    def ask(
        self,
        request: Mapping[str, Any],
        *,
        log: Path,
        allow: float,
        memory: int | None = None,
        until: float | None = None,
    ) -> Outcome:
        """Ask one question in a fresh child.

        Args:
            request: plain data for ``worker.answer``.
            log: where the child's output goes.
            allow: seconds to the first message; each message states the seconds to the next.
            memory: bytes of resident size at which the child is killed.
            until: a time of ``time.monotonic`` at which the child is stopped whatever it does.
        """
        started = time.monotonic()
        self.start()
        ours, theirs = socket.socketpair()
        with ours:
            with theirs, log.open("ab") as file:
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [b"f"], [theirs.fileno(), file.fileno()])
                except OSError:
                    return Outcome(ended="died", reason="the fork server is gone")
            forked = self._control_message(time.monotonic() + _START_S) or {}
            if "forked" not in forked:
                self.stop()
                return Outcome(ended="died", reason="the fork server is gone")
            conversation = _Conversation(ours, int(forked["forked"]), allow, memory, until)
            try:
                ours.sendall(json.dumps(request).encode() + b"\n")
                outcome = conversation.listen()
            except OSError as error:
                outcome = Outcome(ended="died", reason=str(error))
            finally:
                ended = self._end(conversation.pid, patient=conversation.closed)
        return _dated(_with_cause(outcome, ended), time.monotonic() - started)

    def _end(self, pid: int, *, patient: bool) -> Mapping[str, Any]:
        """See the child end, by force where it does not by itself."""
        ended = self._control_message(time.monotonic() + _GRACE_S) if patient else None
        if ended is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            ended = self._control_message(time.monotonic() + _START_S)
            if ended is not None:
                ended = {**ended, "forced": True}
        if ended is None:
            self.stop()
        return ended or {}

    def _control_message(self, deadline: float) -> dict[str, Any] | None:
        """The server's next line; None where it stays away until the deadline or the server is gone."""
        assert self._control is not None
        while b"\n" not in self._heard:
            ready, _, _ = select.select([self._control], [], [], max(0.0, deadline - time.monotonic()))
            received = self._control.recv(4096) if ready else b""
            if not received:
                return None
            self._heard += received
        line, self._heard = self._heard.split(b"\n", 1)
        message: dict[str, Any] = json.loads(line)
        return message

    def _last_words(self) -> str:
        if self._process is None or self._process.stderr is None:
            return "no output"
        self._process.kill()
        lines = self._process.stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "no output"


class _Conversation:
    """Listens to one child until it has answered, is gone, or has used up what it was allowed."""

    def __init__(
        self, channel: socket.socket, pid: int, allow: float, memory: int | None, until: float | None
    ) -> None:
        self.channel = channel
        self.pid = pid
        self.memory = memory
        self.until = until
        self.stage = "load"
        self.closed = False
        self._deadline = time.monotonic() + allow
        self._allowed = allow
        self._heard = b""

    def listen(self) -> Outcome:
        """The outcome; the child may still be there."""
        while True:
            ready, _, _ = select.select([self.channel], [], [], _WATCH_S)
            if ready:
                received = self.channel.recv(1 << 16)
                if not received:
                    self.closed = True
                    return Outcome(ended="died", stage=self.stage, reason="it closed its channel")
                self._heard += received
            outcome = (self._read() if ready else None) or self._overrun()
            if outcome is not None:
                return outcome

    def _read(self) -> Outcome | None:
        while b"\n" in self._heard:
            line, self._heard = self._heard.split(b"\n", 1)
            try:
                message = json.loads(line)
                self.stage = str(message["stage"])
            except (ValueError, KeyError, TypeError):
                return Outcome(ended="died", stage=self.stage, reason="its answer could not be read")
            if "answer" in message:
                self.closed = True
                return Outcome(ended="answered", stage=self.stage, answer=message["answer"])
            self._allowed = float(message["allow"])
            self._deadline = time.monotonic() + self._allowed
        return None

    def _overrun(self) -> Outcome | None:
        now = time.monotonic()
        if now > self._deadline:
            return Outcome(ended="timeout", stage=self.stage, reason=f"took more than {self._allowed:g} s")
        if self.until is not None and now > self.until:
            return Outcome(ended="until", stage=self.stage)
        if self.memory is not None and (resident := _resident(self.pid)) > self.memory:
            reason = f"resident size {resident} bytes is over the limit of {self.memory} bytes"
            return Outcome(ended="memory", stage=self.stage, reason=reason)
        return None


def _with_cause(outcome: Outcome, ended: Mapping[str, Any]) -> Outcome:
    """A death explained by its exit code or signal."""
    if outcome.ended != "died" or ended.get("forced"):
        return outcome
    if ended.get("signal"):
        name = signal.Signals(ended["signal"]).name
        return Outcome(
            ended="died", stage=outcome.stage, reason=f"killed by signal {ended['signal']} ({name})"
        )
    if "code" in ended:
        return Outcome(ended="died", stage=outcome.stage, reason=f"ended with exit code {ended['code']}")
    return outcome


def _dated(outcome: Outcome, seconds: float) -> Outcome:
    return Outcome(
        ended=outcome.ended,
        answer=outcome.answer,
        stage=outcome.stage,
        reason=outcome.reason,
        seconds=seconds,
    )


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError, ValueError):
        return 0
