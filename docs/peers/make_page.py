"""Writes docs/peers.md: ``python docs/peers/make_page.py results/peers > docs/peers.md``.

Times and memory come from the folder of a finished ``effbench run peers``, the broken laws from the
conformance kit, held against every peer here and now. Nothing is typed.
"""

import sys
from collections.abc import Iterator
from importlib.metadata import entry_points

import pandas as pd

from effbench.conformance import checks_for
from effbench.frame import Run, load_run

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
HEAD = """# Ours beside the public implementations

Layers at width {dim}, {heads} heads, batch 1, float32, on {threads} threads of {cpu} with torch {torch};
measured by `effbench run peers`, which takes every row on this page in one run. `plain-…` is the formula in
plain torch, with the same projections as ours; `peer-…` is a public package. A ratio above 1 means that
ours is the faster or the smaller. Ours is taken twice: with torch's matrix products, which is all that a
peer gets, and with the faster of torch's and oneDNN's (`gemm` auto). Memory is the peak above what is in
place, ours with torch's products.

This page is written by `docs/peers/make_page.py`; how to do it again: [peers/README.md](peers/README.md).
"""


def main(folder: str) -> None:
    run = load_run(folder)
    peers = _peers()
    frame, machine = run.frame, run.machine
    first = frame.iloc[0]
    names = {"cpu": machine.get("cpu", "an unknown processor"), "torch": machine.get("torch", "?")}
    print(HEAD.format(dim=first["dim"], heads=first["heads"], threads=first["threads"], **names))
    for causal in (False, True):
        for mode in frame["mode"].unique():
            rows = frame[(frame["mode"] == mode) & (frame["causal"] == causal)]
            if len(rows):
                what = "Forward" if mode == "forward" else "Forward and backward"
                print(f"## {what}{', causal' if causal else ''}\n")
                _print_table(
                    ["peer", "n", "peer", "ours", "ratio", "ratio, auto", "peer MiB", "ours MiB", "ratio"],
                    _times(rows, peers),
                )
    _print_notes(run, peers)
    print("## Laws that they break\n")
    print("By the conformance kit, as `effbench verify NAME` says it; what does not apply is skipped.\n")
    _print_table(["peer", "kept", "skipped", "broken, and what was seen"], _laws(peers))


def _peers() -> dict[str, object]:
    """The mechanisms of this package by name."""
    points = entry_points(group="effbench.mechanisms")
    mine = [point for point in points if point.value.startswith("effbench_peers.")]
    return {point.name: point.load() for point in sorted(mine, key=lambda point: point.name)}


def _ours(name: str, peers: dict) -> str:
    return peers[name].same_as or BESIDE[name][0]


def _times(rows: pd.DataFrame, peers: dict) -> Iterator[list[str]]:
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
    return f"{row['time_s'] * 1e3:.3g} ms" if row["status"] == "ok" else row["status"]


def _mebibytes(row: pd.Series | None) -> str:
    return "" if row is None or row["status"] != "ok" else f"{row['peak_bytes'] / 2**20:.0f}"


def _ratio(peer: pd.Series, ours: pd.Series | None, column: str) -> str:
    if ours is None or not ours[column] > 0 or not peer[column] > 0:
        return ""
    return f"{peer[column] / ours[column]:.2f}"


def _print_notes(run: Run, peers: dict) -> None:
    """What is unlike in a comparison, and why a cell has no numbers."""
    print("## What to know of a row\n")
    for name, (ours, unlike) in BESIDE.items():
        if unlike:
            print(f"* `{name}` beside `{ours}`: {unlike}.")
    failed = run.frame[run.frame["status"] != "ok"]
    for (name, status, reason), rows in failed.groupby(["mechanism", "status", "reason"], sort=False):
        sizes = ", ".join(sorted({f"{m} {n}" for m, n in zip(rows["mode"], rows["seq"], strict=True)}))
        print(f"* `{name}` {status} at {sizes}: {reason}.")
    print()


def _laws(peers: dict) -> Iterator[list[str]]:
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


def _print_table(head: list[str], rows: Iterator[list[str]]) -> None:
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
