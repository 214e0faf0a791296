"""Prints the README's table of kernels: ``python docs/kernels/make_table.py results/kernels``.

From the folder of a finished ``effbench run kernels``; nothing is typed but the goals.
"""

import json
import math
import sys
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from effbench.frame import Run, load_run

HEAD = (
    "operator",
    "n",
    "products, allocator",
    "measured against",
    "forward",
    "train",
    "goal",
    "peak / n·d·4",
)
RANK = 64  # of aft-full's position bias, by default


def main(folder: str) -> None:
    run = load_run(Path(folder))
    table = Table(run)
    rows = [
        *(table.fraction("aft-full", 16384, gemm) for gemm in ("torch", "auto")),
        table.fraction("aft-full", 65536, "auto"),
        *(table.ratio("aft-full", 16384, "mha-sdpa", gemm=gemm) for gemm in ("torch", "auto")),
        *(table.ratio("mha-tiled", 16384, "mha-sdpa", gemm=gemm) for gemm in ("torch", "auto")),
        *(table.ratio("aft-local", 16384, "aft-full", gemm=gemm, goal="≤ 0.1") for gemm in ("torch", "auto")),
        *(table.growth("aft-local", n) for n in (32768, 65536)),
        *(
            table.ratio("synthesizer-dense", 8192, "mha-tiled", gemm=gemm, goal="≤ 1.3")
            for gemm in ("torch", "auto")
        ),
        *(
            table.ratio("aft-simple", 16384, "plain-aft-simple", allocator=a, goal="≤ 0.5")
            for a in ("warm", "default")
        ),
        table.ratio("aft-simple", 65536, "plain-aft-simple", causal=True, goal="≤ 0.25"),
        *(
            table.ratio(
                "aft-conv",
                16384,
                "plain-depthwise",
                allocator=a,
                dims=dims,
                beside="aft-simple",
                goal="≤ 1.5",
            )
            for dims in (1, 2)
            for a in ("warm", "default")
        ),
        *(
            table.ratio("linear", 16384, "plain-linear", causal=causal, allocator=a, goal="≤ 0.5")
            for causal in (False, True)
            for a in ("warm", "default")
        ),
        *(table.ratio("fnet", 16384, "plain-fnet", allocator=a, goal="≤ 0.5") for a in ("warm", "default")),
        *(
            table.ratio("fnet", n, "plain-fnet", goal="≤ 0.5" if n >= 8192 else "≤ 1")
            for n in (1024, 4096, 8192, 65536)
        ),
    ]
    print(tabulate(rows, HEAD, "github"))


class Table:
    def __init__(self, run: Run):
        self.frame, self.rates = run.frame, run.ceilings["matmul"]["float32"]

    def row(self, mechanism: str, seq: int, mode: str, **wanted: object) -> pd.Series | None:
        frame = self.frame
        dims = wanted.pop("dims", None)
        axes = {"gemm": "torch", "allocator": "warm", "causal": False, **wanted}
        found = frame[(frame["mechanism"] == mechanism) & (frame["seq"] == seq) & (frame["mode"] == mode)]
        for axis, value in axes.items():
            found = found[found[axis] == value]
        if dims is not None:
            found = found[[json.loads(options).get("dims") == dims for options in found["options"]]]
        return found.iloc[0] if len(found) else None

    def fraction(self, mechanism: str, n: int, gemm: str) -> list[str]:
        """Of the matrix-product ceiling: 4 n² d + 2 n² r forward, and three times that in train."""
        provider = (
            max(self.rates, key=lambda name: self.rates[name]["flops_per_s"]) if gemm == "auto" else gemm
        )
        shares, rows = [], [self.row(mechanism, n, mode, gemm=gemm) for mode in ("forward", "train")]
        for row, times in zip(rows, (1, 3), strict=True):
            work = times * (4 * n * n * row["dim"] + 2 * n * n * RANK)
            rate = self.rates[provider]["flops_per_s"]
            shares.append(
                _shown(row, lambda row, work=work, rate=rate: work / row["time_s"] / rate, row["time_s"])
            )
        against = f"ceiling, {provider} {self.rates[provider]['flops_per_s'] / 1e9:.0f} GFLOP/s"
        return [
            f"`{mechanism}`",
            f"{n}",
            f"{gemm}, warm",
            against,
            *shares,
            "≥ 0.80, ≥ 0.70",
            self.peaks(rows),
        ]

    def ratio(
        self, mechanism: str, n: int, other: str, *, goal: str = "≤ 1", beside: str = "", **wanted: object
    ) -> list[str]:
        """Of the time of another mechanism, or of the sum of two."""
        shown, rows = [], []
        for mode in ("forward", "train"):
            row, base = (self.row(name, n, mode, **wanted) for name in (mechanism, other))
            extra = (
                self.row(beside, n, mode, **{k: v for k, v in wanted.items() if k != "dims"})
                if beside
                else None
            )
            rows.append(row)
            if row is None or base is None:
                shown.append("")
                continue
            seconds = base["time_s"] + (0 if extra is None else extra["time_s"])
            shown.append(_shown(row, lambda row, seconds=seconds: row["time_s"] / seconds, row["time_s"]))
        names = f"`{other}`" + (f" + `{beside}`" if beside else "")
        label = f"`{mechanism}`" + (f" {wanted['dims']}-D" if "dims" in wanted else "")
        label += " causal" if wanted.get("causal") else ""
        how = f"{wanted.get('gemm', 'torch')}, {wanted.get('allocator', 'warm')}"
        return [label, f"{n}", how, f"time of {names}", *shown, goal, self.peaks(rows)]

    def growth(self, mechanism: str, n: int) -> list[str]:
        """From half the length."""
        row, half = (self.row(mechanism, m, "forward", gemm="auto") for m in (n, n // 2))
        share = _shown(row, lambda row: row["time_s"] / half["time_s"], row["time_s"])
        memory = f"{self.peaks([row])}, ×{row['peak_bytes'] / half['peak_bytes']:.2f}"
        return [f"`{mechanism}`", f"{n}", "auto, warm", f"itself at {n // 2}", share, "", "≤ 2.2", memory]

    def peaks(self, rows: list[pd.Series | None]) -> str:
        """Asked-for bytes above what is in place, in tensors of the input's size: forward / train."""
        return " / ".join(f"{_peak(r):.2f}" for r in rows if r is not None and not math.isnan(_peak(r)))


def _peak(row: pd.Series) -> float:
    asked = row["alloc_bytes"] if pd.notna(row["alloc_bytes"]) else row["peak_bytes"]
    return asked / (row["batch"] * row["seq"] * row["dim"] * 4)


def _shown(row: pd.Series, share, seconds: float) -> str:
    if row["status"] != "ok":
        return row["status"]
    doubt = " ?" if "unsteady" in row["flags"].split(";") else ""
    return (
        f"**{share(row):.2f}** ({seconds:.3g} s){doubt}"
        if seconds >= 1
        else f"**{share(row):.2f}** ({1000 * seconds:.3g} ms){doubt}"
    )


if __name__ == "__main__":
    main(sys.argv[1])
