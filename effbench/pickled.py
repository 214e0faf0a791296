"""Sends a mechanism that only exists in this process, one of a notebook for instance, to the children."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

from effbench.plugin import mechanism_from
from effbench.registry import PICKLE


def send(thing: Any, folder: Path) -> tuple[str, str]:
    """(specification, source hash) of a Mechanism, an nn.Module class or a build function, written to a file.

    The hash is over the text where there is one, since a pickle of the same class differs from one
    interpreter to the next.
    """
    import cloudpickle  # only where it is needed

    mechanism = mechanism_from(thing)
    data = cloudpickle.dumps(mechanism)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{mechanism.name}.pkl"
    path.write_bytes(data)
    try:
        text = inspect.getsource(thing if not hasattr(thing, "build") else thing.build).encode()
    except (OSError, TypeError):
        text = data
    return f"{PICKLE}{path.resolve()}", f"{mechanism.name}@sha256:{hashlib.sha256(text).hexdigest()[:16]}"
