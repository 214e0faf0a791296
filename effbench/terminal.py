"""A run that somebody watches: its progress, how to go on after an interruption, and its summary."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import typer
from rich.console import Console

from effbench.errors import INTERRUPTED, NothingMeasured
from effbench.frame import Run
from effbench.progress import Display
from effbench.runner import Watch
from effbench.session import Request, measure
from effbench.summary import summarise


def measure_and_show(request: Request) -> Run:
    """Carry out a run and print its summary.

    Raises:
        NothingMeasured: not one cell has a number.
        typer.Exit: interrupted; everything measured was written.
    """
    again = request.command.replace(" --fresh", "")
    with watched(f"; everything measured is in {request.out}. Go on with: {again}") as watch:
        finished = measure(request, watch=watch)
    summarise(finished, request.out, Console())
    if not (finished.frame["status"] == "ok").any():
        raise NothingMeasured(
            f"no cell of {len(finished.frame)} could be measured; see {request.out}/report.md"
        )
    return finished


@contextmanager
def watched(what_now: str = "") -> Iterator[Watch]:
    """The display of what is measured; to be terminated is to be interrupted.

    Raises:
        typer.Exit: interrupted.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with Display(Console(stderr=True)) as display:
            yield display
    except KeyboardInterrupt:
        print(f"\ninterrupted{what_now}", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None


def _interrupt(*_: Any) -> NoReturn:
    raise KeyboardInterrupt
