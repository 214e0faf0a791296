"""Writes docs/measuring.md from the tables here: ``python docs/measuring/make_page.py docs/measuring.md``.

Each table comes from the script of its name. Nothing is typed but the goals; a goal that is missed says so.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from effbench.metrics import METRICS
from effbench.words import counted

HERE = Path(__file__).parent
KEPT, MISSED = "kept", "**missed**"

#: How far a column may be from the truth: a share of it, and bytes.
BOUNDS = {"alloc_bytes": (0.001, 16 * 1024), "peak_bytes": (0.01, 300_000)}
PRODUCTS, WHOLE = 0.01, 0.05  # by which closed form and counter may part: matrix products, all of attention
PER_ELEMENT = {"transcendental": 14}  # operations of an exponential, measured
COVERED, ALIKE, PAIRS = 0.85, 0.05, 28 / 30
WIDEST = 100  # of an interval that says anything, as a share of the value
CELL_S, PARENT = 0.150, 0.02


def main(page: str) -> None:
    """The page, with the sections whose tables are there."""
    sections = {
        "memory": memory,
        "flops": flops,
        "cores": cores,
        "coverage": coverage,
        "overhead": overhead,
        "faults": faults,
    }
    text = [HEAD]
    for name, section in sections.items():
        path = HERE / f"{name}.csv"
        if path.exists():
            text += [*section(pd.read_csv(path)), ""]
    Path(page).write_text("\n".join(text))


HEAD = """# How far the numbers can be trusted

What the meters say, held against what is known. Each table is measured by the script of its name in
[docs/measuring](measuring) and printed by `docs/measuring/make_page.py`; nothing in it is typed but the
goals. `effbench doctor` says how the machine at hand stands.
"""


MEMORY = """## Memory against known peaks

Bytes above what was in place, against what the operator holds by its definition. Goals: `alloc_bytes` within
0.1 % + 16 KB, `peak_bytes` (resident) within 1 % + 0.3 MB. A high-water mark of Linux since 6.2 may be off
by 31 pages a core (of 2 cores by 0.25 MB). Where that would be over 6 % of a peak, and a pass is quick,
passes above a ballast of different sizes are rounded differently, and their mean is known to some pages; a
tensor mapped by itself takes a page more than its bytes. What cannot be told from nothing is left empty, with
its reason; small tensors find room in pages that the heap holds already.

The prediction is made on fake tensors before anything runs; of the memory that kernels take for
themselves it knows what softmax, layer norm, logsumexp, fused attention (of each thread) and convolutions
take on a CPU, but not what oneDNN takes for products and dense convolutions in half types: up to as much
as a product's result, half a megabyte a thread. Where counting takes too long, it is extrapolated from
shorter lengths, and the record says so: exact for tiles of one size, up to 13 % short where tiles grow
with the length (`aft-full` at 65536). A pass of over half a second is not made once more under the
profiler: it has the prediction in place of `alloc_bytes`.
"""
FLOPS = """## FLOPs: closed form and counter

One forward pass of a layer; a multiply-add is 2. The closed form is the mechanism's declaration, the counter
looks at every operator that runs. Goals: matrix products agree within 1 %, the whole (products, element-wise,
FFT; transcendentals stand apart) within 5 %.
"""
CORES = """## Time: what the cores give

Torch's fused attention in two sizes, sampled by turns while nothing else runs in this machine, which is a
guest on cores that it shares. Beside each sample fixed works of some microseconds are timed: arithmetic in
the cache, which a neighbour on the same physical core slows, and on several threads one that mostly waits for
all of them, which cores far apart slow. Calm are the samples for which both took at most 1.12 times their
best in this table, which stand between such, and for which no thread waited for a core over 2 % of the time.
A window lasts 2.5 s; a row shows how far apart the medians of windows lie, relative to their median.
"""
COVERAGE = """## Time: intervals and repeated runs

