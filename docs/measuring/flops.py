"""FLOPs by closed form, counter and processor: ``python docs/measuring/flops.py docs/measuring/flops.csv``.

Layers of the built-in mechanisms, measured by ``effbench.run``: the closed form that each declares stands
beside what was counted operator by operator. Written-out attention has a closed form of this script's own.
"""

import sys
import tempfile

import pandas as pd
from machine import machine

import effbench
from effbench.frame import load_run

MECHANISMS = ("mha", "mha-sdpa", "aft-full", "aft-simple", "aft-conv", "linear", "synthesizer-dense", "fnet")
KINDS = ("matmul", "elementwise", "transcendental", "fft")


def attention_products(batch, seq, dim):
    """Four projections and two products of scores: 8 n d² + 4 n² d, a multiply-add being 2."""
    return batch * (8 * seq * dim**2 + 4 * seq**2 * dim)


def rows(run):
    """One row a cell: FLOPs by kind, declared and counted."""
    for _, cell in run.frame.iterrows():
        record = run.answer(cell["id"])
        row = {axis: cell[axis] for axis in ("mechanism", "batch", "seq", "dim")}
        for source in ("formula", "counted"):
            found = getattr(record.flops, source) or {}
            row |= {f"{source}_{kind}": found.get(kind) for kind in KINDS}
        attention = cell["mechanism"].startswith("mha")
        row["own_matmul"] = (
            attention_products(*(cell[a] for a in ("batch", "seq", "dim"))) if attention else None
        )
        yield row | {"uncounted": ";".join(record.flops.uncounted_ops), "machine": machine(run)}


def main(path):
    with tempfile.TemporaryDirectory() as out:
        effbench.run(mechanisms=list(MECHANISMS), seq="256,1024", dim=256, out=out)
        pd.DataFrame(rows(load_run(out))).to_csv(path, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
