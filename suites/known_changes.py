"""Runs the gate again and again on changes that are known, and keeps what it said: the figures of docs/ci.md.

``python suites/known_changes.py FOLDER KIND COUNT`` from a checkout, with the effbench that is installed.
Gates that FOLDER holds already are not run again, so that it can be stopped at any time; ``--table`` prints
what is there.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from effbench.frame import load_run
from effbench.judgement import WORSE
from effbench.verdict import judge

ROOT = Path(__file__).parents[1]
QUESTION = "--mechanism mha-sdpa,aft-simple,linear,fnet --seq 1024,2048 --dim 256 --mode forward --threads 1"

#: Appended to the file of a mechanism: something is done before every pass.
PLANT = """

def _planted(build):
    @functools.wraps(build)
    def built(shape, **options):
        module = build(shape, **options)
        forward = module.forward

        def planted(x):
            {line}
            return forward(x)

        module.forward = planted
        return module

    return built


def _part(x, share):
    # The first tokens: for them attention and its projections, 8 n d^2 + 4 n^2 d, are a share of all's.
    n, d = x.shape[1:]
    return x[:, : round((d * d + share * (n * n + 2 * n * d)) ** 0.5 - d)]


import dataclasses
import functools

MECHANISM = dataclasses.replace(MECHANISM, build=_planted(MECHANISM.build))
"""
#: Kind of gate -> what is planted: the mechanism, the metric that must tell, and the line; {peak} times the
#: input is the mechanism's peak memory.
KINDS: dict[str, list[tuple[str, str, str]]] = {
    "equal": [],
    "equal-noisy": [],
    "slower-10": [("mha-sdpa", "time_s", "forward(_part(x, 0.1))")],
    "slower-20": [("mha-sdpa", "time_s", "forward(_part(x, 0.2))")],
    "bigger": [
        ("aft-simple", "alloc_bytes", "held = x.new_ones(int(0.05 * {peak} * x.numel()))"),
        ("linear", "flops", "forward(x)"),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=KINDS, nargs="?")
    parser.add_argument("count", type=int, nargs="?", default=20)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.kind:
        clone = cloned(asked.folder)
        plant(clone, asked.kind, asked.folder)
        done = sum(gate["kind"] == asked.kind for gate in gates(asked.folder))
        for number in range(done, asked.count):
            run(clone, asked.folder, asked.kind, number)
    if asked.table:
        print(table(gates(asked.folder)))


def cloned(folder: Path) -> Path:
    """A clone of the committed state, made once."""
    clone = folder.resolve() / "clone"
    if not clone.exists():
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        subprocess.run(["git", "tag", "base"], cwd=clone, check=True)
    return clone


def plant(clone: Path, kind: str, folder: Path) -> None:
    """Put the clone's working tree into the state of a kind."""
    subprocess.run(["git", "checkout", "--quiet", "."], cwd=clone, check=True)
    for mechanism, _, line in KINDS[kind]:
        file = clone / "mechanisms" / f"{mechanism.replace('-', '_')}.py"
        known = peak(folder, mechanism) if "{peak}" in line else None
        file.write_text(file.read_text() + PLANT.replace("{line}", line.format(peak=known)))


def peak(folder: Path, mechanism: str) -> float:
    """Bytes that a mechanism asks for at its peak over bytes of the input, from a gate run before."""
    before = sorted((folder / "records").glob("equal*"))
    if not before:
        sys.exit("this kind needs a gate of equal sides first, to know the peak")
    frame = load_run(before[0] / "base").frame
    row = frame[frame["mechanism"] == mechanism].iloc[-1]
    return float(row["alloc_bytes"] / (4 * row["batch"] * row["seq"] * row["dim"]))


def run(clone: Path, folder: Path, kind: str, number: int) -> None:
    out = folder.resolve() / "records" / f"{kind}-{number}"
    command = [
        sys.executable,
        "-m",
        "effbench",
        "gate",
        "--base",
        "base",
        *QUESTION.split(),
        "--out",
        str(out),
    ]
    with neighbour() if kind == "equal-noisy" else nullcontext():
        start = time.monotonic()
        done = subprocess.run(command, cwd=clone, capture_output=True, text=True)
        seconds = time.monotonic() - start
    if done.returncode not in (0, 1, 3):
        sys.exit(done.stderr)
    found = {
        "kind": kind,
        "number": number,
        "code": done.returncode,
        "seconds": round(seconds, 1),
        "load": os.getloadavg()[0],
        "called": called(out),
    }
    with (folder / "gates.jsonl").open("a") as file:
        file.write(json.dumps(found) + "\n")
    print(kind, number, done.returncode, f"{seconds:.0f} s", found["called"], flush=True)


@contextmanager
def neighbour() -> Iterator[None]:
    """A process that burns a core."""
    burner = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        burner.kill()
        burner.wait()


def called(out: Path) -> list[tuple[str, int, str, str]]:
    """Mechanism, length, metric and call of whatever a gate calls worse or leaves open."""
    base, head = load_run(out / "base"), load_run(out / "head")
    lengths = {row["id"]: row["seq"] for row in head.frame.to_dict("records")}
    return [
        (one.mechanism, lengths[one.id], one.metric, one.call)
        for one in judge(base, head).judgements
        if one.call in WORSE | {"inconclusive"}
    ]


def gates(folder: Path) -> list[dict]:
    file = folder / "gates.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(found: list[dict]) -> str:
    """Gates of each kind: how they ended, how many called the plants, and what was called besides."""
    lines = [
        "| planted | gates | exit 0 | 1 | 3 | called | called at both lengths | false calls | median s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind, plants in KINDS.items():
        mine = [gate for gate in found if gate["kind"] == kind]
        if not mine:
            continue
        told = [lengths_told(gate, plants) for gate in mine]
        changed = {mechanism for mechanism, _, _ in plants}
        false = sum(
            name not in changed and call in WORSE for gate in mine for name, _, _, call in gate["called"]
        )
        cells = [
            kind,
            len(mine),
            *(sum(gate["code"] == code for gate in mine) for code in (0, 1, 3)),
            *(sum(count >= least for count in told) if plants else "" for least in (1, 2)),
            false,
            f"{sorted(gate['seconds'] for gate in mine)[len(mine) // 2]:.0f}",
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def lengths_told(gate: dict, plants: list[tuple[str, str, str]]) -> int:
    """At how many lengths every plant was called by its metric."""
    calls = {(name, length, metric) for name, length, metric, call in gate["called"] if call in WORSE}
    lengths = {length for _, length, _ in calls}
    return sum(all((name, length, metric) in calls for name, metric, _ in plants) for length in lengths)


if __name__ == "__main__":
    main()
