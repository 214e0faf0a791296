"""Prints docs/gpu.md from the folder of a run, with what a reader must know of it besides, in a sentence:
``python docs/gpu/make_page.py results/gpu "Nothing else ran." > docs/gpu.md``.
"""

import sys
from pathlib import Path
from statistics import median

from tabulate import tabulate

from effbench.frame import Run, load_run

HEAD = (
    "operator",
    "n",
    "mode",
    "dtype",
    "wall",
    "device",
    "device, cold L2",
    "of the ceiling",
    "peak / n·d·4",
    "flags",
)


def main(folder: str, remark: str) -> None:
    run = load_run(Path(folder))
    facts, circumstances = run.info["environments"][run.info["environment"]], run.info["circumstances"][0]
    gpu, rates = facts["gpu"][0], run.ceilings
    copy = rates["copy"]["memory"]["bytes_per_s"]
    done = run.frame[run.frame["status"] == "ok"].sort_values(["mode", "dtype", "mechanism", "seq"])
    products = [
        f"{dtype} matrices at {rates['matmul'][dtype]['torch']['flops_per_s'] / 1e12:.0f} TFLOP/s"
        for dtype in sorted(done["dtype"].unique(), reverse=True)
    ]
    print(f"""# On a GPU

Operators at width 512, 8 heads, batch 1, on one {gpu["name"]} (driver {gpu["driver"]}, torch
{facts["torch"]["version"]}, {facts["python"]}), {circumstances["date"]}, by

    {run.info["command"].partition(" --out ")[0]}

{_asked(run, len(done))}. In the same run the GPU multiplied
{" and ".join(products)}, and copied at {copy / 1e12:.2f} TB/s. The GPU {_held(run)}.
{remark}

*Wall* is up to the end of the device's work, *device* lies between two events on its stream: where the two
are alike and n is small, both measure how fast Python launches.

This page is written by `docs/gpu/make_page.py`; the rows: [table.csv](gpu/table.csv).
""")
    print(tabulate([_row(run, row) for row in done.to_dict("records")], HEAD, tablefmt="github"))


def _asked(run: Run, done: int) -> str:
    if done == len(run.frame):
        return f"which gave an answer for all {done} cells"
    return f"which was cut short: {len(run.frame) - done} of {len(run.frame)} cells have no answer"


def _held(run: Run) -> str:
    """What NVML said after the cells."""
    after = [visit.time.gpu_after for visits in run.visits.values() for visit in visits if visit.time]
    reasons = sorted({reason for state in after if state for reason in state["held"]})
    clocks = sorted({state["sm_mhz"] for state in after if state})
    span = f"{clocks[0]} MHz" if len(clocks) == 1 else f"{clocks[0]} to {clocks[-1]} MHz"
    return f"ran at {span} and was held down by {', '.join(reasons) or 'nothing'}"


def _row(run: Run, row: dict) -> tuple[str, ...]:
    times = [visit.time for visit in run.visits[row["id"]] if visit.time]
    warm = median(s for time in times for s in time.device_samples_s)
    cold = [s for time in times for s in time.cold_device_samples_s or ()]
    share, peak = row["ceiling_fraction"], row["peak_bytes"] / (4 * row["seq"] * row["dim"])
    return (
        *(row["mechanism"], str(row["seq"]), row["mode"], row["dtype"], _ms(row["time_s"]), _ms(warm)),
        *(_ms(median(cold)) if cold else "", "" if share != share else f"{share:.2f}", f"{peak:.1f}"),
        row["flags"].replace(";", " "),
    )


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms"


if __name__ == "__main__":
    main(*sys.argv[1:])
