"""What ``effbench list`` and ``effbench run --dry-run`` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tabulate import tabulate

from effbench.metrics import METRICS
from effbench.plan import Description, Plan
from effbench.registry import MECHANISMS, Registry
from effbench.session import describe_all


def as_objects() -> list[dict[str, Any]]:
    """Every installed mechanism as plain data; one that does not load has its name and the error."""
    registry = Registry.installed(MECHANISMS)
    claimed_twice = {name for name, claims in registry.claims.items() if len(claims) > 1}
    single = [name for name in registry.claims if name not in claimed_twice]
    described = dict(zip(single, describe_all(single), strict=True))
    objects = []
    for name, claims in registry.claims.items():
        if name in claimed_twice:
            who = " and ".join(f"{claim.target} ({claim.origin})" for claim in claims)
            objects.append({"name": name, "error": f"claimed by {who}"})
        else:
            objects.append(_object(name, described[name]))
    return objects


def _object(name: str, description: Description) -> dict[str, Any]:
    if description.error is not None:
        return {"name": name, "error": description.error}
    fields = asdict(description)
    del fields["spec"], fields["error"]
    return {**fields, "build": True}


def as_table(objects: Sequence[Mapping[str, Any]]) -> str:
    """The same for people."""
    rows = []
    for one in objects:
        if "error" in one:
            rows.append([one["name"], f"does not load: {one['error']}", "", "", "", "", ""])
            continue
        complexity = one["complexity"] or {"time": "", "memory": ""}
        rows.append(
            [
                one["name"],
                one["paper"],
                complexity["time"],
                complexity["memory"],
                {(False, True): "both", (True,): "only", (False,): "no"}.get(
                    tuple(sorted(one["causal"])), "no"
                ),
                ", ".join(f"{k}={v}" for k, v in one["options"].items()),
                one["origin"],
            ]
        )
    headers = ["mechanism", "paper", "time", "memory", "causal", "options", "from"]
    return tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)


def as_plan(plan: Plan, known: Sequence[Mapping[str, Any]], limit: int) -> str:
    """The cells of a plan with their predicted FLOPs and memory, before anything is measured."""
    rows = []
    for cell, facts in zip(plan.cells, known, strict=True):
        options = ", ".join(f"{k}={v}" for k, v in {**cell.options, **cell.stack}.items())
        axes = [
            cell.mechanism,
            options,
            cell.level,
            cell.mode,
            "causal" if cell.causal else "",
            cell.batch,
            cell.seq,
            cell.dim,
        ]
        rows.append([*axes, *_predicted(facts, limit)])
    headers = ["mechanism", "options", "level", "mode", "", "batch", "seq", "dim"]
    headers += ["FLOPs", "memory", "remark"]
    table = tabulate(rows, headers=headers, tablefmt="simple", disable_numparse=True)
    meaning = f"memory is live + predicted peak, the limit {_bytes(limit)}"
    return f"{table}\n\n{len(plan.cells)} cells; {meaning}; nothing was measured"


def _predicted(facts: Mapping[str, Any], limit: int) -> list[str]:
    if facts.get("unsupported"):
        return ["", "", str(facts["unsupported"])]
    formula = facts.get("counted") or facts.get("formula")
    flops = sum(formula[kind] for kind in ("matmul", "elementwise", "fft")) if formula else None
    text = METRICS["flops"].text(flops) if flops is not None else "unknown"
    if "peak_bytes" not in facts:
        return [text, "unknown", str(facts.get("reason", ""))]
    needed = facts["live_bytes"] + facts["peak_bytes"]
    return [text, _bytes(needed), "" if needed <= limit else "does not fit: will not be tried"]


def _bytes(value: float) -> str:
    return METRICS["peak_bytes"].text(value)