`mha-sdpa` in a small and a large cell, each run a whole one; loaded: one core burns. A quiet run that the
meters flag as loaded, slowed or unsteady, or in which one of two processes found no calm (borrowed), was
disturbed by something else, and taken again. Goals: the 95 % interval of a run holds the grand median of all
runs of its kind in at least 85 % of them; two successive runs differ by under 5 % in at least 28 of 30 pairs
(quiet). How fast the cores are at best, first runs only learn.
"""
TOGETHER = """
They are slow in the same runs: what parts the runs is more than what parts the two processes of one.
"""
BURNING = """
A burning core made the small cell {small:.1f} and the large one {large:.1f} times as slow: with a thread on
every core, each product waits for the thread whose core is shared. Such rows are flagged and support no
finding. Their intervals hold the quiet median in {held[small]:.0%} and {held[large]:.0%} of the runs."""
OVERHEAD = """## What a cell costs beyond its passes

Cheap cells, visited twice. A question costs what the run waits for it: from the request, before which the
last child must be gone, to the answer, less first call, warm-up and samples. Memory and counts make a few
passes of their own, which are not taken off. The counts of the next cell are made beside the memory question,
which then lasts until both are done; nothing is asked beside a time. Goals: at most 150 ms a cell all in all;
the parent uses under 2 % of a core while a child times.
"""
FAULTS = """## Faults

