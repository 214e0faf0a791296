"""A mechanism that fails at random: each value of ``case`` draws a fault and where it strikes.

At the measured length it fails while it is timed, at the checked lengths before that; elsewhere it is the
identity. ``python docs/measuring/faults.py`` runs it.
"""

import contextlib
import os
import random
import signal
import time

import torch
from torch import nn

from effbench.plugin import Mechanism

LENGTH = 48  # the measured one


def raises(y):
    raise ValueError("an injected fault")


def aborts(y):
    os.abort()


def hangs(y):
    signal.signal(signal.SIGALRM, signal.SIG_IGN)  # deaf to polite requests
    while True:
        time.sleep(1)


def allocates(y):
    held = []
    while True:
        held.append(torch.ones(1 << 22))


def closes_the_pipe(y):
    os.closerange(3, 256)
    return y


def writes_rubbish(y):
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(fd, b"\xff\x00 rubbish\n")
    return y


def forks_a_child_that_hangs(y):
    if os.fork() == 0:
        os.setsid()  # out of reach of a signal to the group
        while True:
            time.sleep(3600)
    return y


FAULTS = (raises, aborts, hangs, allocates, closes_the_pipe, writes_rubbish, forks_a_child_that_hangs)
PLACES = ("time", "check")

#: What must become of each fault.
STATUS = {
    raises: "error",
    aborts: "crashed",
    hangs: "timeout",
    allocates: "oom",
    closes_the_pipe: "crashed",
    writes_rubbish: "crashed",
    forks_a_child_that_hangs: "ok",
}


def drawn(case):
    """The fault of a case, and the stage in which it strikes."""
    draw = random.Random(case)
    return draw.choice(FAULTS), draw.choice(PLACES)


class Faulty(nn.Module):
    def __init__(self, case):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.fault, self.place = drawn(case)

    def forward(self, x):
        y = x * self.scale
        here = "time" if x.shape[1] == LENGTH else "check"
        return self.fault(y) if here == self.place else y


FAULTY = Mechanism(name="faulty", build=lambda shape, *, causal, case=0: Faulty(case))
