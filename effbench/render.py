"""Calls renderers, which come in by entry points like every plugin."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effbench.errors import EffbenchError
from effbench.frame import Run
from effbench.registry import RENDERERS, Registry


def write_reports(run: Run, folder: Path, names: Sequence[str]) -> None:
    """Render a run into a folder; one renderer that fails does not keep the others from writing.

    Raises:
        BadInput: no renderer of that name; nothing is written.
        EffbenchError: names the renderers that failed, after the others have written.
    """
    registry = Registry.installed(RENDERERS)
    for name in names:
        registry.check(name)
    failed = []
    for name in names:
        try:
            registry.load(name)(run, folder)
        except Exception as error:
            failed.append(f"{name} ({type(error).__name__}: {error})")
    if failed:
        raise EffbenchError("could not render " + ", ".join(failed))
