"""What is hashed does not depend on what only happens to be the case; limits are read where they stand."""

import json
import os
import re
import subprocess
import sys

import pytest

from effbench import environment, nvml
from effbench.errors import BadInput

TORCH = {"version": "2.13.0", "build": "0" * 12}


def test_importing_it_does_not_import_torch():
    code = (
        "import sys, effbench.environment as e; e.facts({}); e.circumstances(); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_the_digest_is_the_same_under_load(monkeypatch):
    quiet = environment.digest(environment.facts(TORCH))
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 99.0, 99.0))
    monkeypatch.setenv("OMP_NUM_THREADS", "17")  # set by the servers, and part of the cell
    code = "import effbench.environment as e, json, sys; print(e.digest(e.facts(json.loads(sys.argv[1]))))"
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], stdout=subprocess.DEVNULL)
        for _ in range(2)
    ]
    try:
        command = [sys.executable, "-c", code, json.dumps(TORCH)]
        loaded = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        ).stdout.strip()
    finally:
        for process in busy:
            process.kill()
            process.wait()
    assert re.fullmatch("[0-9a-f]{12}", quiet)
    assert loaded == quiet


@pytest.mark.parametrize(
    "name", ["GLIBC_TUNABLES", "LD_PRELOAD", "ATEN_CPU_CAPABILITY", "MKL_DISABLE_FAST_MM"]
)
def test_a_variable_that_changes_numbers_changes_the_digest(monkeypatch, name):
    monkeypatch.delenv(name, raising=False)
    without = environment.digest(environment.facts(TORCH))
    monkeypatch.setenv(name, "1")
    assert environment.digest(environment.facts(TORCH)) != without


def test_another_torch_changes_the_digest():
    first, second = (environment.digest(environment.facts({"version": v})) for v in ("2.12.0", "2.13.0"))
    assert first != second


def test_torch_facts_compute_nothing():
    code = """
import json, os, signal
from effbench import environment, nvml
facts = environment.torch_facts()
if not os.fork():  # after OpenMP had been used, this product would hang
    signal.alarm(60)
    import torch
    torch.ones(256, 256) @ torch.ones(256, 256)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
print(json.dumps(facts))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    facts = json.loads(done.stdout)
    assert re.match(r"\d+\.\d+", facts["version"])
    assert facts["cpu_capability"]


def test_circumstances():
    now = environment.circumstances()
    assert set(now) == {"load", "host", "date", "git_commit", "git_dirty", "effbench"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", now["date"])


def test_outside_a_repository_there_is_no_commit(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    now = environment.circumstances()
    assert (now["git_commit"], now["git_dirty"]) == (None, None)


def fake_root(folder, files):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


GIB = 1 << 30


@pytest.mark.parametrize(
    ("files", "memory", "cores"),
    [
        ({}, None, None),
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/memory.max": "max",
                "sys/fs/cgroup/a/memory.max": str(3 * GIB),
                "sys/fs/cgroup/memory.max": str(8 * GIB),
                "sys/fs/cgroup/a/b/cpu.max": "150000 100000",
                "sys/fs/cgroup/a/cpu.max": "max 100000",
            },
            3 * GIB,
            1.5,
        ),
        (
            {
                "proc/self/cgroup": "0::/",
                "sys/fs/cgroup/memory.max": "max",
                "sys/fs/cgroup/cpu.max": "max 100000",
            },
            None,
            None,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/x\n3:cpu,cpuacct:/docker/x\n1:name=systemd:/",
                "sys/fs/cgroup/memory/docker/x/memory.limit_in_bytes": str(2 * GIB),
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_quota_us": "50000",
                "sys/fs/cgroup/cpu/docker/x/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
            },
            2 * GIB,
            0.5,
        ),
        (  # the host's path in a container that sees its own group as the root
            {
                "proc/self/cgroup": "4:memory:/host/path",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": str(GIB),
            },
            GIB,
            None,
        ),
    ],
)
def test_control_groups(tmp_path, files, memory, cores):
    root = fake_root(tmp_path, files)
    assert environment.memory_limit(root) == memory
    assert environment.cpu_limit(root) == cores
    physical = environment.physical_memory()
    assert environment.memory_total(root) == (physical if memory is None else min(physical, memory))


def test_the_processor_is_named(tmp_path):
    root = fake_root(
        tmp_path, {"proc/cpuinfo": "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nmodel name\t: No"}
    )
    assert environment.cpu_model(root) == "Some CPU @ 2 GHz"


def test_the_default_memory_limit_is_three_quarters():
    assert environment.default_memory_limit() == environment.memory_total() * 2 // 3


def test_server_environments():
    common = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3", "PYTHONHASHSEED": "0"} | {
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1"
    }

    def of(kind, allocator):
        return environment.server_environment(kind, threads=3, allocator=allocator)

    warm = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184"}
    assert of("time", "warm") == common | warm
    still = {"GOMP_SPINCOUNT": "0", "OMP_WAIT_POLICY": "passive"}
    separate = {"MALLOC_MMAP_THRESHOLD_": "65536"}
    assert of("memory", "warm") == of("memory", "default") == common | separate | still
    huge = {"THP_MEM_ALLOC_ENABLE": "1"}
    assert of("counts", "warm") == of("counts", "default") == common | warm | huge | still
    assert of("time", "default") == common


@pytest.mark.parametrize(("kind", "allocator"), [("speed", "warm"), ("time", "jemalloc")])
def test_an_unknown_server_is_refused_with_what_is_accepted(kind, allocator):
    with pytest.raises(BadInput, match=r"accepted: .*time warm"):
        environment.server_environment(kind, threads=1, allocator=allocator)


def test_without_nvml_there_is_no_gpu(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvml.gpus() == []
    assert environment.gpu_memory() is None
