"""Shows a run as it goes: a live display on a terminal, one line a visit elsewhere."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.progress import track
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from effbench.cell import Cell
from effbench.metrics import METRICS
from effbench.record import Record
from effbench.runner import Progress, Waiting
from effbench.words import counted


class Display(AbstractContextManager["Display"]):
    """Called with every step of a run. Writes to the console that it is given."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = (
            Live(console=console, refresh_per_second=4, transient=True) if console.is_terminal else None
        )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, step: Progress | Waiting) -> None:
        if isinstance(step, Waiting):
            self._say(waiting(step))
        elif self._live:
            self._live.update(_panel(step))
            if step.record.status not in ("ok", "unsupported") and step.record.round == 0:
                self._say(describe(step.record))
        else:
            self._say(f"[{step.done}/{step.total}] {describe(step.record)} · {span(step.left_s)} left")

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def predicted(cells: Sequence[Cell]) -> Iterable[Cell]:
    """The cells as they are asked for, with a bar on a terminal: to predict many takes minutes."""
    console = Console(stderr=True)
    return track(cells, "predicting", console=console, transient=True, disable=not console.is_terminal)


def waiting(step: Waiting) -> str:
    """Why a run does not end yet."""
    return (
        f"{counted(step.cells, 'cell')} in doubt: timed while the cores worked below their best, or unlike "
        f"from process to process; again when they are at it, for {span(step.left_s)} at most (--patience)"
    )


def describe(record: Record) -> str:
    """One visit in a line: the cell, and its time or what went wrong."""
    cell = f"{name(record.question)} seq {record.cell['seq']} dim {record.cell['dim']}"
    if record.status != "ok":
        return f"{cell}: {record.status}{': ' + record.reason if record.reason else ''}"
    samples = record.time.samples_s if record.time else []
    text = METRICS["time_s"].text(statistics.median(samples)) if samples else "no samples"
    again = f" (round {record.round + 1})" if record.round else ""
    return f"{cell}: {text}{again}"


def name(cell: Cell) -> str:
    """The mechanism with whatever of the cell is not the usual."""
    unusual = [cell.mode] * (cell.mode != "forward") + [cell.level] * (cell.level != "layer")
    stack = [f"{key} {cell.stack[key]}" for key in ("depth", "memory", "match") if key in cell.stack]
    return " ".join([cell.mechanism, *unusual, *stack, *(["causal"] if cell.causal else [])])


def span(seconds: float) -> str:
    """Seconds as people say them: 45 s, 3 min 20 s, 1 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _panel(step: Progress) -> Table:
    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=max(step.total, 1), completed=step.done, width=30)
    failures = f"{step.failures} failed" if step.failures else "none failed"
    grid.add_row(bar, Text(f"{step.done} of {step.total} visits · {failures} · {span(step.left_s)} left"))
    grid.add_row(Text("last"), Text(describe(step.record), overflow="ellipsis", no_wrap=True))
    if step.running:
        cell = step.running
        running = f"{name(cell)} seq {cell.seq} dim {cell.dim}"
        grid.add_row(Text("running"), Text(running, overflow="ellipsis", no_wrap=True))
    return grid
