"""Writes folders of runs that were never measured: every number here is made up.

``write_example`` holds every status and every flag, on the shape of the default sweep: ten
mechanisms, seven lengths at one width and five widths at one length.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from effbench.cell import Cell, default_heads
from effbench.plausibility import FLAGS
from effbench.record import FlopsBlock, Memory, Record, Time
from effbench.store import Store

ENVIRONMENT = "5e17be71c001"
LENGTHS = [1024 * 2**power for power in range(7)]
WIDTHS = [64 * 2**power for power in range(5)]

#: mechanism -> (FLOPs, seconds a FLOP, bytes asked for) as functions of n and d; nobody measured these.
SHAPES: dict[str, Any] = {
    "mha": (
        lambda n, d: 8 * n * d * d + 4.2 * n * n * d,
        1.1e-11,
        lambda n, d: 8 * n * n * d / 64 + 16 * n * d,
    ),
    "mha-sdpa": (lambda n, d: 8 * n * d * d + 4 * n * n * d, 7e-12, lambda n, d: 18 * n * d),
    "aft-full": (lambda n, d: 6 * n * d * d + 4 * n * n * d, 1.6e-11, lambda n, d: 8 * n * n + 30 * n * d),
    "aft-local": (lambda n, d: 6 * n * d * d + 260 * n * d, 2e-11, lambda n, d: 44 * n * d),
    "aft-simple": (lambda n, d: 6 * n * d * d + 8 * n * d, 1.3e-11, lambda n, d: 24 * n * d),
    "aft-conv": (lambda n, d: 6 * n * d * d + 70 * n * d, 2.6e-11, lambda n, d: 40 * n * d),
    "linear": (lambda n, d: 8 * n * d * d + 260 * n * d, 1.2e-11, lambda n, d: 28 * n * d),
    "synthesizer-dense": (
        lambda n, d: 6 * n * d * d + 4 * n * n * d,
        1.05e-11,
        lambda n, d: 4 * n * n * d / 64 + 20 * n * d,
    ),
    "synthesizer-random": (
        lambda n, d: 4 * n * d * d + 2.1 * n * n * d,
        9e-12,
        lambda n, d: 4 * n * n + 12 * n * d,
    ),
    "fnet": (lambda n, d: 60 * n * d, 6e-11, lambda n, d: 16 * n * d),
}

#: mechanism -> (time, memory) as it declares them; that of aft-conv is wrong.
DECLARED = {
    "mha": ("n^2 d + n d^2", "h n^2 + n d"),
    "mha-sdpa": ("n^2 d + n d^2", "n d"),
    "aft-full": ("n^2 d + n d^2", "n^2 + n d"),
    "aft-local": ("n s d + n d^2", "n d"),
    "aft-simple": ("n d^2", "n d"),
    "aft-conv": ("n^2 d + n d^2", "n d"),
    "linear": ("n d^2", "n d"),
    "synthesizer-dense": ("n^2 d + n d^2", "h n^2 + n d"),
    "synthesizer-random": ("n^2 d + n d^2", "n^2 + n d"),
    "fnet": ("n d", "n d"),
}


def make_cell(mechanism: str = "toy", **axes: Any) -> Cell:
    """A cell of two threads with the defaults of a run."""
    axes = {"seq": 1024, "dim": 256, "threads": 2} | axes
    return Cell(mechanism=mechanism, **({"heads": default_heads(axes["dim"])} | axes))


def source_of(mechanism: str) -> str:
    return f"{mechanism}@sha256:synthetic"


def measured(cell: Cell, samples: Iterable[float], **changes: Any) -> Record:
    """An ok record; ``changes`` replace fields of it."""
    fields = {
        "id": cell.id,
        "cell": asdict(cell),
        "status": "ok",
        "time": Time(samples_s=list(samples), minor_faults=0),
        "memory": Memory(
            peak_bytes=2**21,
            peak_method="vmhwm",
            alloc_bytes=2**21 - 1000,
            alloc_method="hook",
            live_bytes=2**20,
        ),
        "flops": FlopsBlock(
            counted={"matmul": 4e6, "elementwise": 2e5, "transcendental": 1e5, "fft": 0},
            bytes_moved=3 * 2**20,
        ),
        "path": {"gemm": "torch"},
        "params": 4 * cell.dim**2,
        "process": "server-0",
        "source": source_of(cell.mechanism),
        "environment": ENVIRONMENT,
        "started": "2026-01-31T12:00:00Z",
    }
    return Record(**(fields | changes))


def failed(cell: Cell, status: str, reason: str, **changes: Any) -> Record:
    """A record without numbers."""
    blank: dict[str, Any] = {"status": status, "reason": reason, "time": None, "memory": None, "flops": None}
    return measured(cell, [], **(blank | {"params": None, "path": {}, "process": ""} | changes))


def make_info(cells: Iterable[Cell], **changes: Any) -> dict[str, Any]:
    """``run.json`` of a finished run of these cells."""
    cells = list(cells)
    info = {
        "schema": 1,
        "suite": "synthetic",
        "title": "Synthetic sweep (made-up numbers)",
        "command": "effbench run synthetic",
        "baseline": "mha-sdpa",
        "plan": [{"id": cell.id, "cell": asdict(cell)} for cell in cells],
        "mechanisms": {name: describe(name) for name in dict.fromkeys(cell.mechanism for cell in cells)},
        "environments": {
            ENVIRONMENT: {
                "cpu": {"model": "Synthetic CPU 2000 (no such machine)", "usable_cores": 2, "governor": None},
                "memory": {"physical": 24 * 2**30, "limit": None},
                "os": {"system": "Linux", "kernel": "6.18", "libc": "glibc-2.36"},
                "python": "CPython 3.11.7",
                "torch": {"version": "2.13.0+cpu", "cuda": None},
                "gpu": [],
            }
        },
        "environment": ENVIRONMENT,
        "circumstances": [
            {
                "date": "2026-01-31T12:00:00Z",
                "host": "nowhere",
                "load": [0.1, 0.1, 0.1],
                "git_commit": "0000000",
                "git_dirty": True,
            }
        ],
        "ceilings": {
            ENVIRONMENT: {
                "matmul": {
                    "float32": {
                        "torch": {"flops_per_s": 1.3e11, "spread": 0.01},
                        "onednn": {"flops_per_s": 2.6e11, "spread": 0.02},
                    }
                },
                "copy": {
                    "memory": {"bytes_per_s": 5e10, "spread": 0.02},
                    "cache": {"bytes_per_s": 2e11, "spread": 0.02},
                },
                "exp": {"elements_per_s": 2e9, "spread": 0.01},
            }
        },
        "limits": {"memory_limit": 6 * 2**30, "cell_timeout": 60.0},
        "seed": 0,
        "effbench": "0.1.0",
        "state": "finished",
    }
    return info | changes


def describe(name: str) -> dict[str, Any]:
    return {
        "title": name,
        "paper": "Nobody 2000",
        "causal": [False, True],
        "dtypes": ["float32"],
        "complexity": dict(zip(("time", "memory"), DECLARED.get(name, ("n^2 d", "n d")), strict=True)),
        "options": {},
        "fixed_length": False,
        "same_as": "mha" if name in ("mha-sdpa", "mha-tiled") else "",
        "origin": "built in",
        "source": source_of(name),
        "error": None,
    }


def write_run(folder: Path, cells: Iterable[Cell], records: Iterable[Record], **changes: Any) -> Path:
    """A results folder with these cells planned and these records written; ``changes`` go to run.json."""
    with Store(folder) as store:
        store.write_info(make_info(cells, **changes))
        for record in records:
            store.append(record)
    return folder


def sweep(mechanism: str, **axes: Any) -> list[Cell]:
    """The cross of the default sweep for one mechanism: lengths at width 256, widths at length 4096."""
    by_length = [make_cell(mechanism, **({"seq": n} | axes)) for n in LENGTHS]
    by_width = [make_cell(mechanism, **({"seq": 4096, "dim": d} | axes)) for d in WIDTHS]
    return list({cell.id: cell for cell in by_length + by_width}.values())


def visits(cell: Cell, noise: random.Random, slower: float = 1.0) -> list[Record]:
    """Up to three visits whose numbers follow ``SHAPES``; costly cells get one pass."""
    work, pace, memory = SHAPES[cell.mechanism]
    time = slower * (2e-4 + work(cell.seq, cell.dim) * pace)
    rounds, passes = (3, 12) if time < 0.1 else (2, 5) if time < 1 else (1, 1 if time > 5 else 5)
    asked = int(memory(cell.seq, cell.dim))
    live = 4 * cell.seq * cell.dim + 16 * cell.dim**2
    transcendental = 4.0 * cell.seq * cell.dim
    counted = {"matmul": work(cell.seq, cell.dim), "elementwise": transcendental, "fft": 0.0}
    found = []
    for number in range(rounds):
        level = time * noise.lognormvariate(0, 0.02)
        samples = [level * noise.lognormvariate(0, 0.01) for _ in range(passes)]
        record = measured(cell, samples, round=number, process=f"server-{number}")
        if number == 0:
            block = FlopsBlock(counted=counted | {"transcendental": transcendental}, bytes_moved=2 * asked)
            used = Memory(
                peak_bytes=asked + 300_000,
                alloc_bytes=asked,
                live_bytes=live,
                peak_method="vmhwm",
                alloc_method="hook",
            )
            record = record.model_copy(
                update={"flops": block, "memory": used, "flags": ["few-samples"] if passes == 1 else []}
            )
        else:
            record = record.model_copy(update={"flops": None, "memory": None})
        found.append(record)
    return found


def write_example(folder: Path) -> Path:
    """A run of the default sweep in which everything happens that can happen to a cell."""
    noise = random.Random(0)
    cells = [cell for mechanism in SHAPES for cell in sweep(mechanism)]
    at: dict[tuple[str, int, int], Cell] = {(cell.mechanism, cell.seq, cell.dim): cell for cell in cells}
    failures = {record.id: record for record in _failures(at)}
    left_out = at["fnet", 4096, 1024].id
    records: list[Record] = []
    for cell in cells:
        if cell.id == left_out:
            continue
        records += [failures[cell.id]] if cell.id in failures else visits(cell, noise)
    flagged = at["aft-simple", 1024, 256].id
    records = [
        record.model_copy(update={"flags": [*FLAGS, "of-another-version"]})
        if record.id == flagged
        else record
        for record in records
    ]
    return write_run(folder, cells, records, state="interrupted")


def _failures(at: Mapping[tuple[str, int, int], Cell]) -> list[Record]:
    out_of_time = at["aft-full", 32768, 256]
    return [
        failed(at["mha", 16384, 256], "oom", "DefaultCPUAllocator: can't allocate memory", stage="memory"),
        failed(
            at["mha", 32768, 256], "oom-predicted", "needs 34.6 GiB, 6.0 GiB are available", stage="predict"
        ),
        failed(
            at["mha", 65536, 256], "oom-predicted", "needs 138 GiB, 6.0 GiB are available", stage="predict"
        ),
        failed(out_of_time, "timeout", "one pass took longer than 60 s", stage="time"),
        failed(
            at["aft-full", 65536, 256],
            "skipped",
            "larger than a cell that ran out of time",
            caused_by=out_of_time.id,
        ),
        failed(at["synthesizer-random", 65536, 256], "crashed", "signal 11 (SIGSEGV)", stage="time"),
        failed(
            at["synthesizer-dense", 32768, 256], "error", "ValueError: `a | b`\nsecond <line>", stage="build"
        ),
        failed(at["synthesizer-dense", 65536, 256], "skipped", "budget"),
        failed(at["aft-conv", 4096, 1024], "incorrect", "differs from its reference by 0.3", stage="check"),
        failed(at["linear", 4096, 64], "unsupported", "one head is not enough", stage="build"),
    ]
