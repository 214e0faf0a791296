"""A fork server: imports torch once, computes nothing, and forks a fresh child for every question.

``python -m effbench.forkserver KIND FD``. FD is a Unix socket to the runner. The runner sends one
byte with two file descriptors, the child's channel and its log; the server answers with lines of
JSON: ``{"ready": pid}``, ``{"forked": pid}``, ``{"ended": pid, "code": n, "signal": n}``. It ends,
and takes every descendant with it, when the runner closes the socket or dies.

A child that was asked to load a mechanism is a fork server then, on the channel that it was asked by: its own
children, who have it loaded, answer questions about that mechanism (``nursery`` is the runner's side).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable

Answer = Callable[[socket.socket], None]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None)  # opened once: in a child that takes a millisecond


def main() -> None:
    """Serve until the runner is gone."""
    kind, fd = sys.argv[1], int(sys.argv[2])
    gc.disable()  # to look through what torch's import makes again and again costs a fifth of the start
    from effbench import preheat, worker

    preheat.prepare(kind)
    gc.enable()
    _serve(socket.socket(fileno=fd), worker.answer)


def _serve(control: socket.socket, answer: Answer) -> None:
    """Fork a child for each question until the runner is gone."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    _say(control, {"ready": os.getpid()})
    try:
        _fork_when_asked(control, (wake_read, wake_write), answer)
    finally:
        _end_descendants()


def _fork_when_asked(control: socket.socket, wake: tuple[int, int], answer: Answer) -> None:
    asked: set[int] = set()  # children that the runner knows of
    while True:
        ready, _, _ = select.select([control.fileno(), wake[0]], [], [])
        if wake[0] in ready:
            os.read(wake[0], 4096)
            _reap(control, asked)
        if control.fileno() in ready:
            message, fds, _, _ = socket.recv_fds(control, 1, 2)
            if not message:
                return
            channel, log = fds
            asked.add(_fork(control, channel, log, wake, answer))
            os.close(channel)
            os.close(log)


def _fork(control: socket.socket, channel: int, log: int, wake: tuple[int, int], answer: Answer) -> int:
    server = os.getpid()
    pid = os.fork()
    if pid:
        _say(control, {"forked": pid})
        return pid
    try:
        _become_child(server, control, log, wake)
        asked = socket.socket(fileno=channel)
        answer(asked)  # and end, except where a mechanism was loaded to be asked about
        if _alone():
            _serve(socket.socket(fileno=asked.detach()), answer)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def _become_child(server: int, control: socket.socket, log: int, wake: tuple[int, int]) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.setsid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server:
        os._exit(1)
    signal.set_wakeup_fd(-1)  # from Python 3.12 on asyncio, where it is imported, has done so before us
    for end in wake:
        os.close(end)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    control.close()
    with contextlib.suppress(OSError):
        # Where memory runs out, the kernel shall take the child and not the user's editor.
        score = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        os.write(score, b"1000")
        os.close(score)


def _reap(control: socket.socket, asked: set[int]) -> None:
    """Report every child that ended, and end what it left behind: its group, and orphans now ours."""
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        pid = ended.si_pid
        _kill(-pid)  # still unreaped, so the number cannot have been given to anyone else
        _, status = os.waitpid(pid, 0)
        if pid in asked:
            asked.remove(pid)
            _kill_orphans(asked)
            code = os.waitstatus_to_exitcode(status)
            _say(control, {"ended": pid, "code": max(code, 0), "signal": max(-code, 0)})


def _kill_orphans(asked: set[int]) -> None:
    """Kill the descendants that moved to a session of their own and outlived the child that made them.

    The runner asks one question at a time, so once its child is reaped every child that it did not ask for
    is such a one.
    """
    for pid in _children():
        if pid not in asked:
            _kill(-pid)
            _kill(pid)


def _alone() -> bool:
    """Whether loading left neither threads, which no fork survives, nor processes, which would disturb.

    A system that does not say so has no such servers.
    """
    try:
        return len(os.listdir("/proc/self/task")) == 1 and not _children()
    except OSError:
        return False


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:
            return [int(pid) for pid in file.read().split()]
    except OSError:
        return []


def _end_descendants() -> None:
    for pid in _children():
        _kill(-pid)
        _kill(pid)


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def _say(control: socket.socket, message: dict[str, int]) -> None:
    with contextlib.suppress(OSError):  # the runner is gone; the next read ends the loop
        control.sendall(json.dumps(message).encode() + b"\n")


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        _LIBC.prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main()
    os._exit(0)  # to take torch down in good order would take a quarter of a second
