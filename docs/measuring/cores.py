"""What a neighbour on the same cores does to a time: ``docs/measuring/cores.py docs/measuring/cores.csv``

Torch's fused attention in two sizes, by turns, for two minutes on one thread and on all, each sample with
what ``meters/cores`` notes beside it. Two and a half seconds, about what a cell's visits last, make a window:
the table has the median of all of its samples and of the calm ones alone.
"""

import argparse
import time
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from torch.nn.functional import scaled_dot_product_attention

from effbench.calm import best, calm_samples
from effbench.cell import usable_cores
from effbench.environment import cpu_model
from effbench.meters.cores import Cores

#: Heads, length and passes of a sample; width 64 a head.
CELLS = {"small": (1, 128, 20), "large": (4, 2048, 1)}
WINDOW_S, SECONDS = 2.5, 120.0


def samples(threads, seconds):
    """When each sample of a cell was taken, its seconds a pass, and what was noted beside it."""
    torch.set_num_threads(threads)
    inputs = {
        name: [torch.randn(1, heads, seq, 64) for _ in range(3)] for name, (heads, seq, _) in CELLS.items()
    }
    cores, found, begun = Cores(), [], time.perf_counter()
    with torch.inference_mode():
        while (at := time.perf_counter() - begun) < seconds:
            for name, (_, _, passes) in CELLS.items():
                cores.begin()
                start = time.perf_counter()
                for _ in range(passes):
                    scaled_dot_product_attention(*inputs[name])
                spent = time.perf_counter() - start
                found.append((at, name, spent / passes, *cores.end(spent)))
    return found


def windows(threads, duration):
    """The medians of each window, of all samples and of the calm ones (None without any)."""
    found = samples(threads, duration)
    best_s = best([pace_s for *_, pace_s, _ in found])
    for window in range(int(duration / WINDOW_S)):
        for name in CELLS:
            inside = [each for each in found if each[1] == name and int(each[0] / WINDOW_S) == window]
            _, _, seconds, paces, waits = zip(*inside, strict=True) if inside else [()] * 5
            calm = calm_samples(seconds, paces, waits, best_s)
            yield {
                "threads": threads,
                "cell": name,
                "window": window,
                "samples": len(inside),
                "calm": len(calm),
                "all_s": median(seconds) if seconds else None,
                "calm_s": median(calm) if calm else None,
            }


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("csv", type=Path)
    parser.add_argument("--for", type=float, default=SECONDS, dest="seconds", metavar="SECONDS")
    asked = parser.parse_args()
    rows = [row for threads in sorted({1, usable_cores()}) for row in windows(threads, asked.seconds)]
    about = {"cpu": cpu_model(), "date": time.strftime("%Y-%m-%d")}
    pd.DataFrame(rows).assign(**about).to_csv(asked.csv, index=False)


if __name__ == "__main__":
    main()
