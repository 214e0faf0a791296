"""What a cell costs beyond its passes: ``python docs/measuring/overhead.py docs/measuring/overhead.csv``.

Cheap cells are visited as a run visits them, twice. Every step of a visit is a question: the time that the
run waits for it, from before the request to its answer (the end of the child before it, which must be gone
first, and the loading of a mechanism for its first question to a server included), less first call, warm-up
and samples where it times, is overhead. What the next cell's counts take longer than the memory question that
they are made beside is a part of that one. Beside it the processor time that the parent used meanwhile.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import pandas as pd
from machine import machine

from effbench.cell import Budget
from effbench.environment import default_memory_limit
from effbench.frame import load_run
from effbench.session import Request, measure
from effbench.suite import make_suite
from effbench.visit import Visit

QUESTION = {
    "mechanisms": ["mha", "mha-sdpa", "aft-simple", "fnet"],
    "sweep": [{"seq": "128..1024", "dim": 64}],
}

#: The steps of a visit that ask something, and what; the last two not of every cell.
STEPS = {
    "predict": "counts",
    "time": "time",
    "memory": "memory",
    "check": "check",
    "instruct": "instructions",
}
ALWAYS = ("counts", "time", "memory")
ASKED_S = 1e-3  # what takes no longer asked nobody


@contextmanager
def listening() -> Iterator[list[dict]]:
    """Every step of a visit, as it ends."""
    heard = []

    def watched(question, step):
        def watch(visit, *args):
            began, used = time.monotonic(), time.process_time()
            found = step(visit, *args)
            seconds, passes = time.monotonic() - began, visit._time if question == "time" else None
            row = {
                "mechanism": visit.cell.mechanism,
                "seq": visit.cell.seq,
                "dim": visit.cell.dim,
                "question": question,
                "seconds": seconds,
                "passes_s": (passes or {}).get("spent_s") or 0.0,
                "parent_s": time.process_time() - used,
            }
            heard.extend([row] if question in ALWAYS or seconds > ASKED_S else [])
            return found

        return watch

    with ExitStack() as patched:
        for name, question in STEPS.items():
            patched.enter_context(patch.object(Visit, name, watched(question, getattr(Visit, name))))
        yield heard


def main(path):
    with tempfile.TemporaryDirectory() as out, listening() as heard:
        budget = Budget(memory_limit=default_memory_limit())
        suite = make_suite(QUESTION, "overhead")
        measure(Request(name="overhead", suite=suite, out=Path(out), budget=budget))
        about = machine(load_run(out))
    pd.DataFrame(heard).assign(machine=about).to_csv(path, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
