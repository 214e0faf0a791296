"""What NVML says of NVIDIA GPUs, and whether this torch can use them. CUDA stays untouched.

Straight from NVML's documentation; no machine with a GPU was at hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from effbench import environment
from effbench.doctor.finding import Finding

_CPU_ONLY = "cells run on the CPU; device cuda cannot be asked for"
#: Reasons for which a GPU is slower than it could be: NVML's bits.
_REASONS = {
    "SwPowerCap": "power limit",
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "temperature",
    "HwThermalSlowdown": "temperature, by hardware",
    "HwPowerBrakeSlowdown": "power brake",
}


def gpu_findings(torch_facts: Mapping[str, Any]) -> Iterator[Finding]:
    """NVML, the GPUs, and their clocks."""
    reason = _no_nvml()
    if reason:
        means = "clocks, temperature and throttling of a GPU are not recorded"
        remedy = "none is needed without an NVIDIA GPU; with one, install its driver"
        yield Finding("NVML", "absent", found=reason, means=means, remedy=remedy)
    else:
        means = "clocks, temperature and throttling can be read"
        yield Finding("NVML", "ok", found="answers", means=means)
    gpus = environment.gpus()
    yield _present(gpus, torch_facts)
    if gpus:
        yield _clocks()
    else:
        yield Finding("GPU clocks", "absent", found="no GPU", means="nothing to watch")


def _no_nvml() -> str:
    """Why NVML does not answer; empty where it does."""
    try:
        import pynvml
    except ImportError:
        return "nvidia-ml-py is not installed"
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return str(error)
    pynvml.nvmlShutdown()
    return ""


def _present(gpus: list[dict[str, Any]], torch_facts: Mapping[str, Any]) -> Finding:
    if not gpus:
        remedy = "none is needed to measure on the CPU"
        return Finding("GPU", "absent", found="none that NVML knows", means=_CPU_ONLY, remedy=remedy)
    found = "; ".join(
        f"{gpu['name']}, {gpu['memory'] / 2**30:.0f} GiB, driver {gpu['driver']}" for gpu in gpus
    )
    if not torch_facts.get("cuda"):
        remedy = "install the torch that is built for CUDA"
        means = f"torch {torch_facts.get('version', '')} is not built for CUDA: {_CPU_ONLY}"
        return Finding("GPU", "limited", found=found, means=means, remedy=remedy)
    return Finding("GPU", "ok", found=found, means="device cuda can be asked for")


def _clocks() -> Finding:
    """Clocks now and at most, and what holds them down."""
    import pynvml

    found, held = [], set()
    try:
        pynvml.nvmlInit()
        try:
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                now = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
                most = pynvml.nvmlDeviceGetMaxClockInfo(handle, pynvml.NVML_CLOCK_SM)
                degrees = pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)
                reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
                held |= {
                    t
                    for n, t in _REASONS.items()
                    if reasons & getattr(pynvml, f"nvmlClocksThrottleReason{n}")
                }
                found.append(f"{now} of {most} MHz, {degrees} degrees")
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return Finding("GPU clocks", "absent", found=str(error), means="throttling would go unnoticed")
    if held:
        return Finding(
            "GPU clocks",
            "limited",
            found="; ".join([*found, *sorted(held)]),
            means="the GPU is held below its clocks: times depend on how warm and how busy it is",
            remedy="let it cool and stop other work; sudo nvidia-smi --lock-gpu-clocks fixes the clock",
        )
    means = "not held down; the clock of an idle GPU is low and rises with work"
    return Finding("GPU clocks", "ok", found="; ".join(found), means=means)
