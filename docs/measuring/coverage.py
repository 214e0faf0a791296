"""Does a time's interval hold what it says? ``python docs/measuring/coverage.py docs/measuring/coverage.csv``

Thirty runs on a quiet machine and thirty with one core burning, in turns, each of a small and of a large
cell. A run is two time servers started afresh, each of which answers for both cells, and the statistics of
a run over the four visits. Every run is written when it ends; ``--for SECONDS`` begins no other after so
long, and the next call goes on. A quiet run that the meters flag as loaded was not quiet: it is kept as
disturbed, and the next call takes it again.
"""

import argparse
import contextlib
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd

from effbench import stats
from effbench.cell import Budget, Cell, usable_cores
from effbench.environment import cpu_model, default_memory_limit
from effbench.plan import Description
from effbench.servers import Servers
from effbench.visit import Visitor

RUNS, PROCESSES = 30, 2
MECHANISM = Description(spec="mha-sdpa", name="mha-sdpa")
CELLS = {
    "small": Cell(mechanism="mha-sdpa", seq=128, dim=64, heads=1, threads=usable_cores()),
    "large": Cell(mechanism="mha-sdpa", seq=2048, dim=256, heads=4, threads=usable_cores()),
}


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


def one_run(cells, seed):
    """Time, interval and load of each cell, as one run gives them."""
    servers, visits = Servers(), {name: [] for name in cells}
    try:
        for process in range(PROCESSES):
            for cell in cells.values():
                servers.get("time", threads=cell.threads, allocator="warm", replicate=process).spawn()
        with tempfile.TemporaryDirectory() as logs:
            budget = Budget(memory_limit=default_memory_limit())
            visitor = Visitor(servers=servers, budget=budget, logs=Path(logs), seed=0)
            for process in range(PROCESSES):
                for name in random.Random(seed + process).sample(list(cells), len(cells)):
                    visits[name].append(visitor.again(cells[name], MECHANISM, round_=process, until=None))
    finally:
        servers.stop()
    groups = {name: [record.time.samples_s for record in records] for name, records in visits.items()}
    spread = stats.Spread.pooled(list(groups.values()))
    for name, records in visits.items():
        low, high = stats.median_interval(groups[name], spread.alone(groups[name]))
        yield {
            "cell": name,
            "seq": cells[name].seq,
            "dim": cells[name].dim,
            "time_s": stats.median_of_medians(groups[name]),
            "low_s": low,
            "high_s": high,
            "samples": sum(map(len, groups[name])),
            "other_cores": max(record.time.other_cores for record in records),
            "flags": ";".join(sorted({flag for record in records for flag in record.flags})),
        }


def measured(cells, path, *, runs, patience=float("inf")):
    """Appends the runs that the file does not hold yet."""
    known = pd.read_csv(path).to_dict("records") if path.exists() else []
    begun = time.monotonic()
    for run in range(runs):
        for condition in ("quiet", "loaded"):
            if any(row["run"] == run and row["condition"] == condition for row in known):
                continue
            with burning(condition):
                rows = list(one_run(cells, seed=run))
            disturbed = condition == "quiet" and any("loaded" in row["flags"] for row in rows)
            about = {"condition": "disturbed" if disturbed else condition, "run": run, "cpu": cpu_model()}
            known += [about | row | {"ended": time.strftime("%Y-%m-%dT%H:%M:%S")} for row in rows]
            pd.DataFrame(known).to_csv(path, index=False)
            if time.monotonic() - begun > patience:
                return


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--for", type=float, default=float("inf"), dest="patience", metavar="SECONDS")
    asked = parser.parse_args()
    measured(CELLS, asked.csv, runs=RUNS, patience=asked.patience)


if __name__ == "__main__":
    main()
