"""Kernels and rivals in turns, in one process: ``python docs/kernels/turns.py docs/kernels/turns.csv``.

Times of a run are taken minutes apart, and a virtual machine's speed drifts meanwhile; here both sides take
turns, A B B A, so that the ratio is free of it. Level op, width 512, float32, torch's products, a warm heap.
Needs the package docs/peers. ``--only NAME`` takes one operator, ``--table`` prints what the file holds.
"""

import argparse
import math
import os
import sys
import time
from pathlib import Path
from statistics import median, quantiles

import pandas as pd
from tabulate import tabulate

from effbench.cell import Cell, usable_cores
from effbench.environment import cpu_model, server_environment

DIM, HEADS, TURN_S, FOURS, LEAST, ENOUGH_S = 512, 8, 0.05, 21, 4, 12
LONG = 16384
#: Operator, options, length, causal, its rivals, whose times add up, and the goal.
PAIRS = [
    ("aft-full", {}, LONG, False, ["mha-sdpa"], 1),
    ("mha-tiled", {}, LONG, False, ["mha-sdpa"], 1),
    ("aft-local", {}, LONG, False, ["aft-full"], 0.1),
    ("synthesizer-dense", {}, 8192, False, ["mha-tiled"], 1.3),
    ("aft-simple", {}, LONG, False, ["plain-aft-simple"], 0.5),
    ("aft-simple", {}, 65536, True, ["plain-aft-simple"], 0.25),
    ("aft-conv", {"dims": 1}, LONG, False, ["plain-depthwise", "aft-simple"], 1.5),
    ("aft-conv", {"dims": 2}, LONG, False, ["plain-depthwise", "aft-simple"], 1.5),
    ("linear", {}, LONG, False, ["plain-linear"], 0.5),
    ("linear", {}, LONG, True, ["plain-linear"], 0.5),
    *(
        ("fnet", {}, n, False, ["plain-fnet"], 0.5 if n >= 8192 else 1)
        for n in (1024, 4096, 8192, 16384, 65536)
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--only")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    settings = server_environment("time", threads=usable_cores(), allocator="warm")
    if not asked.table:
        if settings.items() - os.environ.items():  # glibc and OpenMP read them when a process starts
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})
        rows = [in_turns(*pair) for pair in PAIRS if asked.only in (None, pair[0])]
        pd.DataFrame(rows).to_csv(asked.path, index=False)
    print(table(pd.read_csv(asked.path)))


def in_turns(name, options, n, causal, rivals, goal) -> dict:
    """The ratio of one operator's time to its rivals', over fours of turns."""
    ours, others = passes([name], options, n, causal), passes(rivals, options, n, causal)
    for side in (ours, others):
        side(1), side(1)
    counts = [max(1, math.ceil(TURN_S / side(1))) for side in (ours, others)]
    ratios, mine, start = [], [], time.perf_counter()
    while len(ratios) < FOURS and (len(ratios) < LEAST or time.perf_counter() - start < ENOUGH_S):
        first, second, third, fourth = (
            side(count) / count
            for side, count in zip((ours, others, others, ours), (*counts, *reversed(counts)), strict=True)
        )
        ratios.append((first + fourth) / (second + third))
        mine.append((first + fourth) / 2)
    low, _, high = quantiles(ratios, n=4)
    form = f"{options['dims']}-D" if options else "causal" if causal else ""
    row = {
        "operator": name,
        "form": form,
        "n": n,
        "rivals": " + ".join(rivals),
        "ratio": median(ratios),
        "low": low,
    }
    row |= {"high": high, "fours": len(ratios), "seconds": median(mine), "goal": goal}
    print(row, file=sys.stderr, flush=True)
    return row | {"machine": machine()}


def passes(names, options, n, causal):
    """A function that makes so many forward passes of each and gives the seconds of them all."""
    import torch

    from effbench import products
    from effbench.registry import MECHANISMS, Registry, load_mechanism
    from effbench.subject import build_subject

    products.use("torch")
    torch.set_num_threads(usable_cores())
    registry, subjects = Registry.installed(MECHANISMS), []
    for name in names:
        mechanism = load_mechanism(registry, name)[0]
        heads = 16 if options else HEADS
        taken = options if "conv" in name or "depthwise" in name else {}
        cell = Cell(
            mechanism=name,
            options=taken,
            level="op",
            causal=causal,
            seq=n,
            dim=DIM,
            heads=heads,
            threads=usable_cores(),
        )
        subjects.append(build_subject(mechanism, cell, seed=0, ring=2))

    def run(count: int) -> float:
        start = time.perf_counter()
        for subject in subjects:
            for i in range(count):
                subject.call(i)
        return time.perf_counter() - start

    return run


def machine() -> str:
    import torch

    return f"{usable_cores()} cores of {cpu_model()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def table(rows: pd.DataFrame) -> str:
    """Markdown: the ratio and the middle half of the fours."""
    shown = [
        [
            f"`{row.operator}` {row.form}".rstrip(),
            row.n,
            " + ".join(f"`{name}`" for name in row.rivals.split(" + ")),
            f"**{row.ratio:.2f}** [{row.low:.2f}, {row.high:.2f}]",
            f"≤ {row.goal:g}" + ("" if row.ratio <= row.goal else " missed"),
            row.fours,
        ]
        for row in rows.fillna({"form": ""}).itertuples()
    ]
    head = ["operator", "n", "against", "ratio of times, middle half", "goal", "fours"]
    return f"{tabulate(shown, head, 'github')}\n\nOn {rows['machine'].iloc[0]}."


if __name__ == "__main__":
    main()
