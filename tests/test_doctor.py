"""What the doctor finds on this machine, and on others that are shown to it; how it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from effbench import environment, nvml, perf
from effbench.cell import Cell
from effbench.doctor import gpu, rehearsal, system
from effbench.doctor.finding import Finding
from effbench.doctor.shown import show
from effbench.paces import Paces

Effbench = Callable[..., subprocess.CompletedProcess[str]]
NAMES = [
    *("performance counters", "allocator", "transparent huge pages", "cores", "frequency governor"),
    *("load now", "memory", "resident peak", "variables", "pace of the cores", "noise floor"),
    *("matrix products", "NVML", "GPU", "GPU clocks"),
]


@pytest.fixture(scope="module")
def found(effbench: Effbench, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """What it says of this machine, by name."""
    done = effbench("doctor", "--json", cwd=tmp_path_factory.mktemp("doctor"))
    assert (done.returncode, done.stderr) == (0, "")
    objects = json.loads(done.stdout)
    assert [one["name"] for one in objects] == NAMES
    return {one["name"]: one for one in objects}


def test_every_finding_is_words(found: dict[str, dict[str, str]]) -> None:
    for one in found.values():
        assert set(one) == {"name", "state", "found", "means", "remedy"}
        assert one["state"] in ("ok", "limited", "absent")
        assert one["found"]
        assert one["means"]
        assert bool(one["remedy"]) <= (one["state"] != "ok")


def test_what_this_machine_has_is_measured(found: dict[str, dict[str, str]]) -> None:
    assert "ms, A and B part by" in found["noise floor"]["found"]
    assert (found["performance counters"]["state"] == "ok") == (perf.missing(perf.INSTRUCTIONS) is None)
    assert found["noise floor"]["state"] in ("ok", "limited")
    assert "float32: torch " in found["matrix products"]["found"]
    assert f"{environment.physical_memory() / 2**30:.1f} GiB" in found["memory"]["found"]
    if sys.platform == "linux":
        assert found["resident peak"]["state"] == "ok"
        assert "of" in found["load now"]["found"]


def test_without_a_torch_that_loads_it_says_so_and_is_fine(effbench: Effbench, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch today')")
    done = effbench("doctor", "--json", cwd=tmp_path, path=tmp_path)
    assert done.returncode == 0, done.stderr  # so the parent does not import it either
    by_name = {one["name"]: one for one in json.loads(done.stdout)}
    for name in ("noise floor", "matrix products"):
        assert by_name[name]["state"] == "absent"
        assert "no torch today" in by_name[name]["found"]
    assert by_name["allocator"]["state"] == "ok"


FINDINGS = [
    Finding("memory", "ok", found="1 GiB", means="fits"),
    Finding("cores", "limited", found="quota 1 core", means="threads are stopped", remedy="--threads 1"),
    Finding("GPU", "absent", found="none", means="cells run on the CPU"),
]


@pytest.mark.parametrize("columns", [200, 80, 40, 20])
def test_shown_within_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    show(FINDINGS)
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= columns
    for word in ("cores", "limited", "threads are", "remedy:", "absent", "CPU"):
        assert word in text
    assert "1 ok, 1 limited" in text


def test_no_colour_where_none_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    show(FINDINGS)
    assert "\x1b[33m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    show(FINDINGS)
    assert "\x1b[33m" not in capsys.readouterr().out


@pytest.mark.skipif(not environment.facts({})["os"]["libc"].startswith("glibc"), reason="glibc's settings")
@pytest.mark.parametrize(
    ("tunables", "state", "words"),
    [
        ("", "ok", "settings act"),
        ("glibc.malloc.mmap_max=65536", "limited", "include the page faults"),
        ("glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184", "limited", "stays resident"),
    ],
)
def test_the_allocator_is_tried(
    tunables: str, state: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", tunables)  # they win over the variables that effbench sets
    finding = system.allocator(environment.facts({}))
    assert finding.state == state, finding
    assert words in finding.means
    assert bool(finding.remedy) == (state != "ok")


def other_machine(folder: Path, **files: str) -> Path:
    """A file system that shows another machine; ``__`` stands for a slash."""
    for name, text in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return folder


GROUP = "proc__self__cgroup"
THP = "sys__kernel__mm__transparent_hugepage__enabled"
GOVERNOR = "sys__devices__system__cpu__cpu0__cpufreq__scaling_governor"


@pytest.mark.parametrize(
    ("probe", "files", "state", "remedy"),
    [
        ("huge_pages", {THP: "[always] madvise never"}, "limited", "echo madvise"),
        ("huge_pages", {THP: "always madvise [never]"}, "ok", ""),
        ("huge_pages", {}, "limited", ""),
        ("governor", {GOVERNOR: "powersave"}, "limited", "cpupower"),
        ("governor", {GOVERNOR: "performance"}, "ok", ""),
        ("governor", {}, "absent", "machine of one's own"),
        ("cores", {GROUP: "0::/", "sys__fs__cgroup__cpu.max": "50000 100000"}, "limited", "--threads 1"),
        ("memory", {GROUP: "0::/", "sys__fs__cgroup__memory.max": str(1 << 30)}, "ok", ""),
    ],
)  # fmt: skip
def test_another_machine(probe: str, files: dict[str, str], state: str, remedy: str, tmp_path: Path) -> None:
    finding = getattr(system, probe)(environment.facts({}, other_machine(tmp_path, **files)))
    assert finding.state == state, finding
    assert remedy in finding.remedy
    assert probe != "memory" or "container's limit is 1.0 GiB" in finding.found


def test_shared_cores_and_full_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = environment.facts({})
    monkeypatch.setitem(facts, "cpu", {**facts["cpu"], "usable_cores": 8, "physical_cores": 4, "limit": None})
    assert system.cores(facts).remedy == "--threads 4"
    monkeypatch.setattr(environment, "available_memory", lambda: 100 << 20)
    full = system.memory(facts)
    assert (full.state, full.remedy) == ("limited", "free memory, or --memory-limit 90MiB")


def test_a_variable_that_changes_numbers_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MKL_DISABLE_FAST_MM", "1")
    finding = system.variables(environment.facts({}))
    assert (finding.state, finding.remedy) == ("limited", "unset them")
    assert "MKL_DISABLE_FAST_MM=1" in finding.found


@pytest.mark.parametrize(
    ("why_not", "state", "remedy"),
    [
        (None, "ok", ""),
        ("retired instructions: not permitted (EACCES)", "absent", "perf_event_paranoid=2"),
        ("retired instructions: not permitted (EPERM)", "absent", "seccomp"),
        ("retired instructions: hidden (ENOENT)", "absent", "passes its counters through"),
        ("retired instructions: no perf_event_open on darwin arm64", "absent", "use Linux"),
    ],
)
def test_counters(why_not: str | None, state: str, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf, "missing", lambda event: why_not)
    finding = system.counters()
    assert (finding.state, finding.found) == (state, why_not or "retired instructions can be counted")
    assert remedy in finding.remedy


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/stat is Linux's")
def test_a_busy_core_is_seen() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as burner:
        busy = system.load(Path("/"))
        burner.kill()
    assert busy.state == "limited", busy
    assert "stop what else runs" in busy.remedy


def test_without_the_system_s_word_load_is_unknown(tmp_path: Path) -> None:
    assert system.load(tmp_path).state == "absent"


def answers(*medians: float, flags: tuple[str, ...] = ()) -> list[dict[str, object]]:
    return [{"time": {"samples_s": [seconds] * 5}, "flags": list(flags)} for seconds in medians]


CELL = Cell(mechanism="toy", seq=128, dim=64, heads=1, threads=1)


def test_noise_is_judged_by_the_sides() -> None:
    quiet = rehearsal.noise_of([CELL], [answers(1e-3, 1.01e-3, 1e-3, 1.01e-3)])
    assert (quiet.state, quiet.remedy) == ("ok", "")
    assert "toy at 128 × 64: 1.01 ms, A and B part by 1.0%" in quiet.found
    noisy = rehearsal.noise_of([CELL], [answers(1e-3, 1.2e-3, 1e-3, 1.2e-3)])
    assert noisy.state == "limited"
    assert "part by 17%" in noisy.means
    assert "nothing else ran here" in noisy.remedy
    loaded = rehearsal.noise_of([CELL], [answers(1e-3, 1.2e-3, 1e-3, 1.2e-3, flags=("loaded",))])
    assert loaded.remedy.startswith("stop what else runs")


def paced(*paces: float) -> list[dict[str, Any]]:
    """The answer of one process with a sample at each pace: at 1e-5 a pass takes 1 ms, else twice as long."""
    samples = [1e-3 if pace == 1e-5 else 2e-3 for pace in paces]
    return [{"time": {"samples_s": samples, "pace_s": [(p,) for p in paces], "waited": None}, "flags": []}]


def test_cores_that_somebody_else_uses_are_told_by_their_pace() -> None:
    timed = [paced(*[1e-5] * 6, *[1.5e-5] * 4)]
    best_s = rehearsal.best_of(Paces(), 1, timed)
    finding = rehearsal.pace_of(timed, best_s)
    assert finding.state == "limited"
    assert (
        "50% of the samples were calm; fixed works take 10 µs at best and took up to 1 times as long"
        in finding.found
    )
    assert "--patience" in finding.remedy
    assert rehearsal.pace_of([paced(*[1e-5] * 9, 1.5e-5)], (1e-5,)).state == "ok"
    earlier = rehearsal.best_of(Paces({1: [(1e-5,)]}), 1, [paced(*[1.5e-5] * 10)])
    assert "0% of the samples were calm" in rehearsal.pace_of([paced(*[1.5e-5] * 10)], earlier).found


def test_noise_is_that_of_the_calm_samples() -> None:
    a, b = paced(*[1e-5] * 3), paced(*[1e-5] * 3, *[1.5e-5] * 4)
    assert "part by 0.0%" in rehearsal.noise_of([CELL], [[*a, *b]], (1e-5,)).found
    assert "part by 50.0%" in rehearsal.noise_of([CELL], [[*a, *b]]).found


def test_a_faster_provider_is_named() -> None:
    rates = {"torch": {"flops_per_s": 2e11}, "onednn": {"flops_per_s": 4e11}}
    answer = {"status": "ok", "ceilings": {"matmul": {"float32": rates}}, "faster": {"float32": "onednn"}}
    finding = rehearsal.products_of(answer)
    assert finding.state == "limited"
    assert finding.found == "float32: torch 200, onednn 400 GFLOP/s"
    assert "50% of onednn's rate in float32" in finding.means
    assert "--gemm auto" in finding.remedy


def test_disturbed_rates_are_no_ceilings() -> None:
    rates = {"torch": {"flops_per_s": 2e11, "disturbed": True}}
    answer = {"status": "ok", "ceilings": {"matmul": {"float32": rates}}, "faster": {"float32": "torch"}}
    finding = rehearsal.products_of(answer)
    assert (finding.state, finding.remedy) == ("limited", "stop what else runs")
    assert "float32 were disturbed" in finding.means


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


def fake_nvml(reasons: int) -> SimpleNamespace:
    """NVML on a machine with one GPU."""
    return SimpleNamespace(
        NVMLError=NVMLError,
        NVMLError_NotSupported=NotSupported,
        NVML_CLOCK_SM=1,
        NVML_CLOCK_MEM=2,
        NVML_TEMPERATURE_GPU=0,
        nvmlClocksThrottleReasonSwPowerCap=4,
        nvmlClocksThrottleReasonHwSlowdown=8,
        nvmlClocksThrottleReasonSwThermalSlowdown=32,
        nvmlClocksThrottleReasonHwThermalSlowdown=64,
        nvmlClocksThrottleReasonHwPowerBrakeSlowdown=128,
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlSystemGetDriverVersion=lambda: "580.1",
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: "Some GPU",
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=80 << 30, used=1 << 30),
        nvmlDeviceGetPowerUsage=lambda handle: 310_000,
        nvmlDeviceGetClockInfo=lambda handle, clock: 1200,
        nvmlDeviceGetMaxClockInfo=lambda handle, clock: 1980,
        nvmlDeviceGetTemperature=lambda handle, sensor: 83,
        nvmlDeviceGetCurrentClocksThrottleReasons=lambda handle: reasons,
    )


@pytest.mark.parametrize(
    ("reasons", "cuda", "states"),
    [
        (0, "12.8", ["ok", "ok", "ok"]),
        (36, "12.8", ["ok", "ok", "limited"]),
        (1, None, ["ok", "limited", "ok"]),
    ],
)
def test_gpus(reasons: int, cuda: str | None, states: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(reasons))
    findings = list(gpu.gpu_findings({"version": "2.13.0", "cuda": cuda}))
    assert [finding.name for finding in findings] == ["NVML", "GPU", "GPU clocks"]
    assert [finding.state for finding in findings] == states
    assert findings[1].found == "Some GPU, 80 GiB, driver 580.1"
    assert findings[2].found.startswith("1200 of 1980 MHz, 83 degrees")
    assert ("power limit; temperature" in findings[2].found) == (reasons == 36)


def test_a_gpu_that_does_not_tell_everything_tells_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise NotSupported

    silent = {"nvmlDeviceGetPowerUsage": refuse, "nvmlDeviceGetCurrentClocksThrottleReasons": refuse}
    known = {**vars(fake_nvml(0)), **silent, "nvmlDeviceGetHandleByUUID": lambda uuid: 0}
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(**known))
    found = nvml.state("GPU-0")
    assert found is not None
    assert (found["watts"], found["held"], found["degrees"]) == (None, None, 83)
    assert nvml.held(found) == nvml.held(None) == set()
    clocks = list(gpu.gpu_findings({"version": "2.13.0", "cuda": "12.8"}))[-1]
    assert (clocks.state, clocks.found) == ("limited", "1200 of 1980 MHz, 83 degrees")


def test_without_the_library_there_is_no_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    findings = list(gpu.gpu_findings({}))
    assert [finding.state for finding in findings] == ["absent"] * 3
    assert findings[0].found == "nvidia-ml-py is not installed"
