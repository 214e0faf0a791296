"""Python's bytecode of mechanisms, kept for as long as a run where none may be written beside the sources.

Under PYTHONDONTWRITEBYTECODE, as in many containers, every child would else compile its mechanism's files
anew: 15 ms for three small ones, four times a cell.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

#: The folder of the run's compiled code (``Servers``).
_FOLDER = "TORCHINDUCTOR_CACHE_DIR"


@contextmanager
def kept() -> Iterator[None]:
    """What is imported in the block is compiled once a run; nothing changes where Python may write itself."""
    folder = os.environ.get(_FOLDER)
    if not sys.dont_write_bytecode or folder is None:
        yield
        return
    before = sys.pycache_prefix
    sys.pycache_prefix, sys.dont_write_bytecode = os.path.join(folder, "bytecode"), False
    try:
        yield
    finally:
        sys.pycache_prefix, sys.dont_write_bytecode = before, True
