"""FLOPs by closed form, counter and processor: ``python docs/measuring/flops.py docs/measuring/flops.csv``.

Layers of the built-in mechanisms, measured by ``effbench.run``: the closed form that each declares stands
beside what was counted operator by operator. Attention has a closed form of this script's own. Where the
processor lets them be counted, the floating-point operations that it retired stand beside both.
"""

import sys
import tempfile
from contextlib import ExitStack

import pandas as pd
from machine import machine

import effbench
from effbench import perf
from effbench.cell import Cell
from effbench.environment import cpu_model
from effbench.frame import load_run

MECHANISMS = ("mha", "mha-sdpa", "aft-full", "aft-simple", "aft-conv", "linear", "synthesizer-dense", "fnet")
KINDS = ("matmul", "elementwise", "transcendental", "fft")
#: Whose processor -> raw events, and the operations that one of each is; a fused multiply-add is always 2.
#: AMD's PMCx003 counts operations of every kind; Intel's FP_ARITH_INST_RETIRED, event 0xC7, instructions
#: by their number of lanes, here those of single precision.
RETIRED = {
    "AMD": {perf.Event(4, 0x1F03, "retired floating-point operations"): 1},
    "Intel": {
        perf.Event(4, umask << 8 | 0xC7, f"retired floating-point instructions of {lanes} lanes"): lanes
        for umask, lanes in ((0x02, 1), (0x08, 4), (0x20, 8), (0x80, 16))
    },
}
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
    if not (events := retired_events()):
        return f"its counter is known for {' and '.join(RETIRED)} alone, and this is {cpu_model()}"
    return next((reason for event in events if (reason := perf.missing(event))), None)


def retired_events():
    """The events of this processor, with the operations that each is."""
    return next((events for maker, events in RETIRED.items() if maker in cpu_model()), {})


def retired(cells, events):
    """Operations of one pass of each cell, by its id: every event so many."""

    def operations():
        return sum(counter.read() * each for counter, each in counters)

    with ExitStack() as stack:  # open before torch starts the threads that they shall follow
        counters = [(stack.enter_context(perf.Counter(event)), each) for event, each in events.items()]
        from effbench.registry import MECHANISMS, Registry, load_mechanism
        from effbench.subject import build_subject

        registry = Registry.installed(MECHANISMS)
        for cell in cells:
            subject = build_subject(load_mechanism(registry, cell.mechanism)[0], cell, seed=0, ring=1)
            subject.call(0)
            before = operations()
            for _ in range(PASSES):
                subject.call(0)
            yield cell.id, (operations() - before) / PASSES


def main(path):
    with tempfile.TemporaryDirectory() as out:
        effbench.run(mechanisms=list(MECHANISMS), seq="256,1024", dim=256, out=out)
        run = load_run(out)
    why_not = why_not_retired()
    cells = [Cell(**entry["cell"]) for entry in run.info["plan"]]
    asked = dict(retired(cells, retired_events())) if why_not is None else {}
    table = pd.DataFrame(rows(run)).assign(retired=[asked.get(cell.id) for cell in cells], no_retired=why_not)
    table.to_csv(path, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
