"""The processor's own counters of this process and of threads it starts later, through perf_event_open(2).

Linux only; and only where the kernel, the container and the virtual machine let the events through. Kernel
code is never counted, which is what an unprivileged process may ask for (perf_event_paranoid up to 2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from effbench.errors import EffbenchError

_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}  # the C library has no function for it
_SIZE = 128  # PERF_ATTR_SIZE_VER7; a kernel that knows less takes more where the rest is 0
_INHERIT, _PINNED, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 1, 1 << 2, 1 << 5, 1 << 6
_CLOSE_ON_EXEC = 1 << 3
_ADDR_NO_RANDOMIZE, _ASK = 0x0040000, 0xFFFFFFFF

_REASONS = {
    errno.ENOENT: "the processor's counters are not there; a virtual machine often hides them",
    errno.EOPNOTSUPP: "this processor cannot count it",
    errno.EINVAL: "the kernel does not know it",
    errno.EACCES: "not permitted; set /proc/sys/kernel/perf_event_paranoid to 2 or less",
    errno.EPERM: "not permitted; a container's seccomp profile must allow perf_event_open",
    errno.ENOSYS: "the kernel has no perf_event_open",
}


@dataclass(frozen=True)
class Event:
    """What is counted: the kernel's type and number of it, and its name for people."""

    type: int
    config: int
    name: str


INSTRUCTIONS = Event(0, 1, "retired instructions")
PAGE_FAULTS = Event(1, 2, "page faults")  # counted by the kernel itself, so it is there on any machine


class NoCounter(EffbenchError):
    """An event cannot be counted here; the message says why."""


class Counter:
    """A running count of one event in user code; ``read`` it twice and take the difference.

    Raises:
        NoCounter: it cannot be opened, with the reason.
    """

    def __init__(self, event: Event) -> None:
        self.event = event
        self._file = _open(event)

    def read(self) -> int:
        """Events so far.

        Raises:
            NoCounter: others hold the processor's counters, so this one has missed some.
        """
        found = os.read(self._file, 8)
        if len(found) < 8:
            raise NoCounter(f"{self.event.name}: the processor's counters are taken by someone else")
        return int.from_bytes(found, sys.byteorder)

    def __enter__(self) -> Counter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._file)


def missing(event: Event) -> str | None:
    """Why an event cannot be counted here; None where it can."""
    try:
        with Counter(event) as counter:
            counter.read()
    except NoCounter as error:
        return str(error)
    return None


def _open(event: Event) -> int:
    number = _PERF_EVENT_OPEN.get(platform.machine())
    if not sys.platform.startswith("linux") or number is None:
        raise NoCounter(f"{event.name}: no perf_event_open on {sys.platform} {platform.machine()}")
    flags = _INHERIT | _PINNED | _EXCLUDE_KERNEL | _EXCLUDE_HYPERVISOR
    # type, size, config, then sample_period, sample_type and read_format, all 0: a plain count
    attributes = struct.pack("=IIQQQQQ", event.type, _SIZE, event.config, 0, 0, 0, flags).ljust(_SIZE, b"\0")
    libc = ctypes.CDLL(None, use_errno=True)
    this_process, any_core, no_group = ctypes.c_int(0), ctypes.c_int(-1), ctypes.c_int(-1)
    file = libc.syscall(
        ctypes.c_long(number), attributes, this_process, any_core, no_group, ctypes.c_ulong(_CLOSE_ON_EXEC)
    )
    if file < 0:
        code = ctypes.get_errno()
        raise NoCounter(
            f"{event.name}: {_REASONS.get(code, os.strerror(code))} ({errno.errorcode.get(code, code)})"
        )
    return int(file)


@contextmanager
def fixed_layout() -> Iterator[None]:
    """Programs started inside put their memory at the same addresses every time, where the system allows it.

    Addresses decide how hash tables fill and how copies align: counts of instructions then repeat exactly.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    personality = ctypes.CDLL(None).personality
    before = personality(_ASK)
    personality(before | _ADDR_NO_RANDOMIZE)  # a container may refuse: the layout then stays random
    try:
        yield
    finally:
        personality(before)


def layout_is_fixed() -> bool:
    """Whether this process was started with a fixed layout of its memory."""
    return sys.platform.startswith("linux") and bool(ctypes.CDLL(None).personality(_ASK) & _ADDR_NO_RANDOMIZE)
