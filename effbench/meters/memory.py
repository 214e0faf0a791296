"""Memory of one call, in two columns: what the algorithm asks for and what the process comes to hold.

``peak_bytes`` is resident: the kernel's high-water mark, reset just before the call (Linux; elsewhere
ru_maxrss, which cannot be reset). ``alloc_bytes`` is the largest sum of PyTorch's own allocations, from
its profiler: deterministic. Both are the rise above the state before the call. Run this in a process with
``environment.server_environment("memory", ...)``: there every tensor is a mapping of its own, so that
no hole in the heap is counted (measured: agrees with the truth within 0.3 MB then, else up to 2 times off).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from effbench.meters import clocks, resident
from effbench.meters.storages import StorageTracker, unique_bytes


def measure(
    call: Callable[[], Any],
    *,
    live: Sequence[torch.Tensor],
    cold: bool,
    alloc: bool,
    repeats: int = 3,
    device: str = "cpu",
) -> dict[str, Any]:
    """The keys of ``record.Memory``, bytes; what could not be measured is None.

    ``live``: the tensors in place, parameters, buffers and inputs. ``cold``: one pass without warm-up (its
    excess is some MB: under 0.5 % where a pass is so costly that this is asked). ``alloc``: profile
    another pass for ``alloc_bytes``; costs 15 KB an op in this process, so leave it out above 20 000 ops.
    Between passes the caller's own state must return to what it was (gradients dropped, if there are any).
    """
    result: dict[str, Any] = dict.fromkeys(
        ("peak_bytes", "alloc_bytes", "live_bytes", "grad_bytes", "saved_bytes", "workspace_bytes"), None
    )
    result |= {"peak_method": "", "alloc_method": "", "predicted_bytes": None, "device": None}
    result["live_bytes"] = unique_bytes(live)
    if device.startswith("cuda"):
        return result | cuda_peaks(call, device)
    rises, method = resident.rises(call, passes=1 if cold else 1 + max(1, repeats))
    result["peak_method"] = method if rises else ""
    if rises:
        result["peak_bytes"] = min(rises[1:] or rises)
    if len(rises) > 1:
        result["workspace_bytes"] = max(0, rises[0] - min(rises[1:]))
    if alloc:
        result["alloc_bytes"], result["alloc_method"] = allocated(call), "profiler"
    gradients = [t.grad for t in live if t.requires_grad and t.is_leaf and t.grad is not None]
    result["grad_bytes"] = unique_bytes(gradients) if gradients else None
    return result


def allocated(call: Callable[[], Any]) -> int:
    """The peak of PyTorch's allocations during the call, above those before it.

    The running sum of the profiler's ``[memory]`` events (``kineto_results`` is private: a test holds it
    against the truth). Not seen: memory that other Python threads allocate, and that something allocated
    before the call is freed during it.
    """
    gc.collect()
    with _profile() as profiler:
        output = call()
        del output
    events = [
        (event.start_ns(), event.nbytes())
        for event in profiler.profiler.kineto_results.events()
        if event.name() == "[memory]"
    ]
    total = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        total += size
        peak = max(peak, total)
    return peak


def preheat() -> None:
    """The profiler's first use in a process costs most of a second: a fork server pays it once for all.

    Starts no computing threads, so children can still compute. What it imported is frozen out of the
    garbage collector: a child's collections then take a millisecond instead of 160.
    """
    with _profile():
        pass
    gc.collect()
    gc.freeze()


def _profile() -> Any:
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True)


def saved_bytes(call: Callable[[], Any], *, live: Iterable[torch.Tensor] = ()) -> int:
    """The most that autograd keeps for the backward pass at one time, tensors in ``live`` left out.

    ``call`` is a forward pass, or a forward and a backward one.
    """
    tracker = StorageTracker()
    in_place = {tensor.untyped_storage()._cdata for tensor in live}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage()._cdata not in in_place:
            tracker.add(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = call()
    tracker.stop()
    del output
    return tracker.peak_bytes


def cuda_peaks(call: Callable[[], Any], device: str) -> dict[str, Any]:
    """The caching allocator's peaks above its state before a warm call: asked for, given and reserved.

    The CUDA context and what cuDNN and NCCL take for themselves are outside of it: ``nvml_used_bytes``, after
    the call, holds them, and what other processes have on the same device.
    """
    call()  # cuBLAS takes its workspace from the same allocator at its first use
    gc.collect()
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_stats(device)
    output = call()
    torch.cuda.synchronize(device)
    after = torch.cuda.memory_stats(device)
    del output
    block: dict[str, Any] = {}
    for name in ("requested_bytes", "allocated_bytes", "reserved_bytes", "inactive_split_bytes"):
        block[name] = int(after[f"{name}.all.peak"] - before[f"{name}.all.current"])
    for name in ("num_alloc_retries", "num_ooms"):
        block[name] = int(after[name] - before[name])
    state = clocks.gpu_state(device)
    block["nvml_used_bytes"] = state and state["used_bytes"]
    return {
        "peak_bytes": block["allocated_bytes"],
        "peak_method": "cuda.memory_stats allocated",
        "alloc_bytes": block["requested_bytes"],
        "alloc_method": "cuda.memory_stats requested",
        "device": block,
    }
