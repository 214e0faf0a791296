"""What NVIDIA's management library says of GPUs: name and driver, clocks, temperature, what holds them down.

Through nvidia-ml-py; CUDA itself stays untouched. Where the library, the driver or a GPU is missing, nothing
is found, and ``missing`` says why.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

#: Reasons for which a GPU is slower than it could be: NVML's bits, in words.
POWER = "power limit"
REASONS = {
    "SwPowerCap": POWER,
    "HwSlowdown": "hardware slowdown",
    "SwThermalSlowdown": "temperature",
    "HwThermalSlowdown": "temperature, by hardware",
    "HwPowerBrakeSlowdown": "power brake",
}

_BIT = "nvmlClocksThrottleReason"


class Missing(Exception):
    """Why NVML does not answer."""


def missing() -> str:
    """Why NVML does not answer; empty where it does."""
    try:
        with _opened():
            return ""
    except Missing as reason:
        return str(reason)


def gpus() -> list[dict[str, Any]]:
    """Name, memory in bytes and driver of each GPU."""
    try:
        with _opened() as nvml:
            driver = nvml.nvmlSystemGetDriverVersion()
            return [
                {
                    "name": nvml.nvmlDeviceGetName(handle),
                    "memory": int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
                    "driver": driver,
                }
                for handle in _handles(nvml)
            ]
    except Missing:
        return []


def states() -> list[dict[str, Any]]:
    """The state of each GPU, as ``state`` gives it.

    Raises:
        Missing: NVML does not answer, or not to this question.
    """
    with _opened() as nvml:
        return [_state(nvml, handle) for handle in _handles(nvml)]


def state(uuid: str) -> dict[str, Any] | None:
    """Clocks in MHz, degrees Celsius, watts, bytes in use by all, and reasons (``held``) of one GPU.

    ``uuid`` as NVML has it ("GPU-..."): CUDA may number devices otherwise. None where NVML does not answer;
    of a GPU that does not tell everything (a laptop's its watts, a part of one its clocks) what it does not.
    """
    try:
        with _opened() as nvml:
            return _state(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except Missing:
        return None


def held(state: dict[str, Any] | None) -> set[str]:
    """What holds a GPU down, as far as its state tells."""
    return set((state or {}).get("held") or ())


def _state(nvml: Any, handle: Any) -> dict[str, Any]:
    def told(question: str, *about: Any) -> Any:
        try:
            return getattr(nvml, f"nvmlDeviceGet{question}")(handle, *about)
        except nvml.NVMLError_NotSupported:
            return None

    bits, watts, memory = map(told, ("CurrentClocksThrottleReasons", "PowerUsage", "MemoryInfo"))
    return {
        "sm_mhz": told("ClockInfo", nvml.NVML_CLOCK_SM),
        "max_sm_mhz": told("MaxClockInfo", nvml.NVML_CLOCK_SM),
        "memory_mhz": told("ClockInfo", nvml.NVML_CLOCK_MEM),
        "degrees": told("Temperature", nvml.NVML_TEMPERATURE_GPU),
        "watts": None if watts is None else watts / 1000,
        "used_bytes": None if memory is None else int(memory.used),
        "held": None
        if bits is None
        else sorted({words for name, words in REASONS.items() if bits & getattr(nvml, _BIT + name)}),
    }


def _handles(nvml: Any) -> list[Any]:
    return [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]


@contextmanager
def _opened() -> Iterator[Any]:
    try:
        import pynvml
    except ImportError:
        raise Missing("nvidia-ml-py is not installed") from None
    try:
        pynvml.nvmlInit()
        try:
            yield pynvml
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise Missing(str(error)) from None
