"""Cells with faults injected at random: ``python docs/measuring/faults.py docs/measuring/faults.csv``.

Each cell fails as ``faulty`` draws it. Kept for each: what became of it, what it cost, and what the parent
then held. At the end of a run: what is left of all the processes that it started. ``--cells N`` does so many
and leaves the rest to the next call.
"""

import argparse
import gc
import os
import secrets
import tempfile
import time
from pathlib import Path

import faulty
import pandas as pd
import psutil
from machine import machine

from effbench.cell import Budget
from effbench.frame import load_run
from effbench.session import Request, measure
from effbench.suite import make_suite

CELLS = 200
MARK = "EFFBENCH_FAULTS"  # a variable that every process of the run inherits
BUDGET = Budget(
    memory_limit=400 << 20,
    cell_timeout=0.5,
    load_timeout=20.0,
    min_time=0.01,
    rounds=((1e9, 1),),  # every cell once
)


def injected(cases):
    """One row a case, all of one run, with the number of processes that it left behind."""
    here, rows = psutil.Process(), []
    os.environ[MARK] = mark = secrets.token_hex(8)
    spec = str(Path(__file__).with_name("faulty.py")) + ":FAULTY"
    question = {
        "mechanisms": [spec],
        "axes": {"seq": faulty.LENGTH, "dim": 8},
        "options": {"faulty": {"case": list(cases)}},
    }
    with tempfile.TemporaryDirectory() as out:

        def note(progress):
            record = progress.record
            fault, place = faulty.drawn(record.cell["options"]["case"])
            gc.collect()
            rows.append(
                {
                    "case": record.cell["options"]["case"],
                    "fault": fault.__name__,
                    "place": place,
                    "expected": faulty.STATUS[fault],
                    "status": record.status,
                    "stage": record.stage,
                    "reason": record.reason,
                    "took_s": record.took_s,
                    "parent_bytes": here.memory_info().rss,
                    "run": mark,
                }
            )

        suite = make_suite(question, "faults")
        finished = measure(Request(name="faults", suite=suite, out=Path(out), budget=BUDGET), watch=note)
        described = machine(load_run(out))
    assert len(finished.frame) == len(rows)
    left = left_behind(mark)
    return [row | {"left_behind": left, "machine": described} for row in rows]


def left_behind(mark, patience=5.0):
    """How many processes with the mark in their environment there still are, beside this one."""
    until = time.monotonic() + patience
    while (count := sum(_marked(pid, mark) for pid in psutil.pids())) and time.monotonic() < until:
        time.sleep(0.1)
    return count


def _marked(pid, mark):
    if pid == os.getpid():
        return False
    try:
        return f"{MARK}={mark}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--cells", type=int, default=CELLS, help="at most so many of those still to do")
    asked = parser.parse_args()
    known = pd.read_csv(asked.csv).to_dict("records") if asked.csv.exists() else []
    waiting = [case for case in range(CELLS) if case not in {row["case"] for row in known}][: asked.cells]
    if waiting:
        pd.DataFrame([*known, *injected(waiting)]).to_csv(asked.csv, index=False)


if __name__ == "__main__":
    main()
