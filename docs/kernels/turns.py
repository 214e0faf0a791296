"""Kernels and rivals in turns, in one process: ``python docs/kernels/turns.py docs/kernels/turns.csv``.

Times of a run are taken minutes apart, and a virtual machine's speed drifts meanwhile; here both sides take
turns, A B B A, so that the ratio is free of it. Level op, width 512, float32, products by torch or by oneDNN;
a process for each allocator. ``squares`` as a rival are products of square matrices, by the same library, of
as many FLOPs as ``aft-full`` needs: the fraction of the ceiling is 1 over the ratio. ``name@n`` is a
mechanism at another length. Needs the package docs/peers. A finished row is written at once, and one that is
there is not taken again but by ``--only NAME``, of one operator. ``--table`` prints what the file holds.
"""

import argparse
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import pandas as pd
from tabulate import tabulate

from effbench.cell import Cell, usable_cores
from effbench.environment import cpu_model, server_environment

DIM, HEADS, TURN_S, FOURS, LEAST, ENOUGH_S = 512, 8, 0.05, 21, 4, 12
COSTLY_S = 1  # a pass of so many seconds is warm when it was made once
ALLOCATORS = ("warm", "default")
KEY = ("operator", "form", "n", "pass", "products", "allocator", "rivals")
Key = tuple[str, str, int, str, str, str, str]
LONG = 16384
SIDE, RANK = 1024, 64  # of the square matrices, and of aft-full's position bias


class Match(NamedTuple):
    """An operator against its rivals, whose times add up, and the ratio to reach.

    ``form``: causal, or the dimensions of a convolution; ``mode``: forward, or train, with backward;
    ``gemm``: whose products.
    """

    operator: str
    form: str
    n: int
    rivals: tuple[str, ...]
    goal: float
    mode: str
    gemm: str
    allocator: str

    @property
    def key(self) -> Key:
        """What tells a row of the file from the others."""
        rivals = " + ".join(self.rivals)
        return self.operator, self.form, self.n, self.mode, self.gemm, self.allocator, rivals


FORWARD, TRAIN = ([(mode, gemm, "warm") for gemm in ("torch", "onednn")] for mode in ("forward", "train"))
HEAPS = [("forward", "torch", allocator) for allocator in ALLOCATORS]
EVERY = [(mode, "torch", allocator) for allocator in ALLOCATORS for mode in ("forward", "train")]
MATCHES = [
    Match(*pair, *way)
    for *pair, ways in (
        ("aft-full", "", LONG, ("squares",), 1.25, FORWARD),
        ("aft-full", "", LONG, ("squares",), 1.42, TRAIN),
        ("aft-full", "", LONG, ("mha-sdpa",), 1, [*FORWARD, *TRAIN]),
        ("mha-tiled", "", LONG, ("mha-sdpa",), 1, [*FORWARD, *TRAIN, *EVERY[2:]]),
        ("aft-local", "", LONG, ("aft-full",), 0.1, FORWARD[:1]),
        ("aft-local", "", 32768, ("aft-local@16384",), 2.2, FORWARD[:1]),
        ("aft-local", "", 65536, ("aft-local@32768",), 2.2, FORWARD[:1]),
        ("synthesizer-dense", "", 8192, ("mha-tiled",), 1.3, FORWARD),
        ("aft-simple", "", LONG, ("plain-aft-simple",), 0.5, EVERY),
        ("aft-simple", "causal", 65536, ("plain-aft-simple",), 0.25, HEAPS),
        ("aft-conv", "1-D", LONG, ("plain-depthwise", "aft-simple"), 1.5, EVERY),
        ("aft-conv", "2-D", LONG, ("plain-depthwise", "aft-simple"), 1.5, EVERY),
        ("linear", "", LONG, ("plain-linear",), 0.5, EVERY),
        ("linear", "causal", LONG, ("plain-linear",), 0.5, EVERY),
        ("fnet", "", 1024, ("plain-fnet",), 1, HEAPS),
        ("fnet", "", 4096, ("plain-fnet",), 1, HEAPS),
        ("fnet", "", 8192, ("plain-fnet",), 0.5, HEAPS),
        ("fnet", "", LONG, ("plain-fnet",), 0.5, EVERY),
        ("fnet", "", 65536, ("plain-fnet",), 0.5, HEAPS),
    )
    for way in ways
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--only")
    parser.add_argument("--allocator", choices=ALLOCATORS)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.table:
        print(table(list(held(asked.path).values())))
    elif asked.allocator is None:
        for allocator in ALLOCATORS:
            subprocess.run([sys.executable, *sys.argv, "--allocator", allocator], check=True)
        print(table(list(held(asked.path).values())))
    else:
        settings = server_environment("time", threads=usable_cores(), allocator=asked.allocator)
        if settings.items() - os.environ.items():  # glibc and OpenMP read them when a process starts
            os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})
        take(asked.path, asked.only, asked.allocator)


