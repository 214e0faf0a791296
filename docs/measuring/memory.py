"""Memory against peaks that are known: ``python docs/measuring/memory.py docs/measuring/memory.csv``.

Written-out attention at five sizes, with its scores, weights and output alive at once, and ten operators,
some of which take memory that their signature does not show. Measured by ``effbench.run``.
"""

import sys
import tempfile

import pandas as pd
import torch
from machine import machine
from torch import nn

import effbench
from effbench.frame import load_run
from effbench.plugin import Mechanism

FLOAT, INDEX, COMPLEX, BOOL = 4, 8, 8, 1  # bytes


def attention(x):
    scores = x @ x.mT
    weights = scores.softmax(-1)
    return scores, weights, weights @ x


#: operator -> (function of x [b, n, d], bytes that it holds at its peak, why)
OPERATORS = {
    "attention": (
        attention,
        lambda b, n, d: (2 * b * n * n + b * n * d) * FLOAT,
        "scores, weights and output",
    ),
    "exp": (torch.exp, lambda b, n, d: b * n * d * FLOAT, "the result"),
    "gram": (lambda x: x.mT @ x, lambda b, n, d: b * d * d * FLOAT, "the [d, d] result"),
    "cat": (lambda x: torch.cat([x, x], -1), lambda b, n, d: 2 * b * n * d * FLOAT, "twice the input"),
    "cumsum": (lambda x: x.cumsum(1), lambda b, n, d: b * n * d * FLOAT, "the result"),
    "two-steps": (
        lambda x: x.exp().sigmoid(),
        lambda b, n, d: 2 * b * n * d * FLOAT,
        "one step and the next",
    ),
    "rfft": (torch.fft.rfft, lambda b, n, d: b * n * (d // 2 + 1) * COMPLEX, "half of a complex spectrum"),
    "sort": (torch.sort, lambda b, n, d: b * n * d * (FLOAT + INDEX), "values and places"),
    "where": (
        lambda x: torch.where(x > 0, x, -x),
        lambda b, n, d: b * n * d * (2 * FLOAT + BOOL),
        "mask, negative and result",
    ),
    "softmax-transposed": (
        lambda x: x.mT.softmax(-1),
        lambda b, n, d: 2 * b * n * d * FLOAT,
        "the result and a hidden contiguous copy",
    ),
    "logsumexp": (
        lambda x: x.logsumexp(-1),
        lambda b, n, d: (b * n * d + 2 * b * n) * FLOAT,
        "hidden exponentials, maxima and the result",
    ),
}


class Held(nn.Module):
    """Applies an operator and gives back its input: what the operator made is dropped at the end."""

    def __init__(self, operator):
        super().__init__()
        self.operator = OPERATORS[operator][0]

    def forward(self, x):
        made = self.operator(x)
        del made
        return x


KNOWN = Mechanism(name="known-peak", build=lambda shape, *, causal, operator="attention": Held(operator))

#: How far a column may be from the truth: a share of it, and bytes.
ALLOWED = {"alloc_bytes": (0.001, 16 * 1024), "peak_bytes": (0.01, 300_000)}


def measured(operators, *, seq, dim, batch):
    """One row an operator and size, and the machine."""
    with tempfile.TemporaryDirectory() as out:
        frame = effbench.run(
            mechanisms=[f"{__file__}:KNOWN"],
            options={"known-peak": {"operator": list(operators)}},
            seq=seq,
            dim=dim,
            batch=batch,
            out=out,
        )
        run = load_run(out)
    for (_, cell), record in zip(frame.iterrows(), map(run.answer, frame["id"]), strict=True):
        operator = record.cell["options"]["operator"]
        truth = OPERATORS[operator][1](cell["batch"], cell["seq"], cell["dim"])
        row = {"operator": operator, "held": OPERATORS[operator][2]}
        row |= {axis: cell[axis] for axis in ("batch", "seq", "dim", "status")} | {"truth_bytes": truth}
        row |= {column: cell[column] for column in ALLOWED}
        row["predicted_bytes"] = record.memory.predicted_bytes
        yield row | {"machine": machine(run)}


def main(path):
    rows = [
        *measured(["attention"], seq="256..4096", dim=64, batch=1),
        *measured(["attention"], seq=4096, dim=64, batch=4),
        *measured([name for name in OPERATORS if name != "attention"], seq=4096, dim=512, batch=1),
    ]
    pd.DataFrame(rows).to_csv(path, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
