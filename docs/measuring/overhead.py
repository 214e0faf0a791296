"""What a cell costs beyond its passes: ``python docs/measuring/overhead.py docs/measuring/overhead.csv``.

Cheap cells are visited as a run visits them, twice. Every question is one process: its whole time, from
before the request to the moment at which the process is gone (and the loading of a mechanism for its first
question to a server), less first call, warm-up and samples where it times, is overhead. Beside it the
processor time that the parent used meanwhile.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from machine import machine

from effbench.cell import Budget
from effbench.environment import default_memory_limit
from effbench.frame import load_run
from effbench.session import Request, measure
from effbench.suite import make_suite
from effbench.visit import Visitor

QUESTION = {
    "mechanisms": ["mha", "mha-sdpa", "aft-simple", "fnet"],
    "sweep": [{"seq": "128..1024", "dim": 64}],
}


@contextmanager
def listening() -> Iterator[list[dict]]:
    """Every question about a cell, as it is answered."""
    heard, ask = [], Visitor.ask

    def listen(self, kind, cell, question, **more):
        began, used = time.monotonic(), time.process_time()
        outcome = ask(self, kind, cell, question, **more)
        heard.append(
            {
                "mechanism": cell.mechanism,
                "seq": cell.seq,
                "dim": cell.dim,
                "question": question,
                "seconds": time.monotonic() - began,
                "passes_s": (outcome.answer.get("time") or {}).get("spent_s") or 0.0,
                "parent_s": time.process_time() - used,
            }
        )
        return outcome

    Visitor.ask = listen
    try:
        yield heard
    finally:
        Visitor.ask = ask


def main(path):
    with tempfile.TemporaryDirectory() as out, listening() as heard:
        budget = Budget(memory_limit=default_memory_limit())
        suite = make_suite(QUESTION, "overhead")
        measure(Request(name="overhead", suite=suite, out=Path(out), budget=budget))
        about = machine(load_run(out))
    pd.DataFrame(heard).assign(machine=about).to_csv(path, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
