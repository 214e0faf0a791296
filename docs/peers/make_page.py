"""Writes docs/peers.md: ``python docs/peers/make_page.py results/peers docs/peers.md``.

Times and memory come from the folder of a finished ``effbench run peers``, the broken laws from the
conformance kit, held against every peer here and now. Nothing is typed.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pandas as pd

from effbench.conformance import checks_for
from effbench.frame import Run, load_run
from effbench.plugin import Mechanism

Peers = dict[str, Mechanism]

#: Which of ours a peer stands beside, where it does not say so itself (``same_as``), and what is unlike.
BESIDE = {
    "peer-aft-pytorch-full": ("aft-full", "has an output projection, and biases; [n, n] bias"),
    "peer-aft-pytorch-simple": ("aft-simple", "has an output projection, and biases"),
    "peer-aft-pytorch-local": ("aft-local", "has an output projection, and biases; [n, n] bias"),
    "peer-linear-attention-transformer": ("linear", "other feature maps: softmaxes; causal: softmax and exp"),
    "peer-performer": ("linear", "other feature maps: random ones that approximate softmax attention"),
    "peer-transformers-fnet": ("fnet", ""),
    "peer-transformers-fnet-tpu": ("fnet", "multiplies with the matrix of the transform"),
    "peer-x-transformers": ("mha-sdpa", ""),
    "plain-depthwise": ("aft-conv", "the convolution alone, one projection: a yardstick, not a mechanism"),
}
MARKS = {"unsteady": " ?", "slowed": " ~"}
HEAD = """# Ours beside the public implementations

Layers at width {dim}, {heads} heads, batch 1, float32, on {threads} threads of {cpu} with torch {torch};
measured by `effbench run peers`, first visit {begun}, last {ended}. `plain-…` is the formula in plain torch,
with the same projections as ours; `peer-…` is a public package. A ratio above 1 means that ours is the faster
or the smaller. Ours is taken twice: with torch's matrix products, which is all that a peer gets, and with the
faster of torch's and oneDNN's (`gemm` auto). Memory is the peak above what is in place, ours with torch's
products. A time with a ? was unsteady; at one with a ~ the cores were below their best, so that it may be a
third too long, or twice as long where operations are many and small.

This page is written by `docs/peers/make_page.py`; how to do it again: [peers/README.md](peers/README.md).
"""


def main(folder: str, page: str, remark: str = "") -> None:
    """``remark``: what a reader must know of how this run was taken: cells measured again."""
    Path(page).write_text("\n".join(_page(load_run(folder), _peers(), remark)))


def _page(run: Run, peers: Peers, remark: str) -> Iterator[str]:
    frame, first = run.frame, run.frame.iloc[0]
    yield HEAD.format(dim=first["dim"], heads=first["heads"], threads=first["threads"], **_machine(run))
    if remark:
        yield f"**Of this run:** {remark}\n"
    for causal in (False, True):
        for mode in frame["mode"].unique():
            rows = frame[(frame["mode"] == mode) & (frame["causal"] == causal)]
            if len(rows):
                what = "Forward" if mode == "forward" else "Forward and backward"
                yield f"## {what}{', causal' if causal else ''}\n"
                yield from _table(
                    ["peer", "n", "time", "ours", "ratio", "ratio, auto", "MiB", "ours, MiB", "ratio"],
                    _times(rows, peers),
                )
    yield "## What to know of a row\n"
    yield from _notes(run)
    yield "## Laws that they break\n"
    yield "By the conformance kit, as `effbench verify NAME` says it; what does not apply is skipped.\n"
    yield from _table(["peer", "kept", "skipped", "broken, and what was seen"], _laws(peers))


def _machine(run: Run) -> dict[str, str]:
    times = sorted(record.started for visits in run.visits.values() for record in visits)
    about = {"cpu": run.machine["cpu"]["model"], "torch": run.machine["torch"]["version"]}
    return about | {"begun": times[0], "ended": times[-1]}


def _peers() -> Peers:
    """The mechanisms of this package by name."""
    points = entry_points(group="effbench.mechanisms")
    mine = [point for point in points if point.value.startswith("effbench_peers.")]
    return {point.name: point.load() for point in sorted(mine, key=lambda point: point.name)}


def _ours(name: str, peers: Peers) -> str:
    return peers[name].same_as or BESIDE[name][0]


def _times(rows: pd.DataFrame, peers: Peers) -> Iterator[list[str]]:
    theirs = rows[rows["mechanism"].isin(list(peers)) & (rows["gemm"] == "torch")]
    for _, row in theirs.iterrows():
        beside = rows[(rows["mechanism"] == _ours(row["mechanism"], peers)) & (rows["seq"] == row["seq"])]
        plain, fast = (_only(beside[beside["gemm"] == gemm]) for gemm in ("torch", "auto"))
        yield [
            f"`{row['mechanism']}`",
            str(row["seq"]),
            _milliseconds(row),
            f"`{_ours(row['mechanism'], peers)}` {_milliseconds(plain)}",
            _ratio(row, plain, "time_s"),
            _ratio(row, fast, "time_s"),
            _mebibytes(row),
            _mebibytes(plain),
            _ratio(row, plain, "peak_bytes"),
        ]


def _only(rows: pd.DataFrame) -> pd.Series | None:
    return rows.iloc[0] if len(rows) else None


def _milliseconds(row: pd.Series | None) -> str:
    if row is None:
        return ""
    if row["status"] != "ok":
        return row["status"]
    flags = row["flags"].split(";")
    doubt = "".join(mark for flag, mark in MARKS.items() if flag in flags)
    return f"{row['time_s'] * 1e3:.4g} ms{doubt}"


def _mebibytes(row: pd.Series | None) -> str:
    return "" if row is None or row["status"] != "ok" else f"{row['peak_bytes'] / 2**20:.0f}"


def _ratio(peer: pd.Series, ours: pd.Series | None, column: str) -> str:
    if ours is None or not ours[column] > 0 or not peer[column] > 0:
        return ""
    return f"{peer[column] / ours[column]:.2f}"


def _notes(run: Run) -> Iterator[str]:
    """What is unlike in a comparison, and why a cell has no numbers."""
    for name, (ours, unlike) in BESIDE.items():
        if unlike:
            yield f"* `{name}` beside `{ours}`: {unlike}."
    failed = run.frame[run.frame["status"] != "ok"]
    for (name, status, reason), rows in failed.groupby(["mechanism", "status", "reason"], sort=False):
        sizes = ", ".join(sorted({f"{m} {n}" for m, n in zip(rows["mode"], rows["seq"], strict=True)}))
        yield f"* `{name}` {status} at {sizes}: {reason}."
    yield ""


def _laws(peers: Peers) -> Iterator[list[str]]:
    for name, mechanism in peers.items():
        found = {str(check): check.find() for check in checks_for(mechanism)}
        outcomes = [finding.outcome for finding in found.values()]
        broken = [
            f"{law.replace('_', ' ')}: {finding.remark}"
            for law, finding in found.items()
            if finding.outcome == "FAILED"
        ]
        text = "<br>".join(broken).replace("|", "\\|").replace("\n", " ") or "none"
        yield [f"`{name}`", str(outcomes.count("passed")), str(outcomes.count("skipped")), text]


def _table(head: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


if __name__ == "__main__":
    main(*sys.argv[1:])
