"""The memory meter against peaks that are known, in processes set up like the memory server."""

import json
import os
import subprocess
import sys

import pytest
import torch

from effbench import environment
from effbench.meters import memory, pagecounts, resident

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="VmHWM and clear_refs are Linux's")

ATTENTION = """
import json, os, sys
import torch
from effbench.meters import memory

n = int(sys.argv[1])
memory.preheat()
if os.fork():  # as the fork server does: the child measures
    _, code = os.wait()
    sys.exit(os.waitstatus_to_exitcode(code))
q, k, v = (torch.randn(1, 4, n, 64) for _ in range(3))

def call():
    scores = q @ k.mT
    weights = torch.softmax(scores, -1)
    return scores, weights, weights @ v

result = memory.measure(call, live=[q, k, v, q.view(-1)], cold=sys.argv[2] == "cold", alloc=True)
print(json.dumps(result), flush=True)
os._exit(0)
"""


def run(code, *arguments):
    """What a fresh interpreter prints, in the memory server's environment."""
    variables = environment.server_environment("memory", threads=2, allocator="warm")
    command = [sys.executable, "-W", "error", "-c", code, *map(str, arguments)]
    env = {**os.environ, **variables}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def truth(n):
    return 2 * 4 * n * n * 4 + 4 * n * 64 * 4


@linux_only
@pytest.mark.parametrize("n", [128, 512, 2048])
def test_written_out_attention(n):
    methods = {True: "vmhwm, dithered", False: "vmhwm"}
    result = json.loads(run(ATTENTION, n, "warm"))
    assert abs(result["peak_bytes"] - truth(n)) <= 0.01 * truth(n) + 300_000
    assert abs(result["alloc_bytes"] - truth(n)) <= 0.001 * truth(n) + 16 * 1024
    small = truth(n) < 16 * pagecounts.lag()
    assert (result["peak_method"], result["alloc_method"]) == (methods[small], "profiler")
    assert result["live_bytes"] == 3 * 4 * n * 64 * 4
    assert result["workspace_bytes"] >= 0


SMALL = """
import json, os, sys
import torch
from effbench.meters import memory
memory._DITHER_S = 10.0  # as many passes as on a machine that does nothing else
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
x = torch.randn(1, 4096, 64)
calls = {
    "exp": lambda n: x[:, :n].exp(),
    "logsumexp": lambda n: x[:, :n].logsumexp(-1),  # hidden exponentials, gone at its end
    "two steps": lambda n: x[:, :n].exp().sigmoid(),
    "in place": lambda n: x[:, :n].neg_(),
}
def peak(call, n):
    return memory.measure(lambda: call(n), live=[x], cold=False, alloc=False)
found = {name: [peak(call, n) for n in (64, 256, 1024)] for name, call in calls.items()}
print(json.dumps(found), flush=True)
os._exit(0)
"""


@linux_only
def test_small_peaks_are_known_to_some_pages_and_none_is_a_silent_0():
    found = json.loads(run(SMALL))
    page = pagecounts.PAGE
    for name, size in (("exp", 256), ("logsumexp", 260), ("two steps", 512)):  # bytes a token
        for n, result in zip((64, 256, 1024), found[name], strict=True):
            assert result["peak_method"] == "vmhwm, dithered"
            assert abs(result["peak_bytes"] - n * size) <= 4 * page + result["peak_resolution_bytes"]
    for result in found["in place"]:
        assert result["peak_bytes"] is None
        assert "below what can be told apart" in result["peak_missing"]


def of(rise, monkeypatch, **more):
    """What is measured where the high-water mark is said to rise so much."""
    monkeypatch.setattr(resident, "rises", lambda call, passes: ([rise] * passes, "vmhwm"))
    asked = {"live": [], "cold": False, "alloc": False, **more}
    return memory.measure(lambda: torch.ones(1 << 10), **asked)


def test_a_peak_that_one_reading_cannot_tell_from_nothing_has_a_reason(monkeypatch):
    monkeypatch.setattr(pagecounts, "lag", lambda: 1000)
    result = of(999, monkeypatch, cold=True)
    assert (result["peak_bytes"], result["peak_method"]) == (None, "")
    assert "1000 bytes" in result["peak_missing"]
    result = of(1001, monkeypatch, cold=True)
    assert (result["peak_bytes"], result["peak_resolution_bytes"]) == (1001, 1000)


