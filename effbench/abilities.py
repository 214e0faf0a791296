"""Answers to questions about the machine and no mechanism: what it can do, and how fast it is just now."""

from __future__ import annotations

from typing import Any

import torch

from effbench import ceilings
from effbench.dialogue import Visit
from effbench.meters.cores import Cores

_GLANCES = 5  # at the cores' pace


def rates(visit: Visit) -> dict[str, Any]:
    """The ceilings of one device and number of threads, and which products are the faster.

    By dtype, and of tiles of heads.
    """
    torch.set_num_threads(visit.request["threads"])
    torch.set_float32_matmul_precision(visit.request["precision"])
    visit.enter("time", visit.request["allow"])
    dtypes = visit.request["dtypes"]
    measured = ceilings.measure(dtypes, visit.request["device"], visit.request["best_s"])
    return {
        "status": "ok",
        "ceilings": measured,
        "faster": {
            **{dtype: ceilings.faster(measured, dtype) for dtype in dtypes},
            "heads": ceilings.faster_by_heads(measured),
        },
    }


def pace(visit: Visit) -> dict[str, Any]:
    """How fast the cores work just now."""
    torch.set_num_threads(visit.request["threads"])
    visit.enter("time", visit.request["allow"])
    cores = Cores(visit.request["best_s"])
    return {"status": "ok", "pace_s": [cores.pace() for _ in range(_GLANCES)]}