def take(path: Path, only: str | None, allocator: str) -> None:
    """Add to the file the rows that it lacks, or put those of one operator in their place."""
    rows = held(path)
    for match in MATCHES:
        if match.allocator == allocator and match.operator == (only or match.operator):
            if only is None and match.key in rows:
                continue
            rows[match.key] = in_turns(match)
            order = [other.key for other in MATCHES if other.key in rows]
            pd.DataFrame([rows[key] for key in order]).to_csv(path, index=False)


def held(path: Path) -> dict[Key, dict]:
    """The rows of the file by the keys of their matches."""
    rows = pd.read_csv(path, keep_default_na=False).to_dict("records") if path.exists() else []
    return {tuple(row[name] for name in KEY): row for row in rows}


def in_turns(match: Match) -> dict:
    """The ratio of one operator's time to its rivals', over fours of turns."""
    ours, others = passes([match.operator], match), passes(match.rivals, match)
    counts = [max(1, math.ceil(TURN_S / warmed(side))) for side in (ours, others)]
    ratios, mine, start = [], [], time.perf_counter()
    while len(ratios) < FOURS and (len(ratios) < LEAST or time.perf_counter() - start < ENOUGH_S):
        first, second, third, fourth = (
            side(count) / count
            for side, count in zip((ours, others, others, ours), (*counts, *reversed(counts)), strict=True)
        )
        ratios.append((first + fourth) / (second + third))
        mine.append((first + fourth) / 2)
    low, _, high = quantiles(ratios, n=4)
    row = dict(zip(KEY, match.key, strict=True))
    row |= {"ratio": median(ratios), "low": low, "high": high, "fours": len(ratios)}
    row |= {"seconds": median(mine), "goal": match.goal}
    print(row, file=sys.stderr, flush=True)
    return row | {"machine": machine()}


def warmed(side) -> float:
    """The seconds of a pass of a side that has made some before."""
    seconds = side(1)
    if seconds < COSTLY_S:
        side(1)
        seconds = side(1)
    return seconds


def passes(names, match: Match):
    """A function that makes so many passes of each and gives the seconds of them all."""
    import torch

    from effbench import products
    from effbench.registry import MECHANISMS, Registry, load_mechanism
    from effbench.subject import build_subject

    products.use(match.gemm)
    torch.set_num_threads(usable_cores())
    registry, calls = Registry.installed(MECHANISMS), []
    options = {"dims": int(match.form[0])} if match.form.endswith("-D") else {}
    for name in names:
        if name == "squares":
            calls.append(squares(match))
            continue
        name, _, n = name.partition("@")
        mechanism = load_mechanism(registry, name)[0]
        cell = Cell(
            mechanism=name,
            options=options if "conv" in name or "depthwise" in name else {},
            level="op",
            mode=match.mode,
            causal=match.form == "causal",
            seq=int(n or match.n),
            dim=DIM,
            heads=16 if options else HEADS,
            threads=usable_cores(),
        )
        calls.append(build_subject(mechanism, cell, seed=0, ring=2).call)

    def run(count: int) -> float:
        start = time.perf_counter()
        for call in calls:
            for i in range(count):
                call(i)
        return time.perf_counter() - start

    return run


def squares(match: Match):
    """A call that makes products of square matrices of as many FLOPs as aft-full needs."""
    import torch

    from effbench import products

    needed = (4 * DIM + 2 * RANK) * match.n**2 * (3 if match.mode == "train" else 1)
    a, b = torch.randn(2, SIDE, SIDE)

    def call(_: int) -> None:
        for _ in range(round(needed / (2 * SIDE**3))):
            products.mm(a, b)

    return call


def machine() -> str:
    import torch

    return f"{usable_cores()} cores of {cpu_model()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}"


def table(rows: list[dict]) -> str:
    """Markdown: the ratio and the middle half of the fours."""
    shown = [
        [
            f"`{row['operator']}` {row['form']}".rstrip(),
            row["n"],
            f"{row['pass']}, {row['products']}, {row['allocator']}",
            " + ".join(f"`{name}`" for name in row["rivals"].split(" + ")),
            f"**{row['ratio']:.2f}** [{row['low']:.2f}, {row['high']:.2f}]",
            f"≤ {row['goal']:g}" + ("" if row["ratio"] <= row["goal"] else " missed"),
            row["fours"],
        ]
        for row in rows
    ]
    head = ["operator", "n", "pass, products, heap", "against", "ratio, middle half", "goal", "fours"]
    return (
        f"{tabulate(shown, head, 'github')}\n\nOn {'; '.join(dict.fromkeys(row['machine'] for row in rows))}."
    )


if __name__ == "__main__":
    main()
