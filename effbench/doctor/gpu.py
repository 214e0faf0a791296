"""What NVML says of NVIDIA GPUs, and whether this torch can use them. CUDA stays untouched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from effbench import nvml
from effbench.doctor.finding import Finding

_CPU_ONLY = "cells run on the CPU; device cuda cannot be asked for"


def gpu_findings(torch_facts: Mapping[str, Any]) -> Iterator[Finding]:
    """NVML, the GPUs, and their clocks."""
    if reason := nvml.missing():
        means = "clocks, temperature and throttling of a GPU are not recorded"
        remedy = "none is needed without an NVIDIA GPU; with one, install its driver"
        yield Finding("NVML", "absent", found=reason, means=means, remedy=remedy)
    else:
        means = "clocks, temperature and throttling are read before and after each cell on a GPU"
        yield Finding("NVML", "ok", found="answers", means=means)
    gpus = nvml.gpus()
    yield _present(gpus, torch_facts)
    if gpus:
        yield _clocks()
    else:
        yield Finding("GPU clocks", "absent", found="no GPU", means="nothing to watch")


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
    try:
        states = nvml.states()
    except nvml.Missing as reason:
        return Finding("GPU clocks", "absent", found=str(reason), means="throttling would go unnoticed")
    found = [f"{one['sm_mhz']} of {one['max_sm_mhz']} MHz, {one['degrees']} degrees" for one in states]
    if any(one["held"] is None for one in states):
        return Finding(
            "GPU clocks",
            "limited",
            found="; ".join(found),
            means="this GPU does not tell what holds its clocks down: throttling would go unnoticed",
            remedy="ask for a whole GPU, or compare times taken in turns only",
        )
    if held := sorted({reason for one in states for reason in one["held"]}):
        return Finding(
            "GPU clocks",
            "limited",
            found="; ".join([*found, *held]),
            means="the GPU is held below its clocks: times depend on how warm and how busy it is",
            remedy="let it cool and stop other work; sudo nvidia-smi --lock-gpu-clocks fixes the clock",
        )
    means = "not held down; the clock of an idle GPU is low and rises with work"
    return Finding("GPU clocks", "ok", found="; ".join(found), means=means)
