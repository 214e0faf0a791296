"""A bound on memory that is set in the child itself: beyond it an allocation fails cleanly."""

from __future__ import annotations

import sys

from effbench.errors import EffbenchError


def limit_memory(budget: int, device: str) -> None:
    """Let the process take so many bytes of a device's memory, of a CPU's so many more than it has.

    Set after the imports, so that they are not in it.
    """
    if device.startswith("cuda"):
        _limit_cuda(budget, device)
    elif sys.platform == "linux":
        _limit_data(budget)


def _limit_cuda(budget: int, device: str) -> None:
    """What torch takes; the driver reserves host memory by the terabyte, which must then not be limited."""
    import torch

    if not torch.cuda.is_available():
        built = "finds no GPU" if torch.version.cuda else "is not built for CUDA"
        raise EffbenchError(f"device {device}: torch {torch.__version__} {built}; effbench doctor says more")
    index = torch.device(device).index or 0
    torch.cuda.set_device(index)
    total = torch.cuda.get_device_properties(index).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, budget / total), index)


def _limit_data(budget: int) -> None:
    """Children inherit the limit. Only Linux counts what RLIMIT_DATA limits: private writable memory."""
    import resource

    with open("/proc/self/status") as file:
        used = next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmData:"))
    limit = used + budget
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
