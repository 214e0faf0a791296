"""Runs the gate again and again on changes that are known, and keeps what it said: the figures of docs/ci.md.

``python docs/ci/show.py FOLDER KIND COUNT [--before "flock LOCK"]`` from a checkout. Gates that FOLDER
holds already are not run again, so that it can be stopped at any time; ``--table`` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUESTION = [
    "--mechanism",
    "mha-sdpa,aft-simple,linear,fnet",
    "--seq",
    "512,2048",
    "--dim",
    "128",
    "--mode",
    "forward",
]
CHANGED = "aft_simple"

#: Appended to the file of one mechanism, whose work grows with n: a share of the tokens is computed again.
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


import dataclasses
import functools

MECHANISM = dataclasses.replace(MECHANISM, build=_planted(MECHANISM.build))
"""
LINES = {
    "slower-10": "forward(x[:, : x.shape[1] // 10])",
    "slower-20": "forward(x[:, : x.shape[1] // 5])",
    "memory-5": "held = x.new_ones(int(0.05 * {peak} * x.numel()))  # {peak} times the input is its peak",
    "flops-2": "forward(x)",
}
KINDS = ("equal", "equal-noisy", *LINES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("kind", choices=KINDS, nargs="?")
    parser.add_argument("count", type=int, nargs="?", default=20)
    parser.add_argument("--before", default="", help="a command that each gate is run under")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if asked.kind:
        clone = cloned(asked.folder)
        plant(clone, asked.kind, asked.folder)
        done = [gate for gate in gates(asked.folder) if gate["kind"] == asked.kind]
        for number in range(len(done), asked.count):
            run(clone, asked.folder, asked.kind, number, shlex.split(asked.before))
    if asked.table:
        print(table(asked.folder))


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
    if kind in LINES:
        file = clone / "mechanisms" / f"{CHANGED}.py"
        line = LINES[kind].format(peak=peak(folder) if "{peak}" in LINES[kind] else "")
        file.write_text(file.read_text() + PLANT.format(line=line))


def peak(folder: Path) -> float:
    """Bytes asked for at the peak over bytes of the input, from a gate that was run before."""
    found = [gate["peak"] for gate in gates(folder) if gate["kind"] == "equal"]
    if not found:
        sys.exit("memory-5 needs a gate of kind equal first, to know the peak")
    return float(found[0])


def run(clone: Path, folder: Path, kind: str, number: int, before: list[str]) -> None:
    out = folder.resolve() / "records" / f"{kind}-{number}"
    command = [sys.executable, "-m", "effbench", "gate", "--base", "base", *QUESTION, "--out", str(out)]
    inner = [sys.executable, "-c", _TIMED, "noisy" if kind == "equal-noisy" else "quiet", *command]
    done = subprocess.run([*before, *inner], cwd=clone, capture_output=True, text=True)
    if done.returncode not in (0, 1, 3):
        sys.exit(done.stderr)
    seconds, load = json.loads(done.stdout.splitlines()[-1])
    found = {
        "kind": kind,
        "number": number,
        "code": done.returncode,
        "seconds": round(seconds, 1),
        "load": load,
        "said": [line for line in done.stdout.splitlines()[:-1] if line.strip()],
        "peak": _peak(out / "base"),
    }
    with (folder / "gates.jsonl").open("a") as file:
        file.write(json.dumps(found) + "\n")
    print(kind, number, done.returncode, f"{seconds:.0f} s", flush=True)


#: Runs a command, beside a process that burns a core where asked; the last line is the seconds and the load.
_TIMED = """
import json, os, subprocess, sys, time
burner = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if sys.argv[1] == "noisy" else None
start = time.monotonic()
try:
    code = subprocess.run(sys.argv[2:]).returncode
finally:
    if burner:
        burner.kill()
print(json.dumps([time.monotonic() - start, os.getloadavg()[0]]), flush=True)
sys.exit(code)
"""


def _peak(folder: Path) -> float:
    from effbench.frame import load_run

    frame = load_run(folder).frame
    row = frame[
        (frame["mechanism"] == CHANGED.replace("_", "-")) & (frame["seq"] == frame["seq"].max())
    ].iloc[0]
    return round(float(row["alloc_bytes"] / (4 * row["batch"] * row["seq"] * row["dim"])), 3)


def gates(folder: Path) -> list[dict]:
    file = folder / "gates.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def table(folder: Path) -> str:
    """Gates of each kind by exit code."""
    codes: dict[str, list[int]] = defaultdict(list)
    seconds: dict[str, list[float]] = defaultdict(list)
    for gate in gates(folder):
        codes[gate["kind"]].append(gate["code"])
        seconds[gate["kind"]].append(gate["seconds"])
    lines = [
        "| change | gates | 0 fine | 1 worse | 3 inconclusive | seconds, median |",
        "|---|---|---|---|---|---|",
    ]
    for kind in (kind for kind in KINDS if codes[kind]):
        found, middle = codes[kind], sorted(seconds[kind])[len(seconds[kind]) // 2]
        counts = " | ".join(str(found.count(code)) for code in (0, 1, 3))
        lines.append(f"| {kind} | {len(found)} | {counts} | {middle:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