def test_a_peak_is_not_below_the_output(monkeypatch):
    monkeypatch.setattr(pagecounts, "dithers", lambda: True)
    monkeypatch.setattr(pagecounts, "resolution", lambda phases: 500)
    monkeypatch.setattr(pagecounts, "dithered_rise", lambda call, phases: 3600)
    result = of(0, monkeypatch)
    assert (result["peak_bytes"], result["peak_resolution_bytes"]) == (4096, 500)
    monkeypatch.setattr(memory, "_IN_PLACE", 0)
    monkeypatch.setattr(pagecounts, "dithered_rise", lambda call, phases: 3500)
    result = of(0, monkeypatch)
    assert result["peak_bytes"] is None
    assert "3500 bytes were added, and 4096 given back" in result["peak_missing"]


def test_as_many_calls_dither_as_there_is_time_for():
    assert memory._phases(0) == memory._MOST
    assert memory._phases(memory._DITHER_S) is None
    assert memory._phases(memory._DITHER_S / memory._FEWEST / 2) == memory._FEWEST


@linux_only
def test_one_cold_pass_holds_the_warm_peak_and_no_workspace():
    result = json.loads(run(ATTENTION, 2048, "cold"))
    assert truth(2048) - 300_000 <= result["peak_bytes"] <= truth(2048) + 20_000_000
    assert result["workspace_bytes"] is None


@linux_only
def test_memory_freed_before_the_call_does_not_hide_it():
    code = """
import torch
from effbench.meters import resident
torch.ones(40 << 18).sum()  # 40 MB, touched and freed before
print(resident.rises(lambda: torch.ones(20 << 18), passes=2))
"""
    rises, method = eval(run(code))
    assert method == "vmhwm"
    assert rises[1] == pytest.approx(20 << 20, abs=300_000)


@linux_only
def test_without_a_reset_the_record_is_used_and_named():
    code = """
import json, os, sys
import torch
from effbench.meters import memory, resident
resident.can_reset = lambda: False
if os.fork():  # a fresh process inherits the record of the one that started it, a forked one does not
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
def pass_of(megabytes):
    return memory.measure(lambda: torch.ones(megabytes << 18), live=[], cold=False, alloc=False)
print(json.dumps([pass_of(200), pass_of(20)]), flush=True)
os._exit(0)
"""
    first, second = json.loads(run(code))
    assert first["peak_method"] == "ru_maxrss"
    assert first["peak_bytes"] == pytest.approx(200 << 20, rel=0.05)
    assert second["peak_bytes"] is None  # under the record of the first: not seen, and so not 0


def test_nothing_is_claimed_where_nothing_can_be_measured(monkeypatch):
    monkeypatch.setattr(resident, "can_reset", lambda: False)
    monkeypatch.setattr(resident, "resource", None)
    result = memory.measure(lambda: torch.ones(10), live=[torch.ones(4)], cold=False, alloc=False)
    assert (result["peak_bytes"], result["peak_method"]) == (None, "")
    assert (result["alloc_bytes"], result["alloc_method"]) == (None, "")
    assert result["live_bytes"] == 16


def test_allocations_are_those_alive_at_one_time():
    x = torch.ones(1 << 20)

    def call():
        a = x + 1
        b = a + 1
        del a
        return b + 1

    assert memory.allocated(call) == pytest.approx(2 * (4 << 20), abs=1024)  # the 1 is a tensor too


def test_each_output_is_dropped_before_the_next_pass():
    import weakref

    alive = []

    class Output:
        pass

    def call():
        assert all(reference() is None for reference in alive)
        output = Output()
        alive.append(weakref.ref(output))
        return output

    memory.measure(call, live=[], cold=False, alloc=True, repeats=2)
    assert len(alive) >= 2


def test_gradients_of_the_live_tensors():
    x = torch.ones(100, requires_grad=True)

    def call():
        x.grad = None
        (x * x).sum().backward()

    assert memory.measure(call, live=[x], cold=True, alloc=False)["grad_bytes"] == 400


def test_saved_bytes_are_what_backward_needs():
    x, weight = torch.ones(50, 20, requires_grad=True), torch.ones(20, 20, requires_grad=True)

    def forward():
        return (x @ weight).exp().sigmoid()  # saves x and weight, exp's result, sigmoid's result

    assert memory.saved_bytes(forward, live=[x, weight]) == 2 * 50 * 20 * 4
    assert memory.saved_bytes(forward) == (2 * 50 * 20 + 50 * 20 + 20 * 20) * 4
    assert memory.saved_bytes(lambda: forward().sum().backward(), live=[x, weight]) == 2 * 50 * 20 * 4


def test_a_child_of_a_preheated_process_computes_with_all_threads():
    code = """
import os, signal, sys
import torch
from effbench.meters import memory
memory.preheat()
if not os.fork():
    signal.alarm(60)  # a hang would end the child with a signal
    x = torch.ones(512, 512)
    os._exit(0 if float((x @ x).sum()) == 512.0**3 else 1)
_, status = os.wait()
print(os.waitstatus_to_exitcode(status))
"""
    assert run(code).strip() == "0"
