"""effbench: time, peak memory and FLOPs of efficient-attention mechanisms over length and width.

import effbench
frame = effbench.run(mechanisms=["aft-simple", MyMixer], seq="1024..4096", dim=128)
frame = effbench.load("results/scaling")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__version__ = "0.1.0"
__all__ = ["__version__", "load", "run"]


def run(
    suite: str = "scaling",
    *,
    mechanisms: list[Any] | None = None,
    options: dict[str, dict[str, Any]] | None = None,
    baseline: str | None = None,
    memory_limit: str | int | None = None,
    cell_timeout: str | float = 60.0,
    budget: str | float | None = None,
    patience: str | float | None = None,
    out: str | None = None,
    fresh: bool = False,
    **axes: Any,
) -> pd.DataFrame:
    """Measure, and return one row a cell with the columns of ``table.csv`` (seconds, bytes, FLOPs).

    Args:
        suite: a built-in suite or the path of a TOML file.
        mechanisms: names, ``module:object``, files, Mechanisms, nn.Module classes or build functions;
            a class or function may be defined in the notebook itself. Left out: those of the suite.
        options: options by mechanism, such as ``{"aft-local": {"window": "32..512"}}``.
        baseline: the mechanism that others are compared with.
        memory_limit: bytes that a cell may take, such as ``"6GiB"``.
        cell_timeout: seconds for one pass.
        budget: seconds for the whole run; left out: as long as it takes.
        patience: seconds at the end for visiting cells again that were timed while the cores were slow;
            left out: what the variable EFFBENCH_PATIENCE says, else 60.
        out: the folder of the run; ``results/<suite>`` where it is left out. Running again goes on.
        fresh: forget what the folder holds.
        axes: seq, dim, batch, heads, dtype, mode, level, stack, causal, device, threads, compile, gemm,
            precision, allocator; values as on the command line.

    Raises:
        effbench.errors.BadInput: an unknown name, axis, option or value.
    """
    from effbench import api

    return api.run(
        suite,
        mechanisms=mechanisms,
        options=options,
        baseline=baseline,
        memory_limit=memory_limit,
        cell_timeout=cell_timeout,
        budget=budget,
        patience=patience,
        out=out,
        fresh=fresh,
        axes=axes,
    )


def load(folder: str) -> pd.DataFrame:
    """The frame of a run that was written before.

    Raises:
        effbench.errors.BadInput: the folder holds no run, or a damaged one.
    """
    from effbench.frame import load_run

    return load_run(folder).frame
