"""What can change a number on this machine (hashed), and what only happens to be the case (not hashed).

Never imports torch at module level: the parent process of a run uses this.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import socket
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from effbench import nvml
from effbench.errors import BadInput

ROOT = Path("/")
#: glibc's settings for timing: freed memory stays mapped, so that no call faults its pages in again
#: (measured: the same op is 40 % slower in most processes without).
WARM = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}
#: For memory: every tensor a mapping of its own, so that holes in the heap are not counted.
SEPARATE = {"MALLOC_MMAP_THRESHOLD_": str(64 << 10)}
#: Where neither time nor memory is measured: warm, and torch's large tensors in huge pages. The check of
#: attention would else spend up to half of its time on new pages.
FEW_FAULTS = {**WARM, "THP_MEM_ALLOC_ENABLE": "1"}
#: For instructions: a thread that waits must not spin, since it would count as long as it waits. Nor need it
#: where nothing is timed: on a busy core it would spin for ten milliseconds at every product.
NO_SPINNING = {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "passive"}
ALLOCATORS: dict[tuple[str, str], dict[str, str]] = {
    ("time", "default"): {},
    ("time", "warm"): WARM,
    **{("memory", allocator): {**SEPARATE, **NO_SPINNING} for allocator in ("default", "warm")},
    **{("counts", allocator): {**FEW_FAULTS, **NO_SPINNING} for allocator in ("default", "warm")},
    ("instructions", "default"): NO_SPINNING,
}
#: Variables of the user's that change numbers; those that effbench sets itself are not among them.
TELLING = re.compile(
    r"LD_PRELOAD|GLIBC_TUNABLES|MALLOC_.*|THP_MEM_ALLOC_ENABLE|ATEN_CPU_CAPABILITY|(ONE)?DNN(L)?_.*|"
    r"OMP_(?!NUM_THREADS).*|GOMP_.*|KMP_.*|MKL_(?!NUM_THREADS).*|"
    r"PYTORCH_(CUDA_)?ALLOC_CONF|"
    r"NVIDIA_TF32_OVERRIDE|CUBLAS_WORKSPACE_CONFIG|CUDA_VISIBLE_DEVICES"
)


def server_environment(kind: str, *, threads: int, allocator: str) -> dict[str, str]:
    """The variables to start a fork server with: glibc and OpenMP read theirs once, at start.

    ``kind``: time, memory, counts or instructions. ``allocator``: warm, or default for glibc as it comes;
    memory is measured in one way whatever the allocator.
    """
    if (kind, allocator) not in ALLOCATORS:
        accepted = ", ".join(" ".join(pair) for pair in sorted(ALLOCATORS))
        raise BadInput(f"no server for {kind!r} with allocator {allocator!r}; accepted: {accepted}")
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "PYTHONHASHSEED": "0",
        # Asked of CUDA itself, whether there is a GPU starts it, and then no child can use it.
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
        **ALLOCATORS[kind, allocator],
    }


def torch_facts() -> dict[str, Any]:
    """What torch says of itself, without computing anything and without CUDA: for the fork server."""
    import torch

    build = torch.__config__.show()
    facts: dict[str, Any] = {
        "version": torch.__version__,
        "build": hashlib.sha256(build.encode()).hexdigest()[:12],
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.version.cuda,
    }
    for name, pattern in {
        "mkl": r"Math Kernel Library Version (\S+)",
        "onednn": r"(?:MKL-DNN|oneDNN) v(\S+)",
    }.items():
        found = re.search(pattern, build)
        facts[name] = found.group(1) if found else None
    blas = re.search(r"BLAS_INFO=(\w+)", build)
    facts["blas"] = blas.group(1) if blas else None
    return facts


def facts(torch_facts: Mapping[str, Any], root: Path = ROOT) -> dict[str, Any]:
    """What can change a number: the same on an idle and on a busy machine."""
    return {
        "cpu": {
            "model": cpu_model(root),
            "physical_cores": _physical_cores(),
            "usable_cores": _usable_cores(),
            "limit": cpu_limit(root),
            "governor": _read(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        },
        "memory": {
            "physical": physical_memory(),
            "limit": memory_limit(root),
            "huge_pages": _read(root / "sys/kernel/mm/transparent_hugepage/enabled"),
        },
        "os": {
            "system": platform.system(),
            "kernel": platform.release(),
            "libc": "-".join(platform.libc_ver()),
        },
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "torch": dict(torch_facts),
        "allocator": {"time": WARM, "memory": SEPARATE},
        "variables": {k: v for k, v in sorted(os.environ.items()) if TELLING.fullmatch(k)},
        "gpu": nvml.gpus(),
    }


def digest(facts: Mapping[str, Any]) -> str:
    """12 hexadecimal digits over the facts."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def circumstances() -> dict[str, Any]:
    """What stands beside a run without being hashed: load, host, date, commit, effbench's version."""
    status = _git("status", "--porcelain")
    return {
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "host": socket.gethostname(),
        "date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": None if status is None else bool(status),
        "effbench": _version(),
    }


