"""Does a time's interval hold what it says? ``python docs/measuring/coverage.py docs/measuring/coverage.csv``

Thirty runs on a quiet machine and thirty with one core burning, in turns, each a whole ``effbench run`` of a
small and of a large cell. Every run is written when it ends; ``--for SECONDS`` begins no other after so long,
and the next call goes on. A quiet run of which the meters say that it was not quiet (``TOLD_BY``) is kept as
disturbed, and the next call takes it again.
"""

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from effbench.cell import Budget
from effbench.environment import cpu_model, default_memory_limit
from effbench.session import Request, measure
from effbench.suite import make_suite

RUNS = 30
CELLS = {"small": {"seq": 128, "dim": 64}, "large": {"seq": 2048, "dim": 256}}
#: Flags of a cell during which the machine was not quiet; borrowed: one of two processes found no calm.
TOLD_BY = ("loaded", "slowed", "unsteady", "borrowed")
PATIENCE_S = {"quiet": 60.0, "loaded": 5.0}  # while a core burns, a large cell finds no calm


@contextlib.contextmanager
def burning(condition):
    """One core busy while the condition is "loaded"."""
    if condition == "quiet":
        yield
        return
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burner:
        try:
            yield
        finally:
            burner.kill()


def one_run(cells, patience):
    """Time, interval and flags of each cell, as one run gives them."""
    sweeps = [{axis: [value] for axis, value in sizes.items()} for sizes in cells.values()]
    suite = make_suite({"mechanisms": ["mha-sdpa"], "sweep": sweeps}, "coverage")
    budget = Budget(memory_limit=default_memory_limit(), patience=patience)
    with tempfile.TemporaryDirectory() as folder:
        request = Request(name="coverage", suite=suite, out=Path(folder), budget=budget, reports=())
        frame = measure(request).frame
    names = {tuple(sizes.values()): name for name, sizes in cells.items()}
    for row in frame.itertuples():
        yield {
            "cell": names[row.seq, row.dim],
            "seq": row.seq,
            "dim": row.dim,
            "time_s": row.time_s,
            "low_s": row.time_low_s,
            "high_s": row.time_high_s,
            "samples": int(row.samples),
            "flags": row.flags,
        }


def measured(cells, path, *, runs, patience=PATIENCE_S, for_s=float("inf")):
    """Appends the runs that the file does not hold yet."""
    known = pd.read_csv(path).to_dict("records") if path.exists() else []
    begun = time.monotonic()
    for run in range(runs):
        for condition in ("quiet", "loaded"):
            if any(row["run"] == run and row["condition"] == condition for row in known):
                continue
            with burning(condition):
                rows = list(one_run(cells, patience[condition]))
            flags = {flag for row in rows for flag in row["flags"].split(";")}
            disturbed = condition == "quiet" and not flags.isdisjoint(TOLD_BY)
            about = {"condition": "disturbed" if disturbed else condition, "run": run, "cpu": cpu_model()}
            known += [about | row | {"ended": time.strftime("%Y-%m-%dT%H:%M:%S")} for row in rows]
            pd.DataFrame(known).to_csv(path, index=False)
            if time.monotonic() - begun > for_s:
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--for", type=float, default=float("inf"), dest="for_s", metavar="SECONDS")
    asked = parser.parse_args()
    measured(CELLS, asked.csv, runs=RUNS, for_s=asked.for_s)


if __name__ == "__main__":
    main()
