"""A run in other tools' forms: their continuous benchmarking reads these.

``csv`` and ``json`` hold every row; the others have no place for a status and hold rows with numbers only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any

import numpy as np
import pandas as pd

from effbench.errors import BadInput
from effbench.frame import NUMBERS, Run, write_table
from effbench.metrics import METRICS, size_label

#: What is exported to tools that follow a number over commits.
FOLLOWED = ("time_s", "peak_bytes", "alloc_bytes", "flops")


def export(run: Run, to: str) -> str:
    """The rows of a run as text.

    Raises:
        BadInput: no such form.
    """
    if to not in FORMS:
        raise BadInput(f"--to: {to!r} is none of {', '.join(FORMS)}")
    return str(FORMS[to](run))


def as_csv(run: Run) -> str:
    """The text of ``table.csv``."""
    text = StringIO()
    write_table(run, text)
    return text.getvalue()


def as_json(run: Run) -> str:
    """A list of rows; a missing number is null, ``options`` and ``stack`` are objects, ``flags`` a list."""
    rows = []
    for row in run.frame.to_dict("records"):
        plain: dict[str, Any] = {str(column): value for column, value in row.items()}
        plain |= {name: None if pd.isna(row[name]) else row[name] for name in NUMBERS}
        plain |= {name: json.loads(row[name]) for name in ("options", "stack")}
        rows.append(plain | {"flags": row["flags"].split(";") if row["flags"] else []})
    return json.dumps(rows, indent=1) + "\n"


def as_github_action_benchmark(run: Run) -> str:
    """For github-action-benchmark, tool ``customSmallerIsBetter``: name, unit, value and range."""
    entries = []
    for name, row, metric in _followed(run):
        entry = {"name": f"{name} {metric}", "unit": METRICS[metric].unit, "value": row[metric]}
        if metric == "time_s" and pd.notna(row["time_low_s"]):
            entry["range"] = f"{row['time_low_s']:.6g}..{row['time_high_s']:.6g}"
        entries.append(entry)
    return json.dumps(entries, indent=1) + "\n"


def as_bencher(run: Run) -> str:
    """Bencher Metric Format: benchmark, then measure, then value with its bounds."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, row, metric in _followed(run):
        measure = {"value": row[metric]}
        if metric == "time_s" and pd.notna(row["time_low_s"]):
            measure |= {"lower_value": row["time_low_s"], "upper_value": row["time_high_s"]}
        found.setdefault(name, {})[metric] = measure
    return json.dumps(found, indent=1) + "\n"


def as_pytest_benchmark(run: Run) -> str:
    """As ``pytest --benchmark-json`` writes it: rows with samples of time, the rest in ``extra_info``.

    Its spread is that of all samples together; effbench's interval, which knows of processes, is beside it.
    """
    benchmarks = []
    rows = {row["id"]: row for _, row, metric in _followed(run) if metric == "time_s"}
    names = {row["id"]: name for name, row, _ in _followed(run)}
    for cell_id, row in rows.items():
        samples = [sample for group in run.samples(cell_id) for sample in group]
        others = [name for name in NUMBERS if name not in ("time_s", "samples") and pd.notna(row[name])]
        benchmarks.append(
            {
                "group": names[cell_id].removeprefix(f"{row['mechanism']} "),
                "name": names[cell_id],
                "fullname": names[cell_id],
                "params": {name: row[name] for name in ("mechanism", "mode", "seq", "dim")},
                "param": names[cell_id],
                "extra_info": {name: row[name] for name in others} | {"flags": row["flags"]},
                "options": {},
                "stats": _statistics(samples),
            }
        )
    last = (run.info.get("circumstances") or [{}])[-1]
    machine = {"node": last.get("host", ""), "effbench_environment": run.info.get("environment", "")}
    whole = {
        "machine_info": {**machine, "cpu": {"brand_raw": run.machine.get("cpu", {}).get("model", "")}},
        "commit_info": {"id": last.get("git_commit") or "", "dirty": bool(last.get("git_dirty"))},
        "benchmarks": benchmarks,
        "datetime": last.get("date", ""),
        "version": run.info.get("effbench", ""),
    }
    return json.dumps(whole, indent=1) + "\n"


def _statistics(samples: list[float]) -> dict[str, Any]:
    """What pytest-benchmark computes of samples, under its names."""
    values = np.asarray(samples, dtype=np.float64)
    low, middle, high = (float(q) for q in np.percentile(values, [25, 50, 75]))
    mean, deviation = float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0
    inside = values[(values >= low - 1.5 * (high - low)) & (values <= high + 1.5 * (high - low))]
    far = int((np.abs(values - mean) > deviation).sum()) if deviation else 0
    outside = len(values) - len(inside)
    return {
        "min": float(values.min()),
        "max": float(values.max()),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(values),
        "median": middle,
        "iqr": high - low,
        "q1": low,
        "q3": high,
        "iqr_outliers": outside,
        "stddev_outliers": far,
        "outliers": f"{far};{outside}",
        "ld15iqr": float(inside.min()),
        "hd15iqr": float(inside.max()),
        "ops": 1 / mean,
        "total": float(values.sum()),
        "iterations": 1,
        "data": samples,
    }


def _followed(run: Run) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Name, row and metric of every number to follow; names do not depend on what a row measured."""
    others = [axis for axis in run.varying if axis not in ("seq", "dim")]
    for label, row in zip(run.series, run.frame.to_dict("records"), strict=True):
        facets = [f"{axis}={row[axis]}" for axis in others]
        name = " ".join([label, f"seq={size_label(row['seq'])}", f"dim={row['dim']}", *facets])
        for metric in FOLLOWED:
            if pd.notna(row[metric]):
                yield name, {str(column): value for column, value in row.items()}, metric


FORMS = {
    "csv": as_csv,
    "json": as_json,
    "pytest-benchmark": as_pytest_benchmark,
    "gha": as_github_action_benchmark,
    "github-action-benchmark": as_github_action_benchmark,
    "bmf": as_bencher,
    "bencher": as_bencher,
}
