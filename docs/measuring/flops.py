"""FLOPs by closed form, counter and processor: ``python docs/measuring/flops.py docs/measuring/flops.csv``.

Layers of the built-in mechanisms, measured by ``effbench.run``: the closed form that each declares stands
beside what was counted operator by operator. Attention has a closed form of this script's own. Where an AMD
processor lets them be counted, the floating-point operations that it retired stand beside both.
"""

import sys
import tempfile

import pandas as pd
from machine import machine

import effbench
from effbench import perf
from effbench.cell import Cell
from effbench.environment import cpu_model
from effbench.frame import load_run

MECHANISMS = ("mha", "mha-sdpa", "aft-full", "aft-simple", "aft-conv", "linear", "synthesizer-dense", "fnet")
KINDS = ("matmul", "elementwise", "transcendental", "fft")
#: AMD's PMCx003, every kind of operation: a fused multiply-add is 2.
RETIRED = perf.Event(4, 0x1F03, "retired floating-point operations")
PASSES = 4


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


def why_not_retired():
    """Why the processor cannot be asked; None where it can."""
    if "AMD" not in cpu_model():
        return f"its counter is known for AMD alone, and this is {cpu_model()}"
    return perf.missing(RETIRED)


def retired(cells, event=RETIRED):
    """Events of one pass of each cell, by its id."""
    with perf.Counter(event) as counter:  # open before torch starts the threads that it shall follow
        from effbench.registry import MECHANISMS, Registry, load_mechanism
        from effbench.subject import build_subject

        registry = Registry.installed(MECHANISMS)
        for cell in cells:
            subject = build_subject(load_mechanism(registry, cell.mechanism)[0], cell, seed=0, ring=1)
            subject.call(0)
            before = counter.read()
            for _ in range(PASSES):
                subject.call(0)
            yield cell.id, (counter.read() - before) / PASSES


def main(path):
    with tempfile.TemporaryDirectory() as out:
        effbench.run(mechanisms=list(MECHANISMS), seq="256,1024", dim=256, out=out)
        run = load_run(out)
    why_not = why_not_retired()
    cells = [Cell(**entry["cell"]) for entry in run.info["plan"]]
    asked = dict(retired(cells)) if why_not is None else {}
    table = pd.DataFrame(rows(run)).assign(retired=[asked.get(cell.id) for cell in cells], no_retired=why_not)
    table.to_csv(path, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
