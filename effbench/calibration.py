"""Asks what the machine of a run can do: its ceilings, once for every device and number of threads."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from effbench.plan import Plan
from effbench.visit import Visitor

_CEILINGS_S = 30.0  # for the rates of one dtype on a loaded machine


def keep_ceilings(info: dict[str, Any], plan: Plan, visitor: Visitor) -> None:
    """Measure what this machine can do, once for an environment; a resumed run keeps what it has.

    The first rates are those of the most threads, which ``gemm = auto`` goes by; other devices and numbers
    of threads of the plan stand in ``others``.
    """
    digest = visitor.environment
    known = info["ceilings"].get(digest) or {}
    found = {
        (one.get("device"), one.get("threads")): {k: v for k, v in one.items() if k != "others"}
        for one in (known, *known.get("others", ()))
        if "device" in one  # those of early versions do not say what they are the rates of
    }
    for device, threads in sorted({(cell.device, cell.threads) for cell in plan.cells}, key=_most_threads):
        dtypes = list(dict.fromkeys(cell.dtype for cell in plan.cells if cell.device == device))
        if set(dtypes) <= set(found.get((device, threads), {}).get("matmul", ())):
            continue
        answer = ask_ceilings(visitor, device, threads, dtypes, precision=_precision(plan))
        if answer.get("status") == "ok":
            found[device, threads] = answer["ceilings"]
            faster = info["faster"].setdefault(digest, {})
            info["faster"][digest] = {**answer["faster"], **faster}
    if found:
        first, *others = found.values()
        info["ceilings"][digest] = {**first, "others": others}


def _most_threads(setting: tuple[str, int]) -> tuple[int, str]:
    device, threads = setting
    return -threads, device


def _precision(plan: Plan) -> str:
    """The precision of float32 products that reaches the highest rate among those asked."""
    return "high" if any(cell.precision == "high" for cell in plan.cells) else "highest"


def ask_ceilings(
    visitor: Visitor, device: str, threads: int, dtypes: Sequence[str], *, precision: str = "highest"
) -> dict[str, Any]:
    """The worker's answer: ``ceilings`` and the ``faster`` provider by dtype where its status is ok."""
    server = visitor.servers.get("time", threads=threads, allocator="warm")
    allow = _CEILINGS_S * len(dtypes)
    request = {
        "question": "ceilings",
        "threads": threads,
        "dtypes": dtypes,
        "device": device,
        "precision": precision,
        "allow": allow,
        "path": sys.path,
    }
    return dict(server.ask(request, log=visitor.log("ceilings"), allow=allow).answer)
