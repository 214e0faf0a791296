"""Memory against peaks that are known: ``python docs/measuring/memory.py docs/measuring/memory.csv``.

Written-out attention at five sizes, with its scores, weights and output alive at once, and eleven operators,
some of which take memory that their signature does not show. Measured by ``effbench.run``.
"""

import sys
import tempfile

import pandas as pd
import torch
from machine import machine
from torch import nn
from torch.nn import functional as F

import effbench
from effbench.frame import load_run
from effbench.plugin import Mechanism

FLOAT, INDEX, COMPLEX, BOOL = 4, 8, 8, 1  # bytes


def attention(x):
    scores = x @ x.mT
    weights = scores.softmax(-1)
    return scores, weights, weights @ x


def rows_of_a_tile(n):
    """Of torch's fused attention on a CPU."""
    return 256 if n >= 768 else 64 if n >= 192 else min(n, 32)


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
    "attention-fused": (
        lambda x: F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None]),
        lambda b, n, d: (b * n * (d + 1) + rows_of_a_tile(n) * (min(n, 512) + 2 + d)) * FLOAT,
        "output, sums, and a thread's tile of 256 × 512 scores with its sums and outputs",
    ),
    "logsumexp": (
        lambda x: x.logsumexp(-1),
        lambda b, n, d: (b * n * d + 2 * b * n) * FLOAT,
        "hidden exponentials, maxima and the result",
    ),
}


#: Also taken where their results hold 4, 64 and 256 KB.
SMALL = ["exp", "two-steps", "logsumexp"]


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


def run_of(operators, **axes):
    """A run over operators and sizes."""
    with tempfile.TemporaryDirectory() as out:
        options = {KNOWN.name: {"operator": list(operators)}}
        effbench.run(mechanisms=[f"{__file__}:KNOWN"], options=options, out=out, **axes)
        return load_run(out)


def rows(run):
    """One row for each cell of the mechanism above: the truth, and the columns that should say it."""
    for _, cell in run.frame[run.frame["mechanism"] == KNOWN.name].iterrows():
        record = run.answer(cell["id"])
        operator = record.cell["options"]["operator"]
        _, truth, held = OPERATORS[operator]
        sizes = {axis: cell[axis] for axis in ("batch", "seq", "dim")}
        yield {
            "operator": operator,
            **sizes,
            "holds": held,
            "truth_bytes": truth(*sizes.values()),
            "alloc_bytes": record.memory and record.memory.alloc_bytes,
            "peak_bytes": record.memory and record.memory.peak_bytes,
            "predicted_bytes": record.memory and record.memory.predicted_bytes,
            "machine": machine(run),
        }


def main(path):
    runs = [
        run_of(["attention"], seq="256..4096", dim=64, batch=1),
        run_of(["attention"], seq=4096, dim=64, batch=4),
        run_of(SMALL, seq="16,256,1024", dim=64, batch=1),
        run_of(["attention-fused"], seq="1024,4096", dim=64, batch=1, threads=1),
        run_of([name for name in OPERATORS if "attention" not in name], seq=4096, dim=512, batch=1),
    ]
    table = pd.DataFrame([row for run in runs for row in rows(run)])
    sizes = [column for column in table if column.endswith("_bytes")]
    table.astype(dict.fromkeys(sizes, "Int64")).to_csv(path, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
