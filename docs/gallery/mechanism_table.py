"""The README's table of mechanisms; ``python docs/gallery/mechanism_table.py`` prints it.

What the registry holds, and how time grew with length in ``table.csv`` beside this file, by ``effbench.fit``.
"""

import re
from pathlib import Path

import pandas as pd
from tabulate import tabulate

from effbench import fit
from effbench.plausibility import sound
from effbench.plugin import Mechanism
from effbench.registry import MECHANISMS, Registry, load_mechanism

MEASURED = Path(__file__).with_name("table.csv")
WIDTH = 256  # of the line of lengths
HEAD = ("name", "mechanism", "paper", "year", "time", "memory", "causal", "options", "measured: time ~ n^")


def table() -> str:
    """The mechanisms that ship with effbench, in Markdown."""
    frame = pd.read_csv(MEASURED, keep_default_na=False, na_values={"time_low_s": "", "time_high_s": ""})
    return tabulate([row(one, frame) for one in shipped()], HEAD, "github", disable_numparse=True)


def shipped() -> list[Mechanism]:
    """Those of this package, whatever else is installed."""
    registry = Registry.installed(MECHANISMS)
    names = [name for name, claims in registry.claims.items() if claims[0].target.startswith("effbench.")]
    return [load_mechanism(registry, name)[0] for name in names]


def row(one: Mechanism, frame: pd.DataFrame) -> list[str]:
    authors, year, where = re.fullmatch(r"(.+) (\d{4}), (.+)", one.paper).groups()
    return [
        f"`{one.name}`",
        one.title,
        f"{authors}, {where}",
        year,
        one.complexity.time,
        one.complexity.memory,
        {(False, True): "yes", (True,): "only", (False,): "no"}[tuple(sorted(one.causal))],
        ", ".join(f"`{name}={value}`" for name, value in one.options.items()),
        exponent(frame[(frame["mechanism"] == one.name) & (frame["dim"] == WIDTH)]),
    ]


def exponent(line: pd.DataFrame) -> str:
    """From the rows that may support a finding, as a report says it."""
    if line.empty:
        return "not in that run"
    used = line[[sound(row, "time_s") for row in line.to_dict("records")]].sort_values("seq")
    times = used["time_s"].astype(float).tolist()
    return str(fit.from_times(used["seq"].tolist(), times, used[["time_low_s", "time_high_s"]].to_numpy()))


if __name__ == "__main__":
    print(table())
