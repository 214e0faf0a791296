"""Mechanisms that fail, each in one way, at one length only: everywhere else they are the identity."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

import torch
from torch import nn

from effbench.plugin import Mechanism

FAULTY_LENGTH = 48


class Faulty(nn.Module):
    def __init__(self, fault):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.fault = fault

    def forward(self, x):
        y = x * self.scale
        return self.fault(y) if x.shape[1] == FAULTY_LENGTH else y


def _raises(y):
    raise ValueError("no such luck\nsecond line")


def _hangs(y):
    time.sleep(3600)


def _hangs_deaf(y):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(1)


def _aborts(y):
    os.abort()


def _exits(y):
    os._exit(7)


def _segfaults(y):
    ctypes.string_at(0)


def _allocates(y):
    held = []
    while True:
        held.append(torch.ones(1 << 22))


def _raises_out_of_memory(y):
    return torch.empty(1 << 50)


def _wrong_shape(y):
    return y[:, :-1]


def _nan(y):
    return y * float("nan")


def _prints(y):
    print("hello from the mechanism")
    print("and to the error stream", file=sys.stderr)
    return y


def _leaves_a_thread(y):
    if threading.active_count() == 1:
        threading.Thread(target=time.sleep, args=(3600,)).start()
    return y


LEFT = []


def _leaves_a_process(y):
    if LEFT:
        return y
    LEFT.append(1)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    return y


def _writes_rubbish(y):
    for fd in range(3, 64):
        try:
            os.write(fd, b"\xff\x00 rubbish\n")
        except OSError:
            pass
    return y


def _closes_everything(y):
    os.closerange(3, 256)
    return y


def _exits_politely(y):
    raise SystemExit(3)


def _changes_threads(y):
    torch.set_num_threads(61)
    return y


def _make(name, fault, **more):
    def build(shape, *, causal):
        return Faulty(fault)

    return Mechanism(name=name, build=build, **more)


FAULTS = {
    name.removeprefix("_").replace("_", "-"): fault
    for name, fault in list(globals().items())
    if callable(fault) and name.startswith("_") and name not in ("_make",) and fault.__module__ == __name__
}
globals().update({name.replace("-", "_").upper(): _make(name, fault) for name, fault in FAULTS.items()})


def _everywhere(fault):
    """A module that fails at every length, so already when it is compared with its reference."""

    class Everywhere(nn.Module):
        def forward(self, x):
            return fault(x)

    return lambda shape, *, causal: Everywhere()


def _refuses(shape, *, causal):
    raise RuntimeError("cannot be built")


CHECK_SHAPE = Mechanism(name="check-shape", build=_everywhere(_wrong_shape))
CHECK_NAN = Mechanism(name="check-nan", build=_everywhere(_nan))
CHECK_HANGS = Mechanism(name="check-hangs", build=_everywhere(_hangs))
CHECK_WRONG = Mechanism(
    name="check-wrong", build=_everywhere(lambda x: x * 1.01), reference=lambda module, x: x
)
CHECK_SECOND_TILE = Mechanism(
    name="check-second-tile",
    build=_everywhere(lambda x: torch.cat([x[:, :1000], x[:, 1000:] * 2], 1)),
    reference=lambda module, x: x,
)
BUILD = Mechanism(name="build", build=_refuses)
LEAN = Mechanism(name="lean", build=_make("lean", None).build)
UNSUPPORTED = Mechanism(
    name="unsupported", build=LEAN.build, supports=lambda cell: "even lengths only" if cell.seq % 2 == 0 else None
)
