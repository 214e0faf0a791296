"""The first of three bounds on memory, set in the child itself: beyond it an allocation fails cleanly."""

from __future__ import annotations

import sys


def limit_memory(budget: int) -> None:
    """Let the process take so many bytes more than it has; set after the imports, so that they are not in it.

    Its own children inherit the limit. Only Linux counts what RLIMIT_DATA limits: private writable memory.
    """
    if sys.platform != "linux":
        return
    import resource

    with open("/proc/self/status") as file:
        used = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData:"))
    limit = used + budget
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
