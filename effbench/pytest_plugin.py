"""A pytest fixture that measures a mechanism as effbench does, and reports it as pytest-benchmark does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import pandas as pd

#: Numbers of a row that go into ``extra_info``, where they could be measured.
EXTRA = ("peak_bytes", "alloc_bytes", "flops", "transcendentals", "instructions")


@pytest.fixture
def mechanism_benchmark(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., pd.Series[Any]]:
    """``mechanism_benchmark(mechanism, seq=512, mode="train")`` measures one cell in processes of its own.

    The mechanism is a name, ``module:object``, a file or an object; keyword arguments are axes of a run, and
    ``options`` are as for ``effbench.run``: ``{"my-mixer": {"decay": 0.5}}``. Its samples become those of
    pytest-benchmark's ``benchmark``, and peak memory and FLOPs stand in ``extra_info``. A cell that is
    unsupported skips the test, any other that is not ok fails it. Returns the row of effbench's table.
    """
    benchmark = request.getfixturevalue("benchmark")
    benchmark._mode = "mechanism_benchmark(...)"  # else it would warn that it was not used

    def measure(mechanism: Any, *, options: Any = None, **axes: Any) -> pd.Series[Any]:
        import pandas as pd

        from effbench.api import run_one

        sizes = {"seq": 512, "dim": 64}
        run = run_one(mechanism, options=options or {}, axes=sizes | axes, out=tmp_path / "run")
        row = run.frame.iloc[0]
        if row["status"] != "ok":
            stop = pytest.skip if row["status"] == "unsupported" else pytest.fail
            stop(f"{row['mechanism']}: {row['status']}: {row['reason']}")
        if benchmark.enabled:
            stats = benchmark._make_stats(1)
            for seconds in (seconds for group in run.samples(row["id"]) for seconds in group):
                stats.update(seconds)
        benchmark.extra_info.update({name: row[name] for name in EXTRA if pd.notna(row[name])})
        return row

    return measure