Cells whose mechanism fails: a number drawn from the cell's own decides with which fault, and whether at the
measured length or already while it is compared with its reference. Goals: every cell is a row of the right
status, the parent's memory is flat, no process is left behind.
"""


def memory(table: pd.DataFrame) -> Iterator[str]:
    yield MEMORY
    rows, results = [], []
    for _, row in table.iterrows():
        truth = row["truth_bytes"]
        cells = []
        for column, (share, extra) in BOUNDS.items():
            if pd.isna(row[column]):
                cells.append("")
                continue
            good = abs(row[column] - truth) <= share * truth + extra
            results.append(good)
            cells.append(f"{row[column] - truth:+,.0f}" + ("" if good else f" {MISSED}"))
        size = f"{row['batch']} × {row['seq']} × {row['dim']}"
        predicted = "" if pd.isna(row["predicted_bytes"]) else f"{row['predicted_bytes'] - truth:+,.0f}"
        rows.append([f"`{row['operator']}`", size, row["holds"], f"{truth:,}", *cells, predicted])
    head = ["operator", "b × n × d", "holds", "bytes", "alloc_bytes −", "peak_bytes −", "predicted −"]
    yield _table(rows, head)
    yield f"\n{sum(results)} of {len(results)} values within their bounds. {_on(table)}"


def flops(table: pd.DataFrame) -> Iterator[str]:
    yield FLOPS
    rows, goals = [], []
    for _, row in table.iterrows():
        kinds = {kind: (row[f"formula_{kind}"], row[f"counted_{kind}"]) for kind in _KINDS}
        products = _part(*kinds["matmul"])
        whole = _part(*(sum(kinds[k][i] for k in ("matmul", "elementwise", "fft")) for i in (0, 1)))
        own = "" if pd.isna(row["own_matmul"]) else f"{_part(row['own_matmul'], kinds['matmul'][1]):.2%}"
        good = (products <= PRODUCTS, whole <= WHOLE)
        goals += good
        rows.append(
            [
                f"`{row['mechanism']}`",
                row["seq"],
                f"{kinds['matmul'][1] / 1e6:,.1f} M",
                f"{products:.2%}" + ("" if good[0] else f" {MISSED}"),
                own,
                f"{whole:.2%}" + ("" if good[1] else f" {MISSED}"),
                f"{_part(*kinds['transcendental']):.2%}",
                row["uncounted"] if isinstance(row["uncounted"], str) else "none",
            ]
        )
    head = ["mechanism", "n", "products", "closed form off by", "8 n d² + 4 n² d", "whole", "transcendentals"]
    yield _table(rows, [*head, "not counted"])
    yield f"\n{sum(goals)} of {len(goals)} goals kept. {_processor(table)} {_on(table)}"


_KINDS = ("matmul", "elementwise", "transcendental", "fft")


def _processor(table: pd.DataFrame) -> str:
    """What the processor retired beside what was counted, or why nobody knows."""
    if table["retired"].isna().all():
        return f"The processor itself is not asked: {table['no_retired'].iloc[0]}."
    work = sum(table[f"counted_{kind}"] * PER_ELEMENT.get(kind, 1) for kind in _KINDS)
    ratios = (table["retired"] / work).groupby(table["mechanism"], sort=False).mean()
    shown = ", ".join(f"`{name}` {ratio:.2f}" for name, ratio in ratios.items())
    return (
        f"Retired by the processor over counted, {PER_ELEMENT['transcendental']} operations for each "
        f"transcendental: {shown}."
    )


def cores(table: pd.DataFrame) -> Iterator[str]:
    yield CORES
    rows = []
    for (threads, cell), windows in table.groupby(["threads", "cell"], sort=False):
        row = [threads, cell, len(windows), f"{windows['calm'].sum() / windows['samples'].sum():.0%}"]
        for column in ("all_s", "calm_s"):
            medians = windows[column].dropna()
            apart = medians.quantile([0, 0.1, 0.9, 1]) / medians.median()
            row += [METRICS["time_s"].text(medians.median()), len(medians), *(f"{at:.2f}" for at in apart)]
        rows.append([*row[:5], *row[6:10], *row[10:]])
    head = ["threads", "cell", "windows", "calm samples"]
    apart = ["least", "10 %", "90 %", "most"]
    yield _table(rows, [*head, "all: median", *apart, "calm: median", "windows with any", *apart])
    yield f"\nOn {table['cpu'].iloc[0]}, {table['date'].iloc[0]}."


def coverage(table: pd.DataFrame) -> Iterator[str]:
    yield COVERAGE
    rows = []
    kinds = table[table["condition"] != "disturbed"].sort_values("run", kind="stable")
    for (cell, condition), runs in kinds.groupby(["cell", "condition"]):
        grand = runs["time_s"].median()
        covered = ((runs["low_s"] <= grand) & (grand <= runs["high_s"])).mean()
        ratios = (
            runs["time_s"].to_numpy() / runs["time_s"].shift(-1).fillna(runs["time_s"].iloc[0]).to_numpy()
        )
        alike = (abs(ratios - 1) < ALIKE).mean()
        rows.append(
            [
                f"{cell}, n {runs['seq'].iloc[0]}, d {runs['dim'].iloc[0]}",
                condition,
                len(runs),
                METRICS["time_s"].text(grand),
                f"{runs['time_s'].min() / grand:.2f} – {runs['time_s'].max() / grand:.2f}",
                _width(((runs["high_s"] - runs["low_s"]) / runs["time_s"]).median()),
                f"{covered:.0%} {KEPT if covered >= COVERED else MISSED}",
                f"{alike * len(runs):.0f} of {len(runs)}"
                + (f" {KEPT if alike >= PAIRS else MISSED}" if condition == "quiet" else ""),
                f"{(runs['flags'].fillna('').str.contains('loaded')).mean():.0%}",
            ]
        )
    head = ["cell", "machine", "runs", "grand median", "runs over it", "width of interval", "covered"]
    yield _table(rows, [*head, "pairs within 5 %", "flagged loaded"])
    yield _why(kinds)
    disturbed = table.loc[table["condition"] == "disturbed", "ended"].nunique()
    where = f"On {table['cpu'].iloc[0]}, {table['ended'].min()[:10]}."
    yield f"\n{counted(disturbed, 'disturbed run')} left out. {where}"


def _width(share: float) -> str:
    return f"{share:.0%}" if share < WIDEST else "says nothing"


def _why(runs: pd.DataFrame) -> str:
    """What lies between the runs: whether both cells were slow at once, and what a burning core did."""
    times = runs.pivot(index=["condition", "run"], columns="cell", values="time_s")
    quiet, loaded = (times.loc[condition] for condition in ("quiet", "loaded"))
    together = quiet.corr(method="spearman").loc["small", "large"]
    text = f"\nRank correlation of the two cells' times over the quiet runs: {together:.2f}."
    slow = loaded.median() / quiet.median()
    truth = runs["cell"].map(quiet.median())
    holds = (runs["low_s"] <= truth) & (truth <= runs["high_s"])
    held = holds[runs["condition"] == "loaded"].groupby(runs["cell"]).mean()
    return text + (TOGETHER if together > 0.5 else "") + BURNING.format(**slow, held=held)


def overhead(table: pd.DataFrame) -> Iterator[str]:
    yield OVERHEAD
    table = table.assign(beyond=table["seconds"] - table["passes_s"])
    asked = table[table["question"] != "check"]
    rows = [
        [
            f"{question}" + (", two visits" if question == "time" else ""),
            f"{1e3 * part.groupby(_CELL)['beyond'].sum().median():.0f} ms",
            f"{1e3 * part.groupby(_CELL)['beyond'].sum().max():.0f} ms",
            f"{part['parent_s'].sum() / part['seconds'].sum():.2%}",
        ]
        for question, part in asked.groupby("question", sort=False)
    ]
    cells = asked.groupby(_CELL)["beyond"].sum()
    timing = table[table["question"] == "time"]
    parent = timing["parent_s"].sum() / timing["seconds"].sum()
    verdict = [KEPT if cells.median() <= CELL_S else MISSED, KEPT if parent < PARENT else MISSED]
    rows.append(
        [
            "a cell",
            f"{1e3 * cells.median():.0f} ms {verdict[0]}",
            f"{1e3 * cells.max():.0f} ms",
            f"{parent:.2%} {verdict[1]}",
        ]
    )
    yield _table(rows, ["question", "beyond its passes, median", "most", "parent, share of a core"])
    checks = table.loc[table["question"] == "check", "seconds"]
    yield (
        f"\n{len(cells)} cells, {1e3 * cells.mean():.0f} ms on average; the comparison with the reference, "
        f"once for a mechanism and setting, took {1e3 * checks.median():.0f} ms more. {_on(table)}"
    )


_CELL = ["mechanism", "seq", "dim"]


def faults(table: pd.DataFrame) -> Iterator[str]:
    yield FAULTS
    rows = []
    for (fault, expected), cells in table.groupby(["fault", "expected"], sort=True):
        right = (cells["status"] == expected).sum()
        places = cells["place"].value_counts()
        struck = ", ".join(f"{places[place]} in {place}" for place in sorted(places.index))
        verdict = "" if right == len(cells) else f" {MISSED}"
        rows.append(
            [
                fault.replace("_", " "),
                struck,
                f"`{expected}`",
                f"{right} of {len(cells)}{verdict}",
                f"{cells['took_s'].median():.2f} s",
            ]
        )
    yield _table(rows, ["fault", "cells", "must be", "is", "a cell took"])
    held = table.groupby("run", sort=False)["parent_bytes"]
    growth = (held.last() - held.first()).max() / 2**20
    right = (table["status"] == table["expected"]).sum()
    yield (
        f"\n{right} of {len(table)} cells have the right status. From the first to the last cell of a run "
        f"({held.ngroups} runs of up to {held.size().max()} cells) the parent grew by {growth:.2f} MiB at "
        f"most. Processes left behind: {table['left_behind'].max()}. {_on(table)}"
    )


def _part(expected: float, found: float) -> float:
    """The relative difference; nothing expected and nothing found is none."""
    return abs(found - expected) / max(abs(expected), abs(found)) if found != expected else 0.0


def _on(table: pd.DataFrame) -> str:
    return f"On {table['machine'].iloc[-1]}."


def _table(rows: list[list], head: list[str]) -> str:
    return tabulate(rows, head, "github", disable_numparse=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
