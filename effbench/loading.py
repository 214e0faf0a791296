"""The mechanism that a question names: loaded by the child that is asked, or by who forked it for that."""

from __future__ import annotations

import ctypes
import gc

from effbench import bytecode
from effbench.dialogue import Visit
from effbench.plugin import Mechanism
from effbench.registry import MECHANISMS, Registry, load_mechanism

_kept: dict[str, Mechanism] = {}  # by specification: one, or none


def load(visit: Visit) -> Mechanism:
    """The mechanism of a question; it is imported unless this process was forked with it."""
    visit.enter("load", visit.request["load_timeout"])
    spec = visit.request["spec"]
    if spec in _kept:
        return _kept[spec]
    with bytecode.kept():
        return load_mechanism(Registry.installed(MECHANISMS), spec)[0]


def keep(visit: Visit) -> None:
    """Load it for those whom this process forks."""
    _kept[visit.request["spec"]] = load(visit)
    ctypes.CDLL(None).fflush(None)  # what it printed is not printed by every child again
    gc.collect()
    gc.freeze()