def memory_total(root: Path = ROOT) -> int:
    """Bytes that this process and its children may use together: the machine's, or the container's limit."""
    limit = memory_limit(root)
    return physical_memory() if limit is None else min(physical_memory(), limit)


def default_memory_limit() -> int:
    """Two thirds of the total: the same on every run on a machine, whatever else runs there."""
    return memory_total() * 2 // 3


def physical_memory() -> int:
    """Bytes of the machine's memory."""
    import psutil

    return int(psutil.virtual_memory().total)


def available_memory() -> int:
    """Bytes that could be taken now without swapping."""
    import psutil

    return int(psutil.virtual_memory().available)


def memory_limit(root: Path = ROOT) -> int | None:
    """The tightest memory limit of the control groups around this process, in bytes; None without one."""
    names = {2: "memory.max", 1: "memory.limit_in_bytes"}
    limits = [_read(folder / names[version]) or "" for version, folder in _groups(root, "memory")]
    # version 2 writes "max" for no limit, version 1 a number near 2^63
    return min((int(limit) for limit in limits if limit.isdigit() and int(limit) < 1 << 60), default=None)


def cpu_limit(root: Path = ROOT) -> float | None:
    """The tightest processor quota of the control groups around this process, in cores; None without one."""
    cores = []
    for version, folder in _groups(root, "cpu"):
        if version == 2:
            quota, _, period = (_read(folder / "cpu.max") or "").partition(" ")
        else:
            quota = _read(folder / "cpu.cfs_quota_us") or ""
            period = _read(folder / "cpu.cfs_period_us") or ""
        if quota.isdigit() and period.isdigit() and int(period):  # "max" and "-1": no quota
            cores.append(int(quota) / int(period))
    return min(cores, default=None)


def _groups(root: Path, controller: str) -> list[tuple[int, Path]]:
    """(version, folder) of each control group that this process is in, from its own up to the root."""
    groups = []
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            version, base = 2, root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            version, base = 1, root / "sys/fs/cgroup" / controller
        else:
            continue
        own = Path(path.lstrip("/"))
        # inside a container the path may be the host's: what does not exist reads as no limit
        groups += [(version, base / part) for part in dict.fromkeys((own, *own.parents))]
    return groups


def cpu_model(root: Path = ROOT) -> str:
    """The processor's name as the system gives it."""
    found = re.search(r"^model name\s*:\s*(.+)$", _read(root / "proc/cpuinfo") or "", re.MULTILINE)
    return found.group(1).strip() if found else platform.processor() or platform.machine()


def gpu_memory() -> int | None:
    """Bytes of the smallest NVIDIA GPU, asked of NVML; None without one."""
    return min((gpu["memory"] for gpu in nvml.gpus()), default=None)


def _physical_cores() -> int | None:
    import psutil

    cores: int | None = psutil.cpu_count(logical=False)
    return cores


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _read(path: Path) -> str | None:
    """A small file's text, stripped; None where it cannot be read."""
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None


def _git(*arguments: str) -> str | None:
    """git's answer about the working directory; None outside a repository or without git."""
    try:
        done = subprocess.run(("git", *arguments), capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _version() -> str | None:
    try:
        return metadata.version("effbench")
    except metadata.PackageNotFoundError:
        return None
