"""The clock of a device: wall time on a CPU, and beside it the device's own time on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from effbench import nvml

_COLD_PASSES = 10
_COLD_S = 0.5  # seconds that passes with a cold cache may take


def clock_of(device: str) -> Clock:
    """The clock of a device as torch names it."""
    return CudaClock(device) if device.startswith("cuda") else Clock()


def gpu_state(device: str) -> dict[str, Any] | None:
    """What NVML says of the GPU that torch calls by this name; None for a CPU, or without an answer."""
    if not device.startswith("cuda"):
        return None
    return nvml.state(f"GPU-{torch.cuda.get_device_properties(device).uuid}")


class Clock:
    """Wall time from time.perf_counter_ns."""

    method = "perf_counter"
    loads = False  # whether a first pass loads what the device computes with

    def __init__(self) -> None:
        self.device_samples: list[float] = []

    def block(self, call: Callable[[int], Any], first: int, passes: int, *, keep: bool = False) -> float:
        """Seconds that some consecutive passes take; each output is dropped before the next pass."""
        start = time.perf_counter_ns()
        for i in range(first, first + passes):
            call(i)
        return (time.perf_counter_ns() - start) / 1e9

    def cold_samples(self, call: Callable[[int], Any], first: int) -> list[float] | None:
        """A device's seconds of passes that find its cache full of something else; None of a CPU."""
        return None


class CudaClock(Clock):
    """Wall time up to the device's end beside the time between two events on its stream.

    In blocks the L2 cache is as the pass before left it, warm. Only where the device is slower than the host
    that feeds it are the two times alike: small cells measure the host.
    """

    method = "perf_counter synchronised, cuda events, warm L2; cold L2 beside"
    loads = True

    def __init__(self, device: str = "cuda") -> None:
        super().__init__()
        self.device = torch.device(device)

    def block(self, call: Callable[[int], Any], first: int, passes: int, *, keep: bool = False) -> float:
        """Seconds up to synchronisation; the device's own seconds a pass are kept where asked."""
        begin, end = self._events()
        torch.cuda.synchronize(self.device)
        start = time.perf_counter_ns()
        begin.record()
        for i in range(first, first + passes):
            call(i)
        end.record()
        torch.cuda.synchronize(self.device)
        seconds = (time.perf_counter_ns() - start) / 1e9
        if keep:
            self.device_samples.append(begin.elapsed_time(end) / 1e3 / passes)
        return seconds

    def cold_samples(self, call: Callable[[int], Any], first: int) -> list[float] | None:
        """Each pass after the L2 was overwritten, timed by events alone; None where both do not fit."""
        try:
            return self._after_overwriting(call, first)
        except torch.OutOfMemoryError:
            return None

    def _after_overwriting(self, call: Callable[[int], Any], first: int) -> list[float]:
        size = 2 * torch.cuda.get_device_properties(self.device).L2_cache_size
        other = torch.empty(size, dtype=torch.uint8, device=self.device)
        samples: list[float] = []
        started = time.perf_counter()
        while len(samples) < _COLD_PASSES and time.perf_counter() - started < _COLD_S:
            begin, end = self._events()
            other.zero_()
            begin.record()
            call(first + len(samples))
            end.record()
            torch.cuda.synchronize(self.device)
            samples.append(begin.elapsed_time(end) / 1e3)
        return samples

    def _events(self) -> tuple[torch.cuda.Event, torch.cuda.Event]:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        return begin, end
