"""Memory of one call, in two columns: what the algorithm asks for and what the process comes to hold.

``peak_bytes`` is resident: the kernel's high-water mark, reset just before the call (Linux; elsewhere
ru_maxrss, which cannot be reset). ``alloc_bytes`` is the largest sum of PyTorch's own allocations, from
its profiler: deterministic. Both are the rise above the state before the call. A small resident peak is
read past what the kernel's counts may be off by (``pagecounts``); one that they cannot tell from nothing is
None, never 0. Run this in a process with ``environment.server_environment("memory", ...)``: there every
tensor is a mapping of its own, so that no hole in the heap is counted (measured: agrees with the truth
within 0.3 MB then, else up to 2 times off).
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from effbench.meters import clocks, pagecounts, resident
from effbench.meters.storages import StorageTracker, storage_key, unique_bytes

#: A peak of so many times what one reading may be off by is read once: off by under 6 %.
_SMALL = 16
#: And one of so many times at most is worth the fewest calls that dither, whatever they take.
_TINY = 4
#: What dithering may take, seconds, and the fewest and the most calls of it.
_DITHER_S, _FEWEST, _MOST = 0.006, 4, 16
_IN_PLACE = 16 << 10  # bytes of the heap's pages that small tensors find in place, at most
_PHASE_S = 1e-4  # seconds of a call's reset, ballast and readings


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
    ``peak_missing``, beside the keys of the record, says why there is no resident peak.
    """
    result: dict[str, Any] = dict.fromkeys(
        ("peak_bytes", "alloc_bytes", "live_bytes", "grad_bytes", "saved_bytes", "workspace_bytes"), None
    )
    result |= {"peak_method": "", "alloc_method": "", "predicted_bytes": None, "device": None}
    result["live_bytes"] = unique_bytes(live)
    if device.startswith("cuda"):
        return result | cuda_peaks(call, device)
    watched = Stopwatch(call)
    rises, method = resident.rises(watched, passes=1 if cold else 2)
    if not rises:
        result["peak_missing"] = "this system does not tell how much a pass adds to a process"
    else:
        again = repeats > 1 and not cold and method == "vmhwm"
        dither = again and rises[1] < _SMALL * pagecounts.lag() and pagecounts.dithers()
        if again and not dither:
            rises += resident.rises(call, passes=repeats - 1)[0]
        result |= _peak(min(rises[1:] or rises), method, watched if dither else None, live)
    if len(rises) > 1:
        result["workspace_bytes"] = max(0, rises[0] - min(rises[1:]))
    if alloc:
        result["alloc_bytes"], result["alloc_method"] = allocated(call), "profiler"
    gradients = [t.grad for t in live if t.requires_grad and t.is_leaf and t.grad is not None]
    result["grad_bytes"] = unique_bytes(gradients) if gradients else None
    return result


def _peak(rise: int, method: str, call: Stopwatch | None, live: Iterable[torch.Tensor]) -> dict[str, Any]:
    """The keys of the record about a resident peak that a reading of its high-water mark said to be ``rise``.

    A small one is read anew, dithered, by some more calls of ``call``, unless that is None.
    """
    off, made = pagecounts.lag(), 0
    if call is not None:
        made = _made(call(), live)
        phases = _phases(call.fastest)
        if phases or rise < _TINY * off:
            phases = phases or _FEWEST
            rise, off = pagecounts.dithered_rise(call, phases), pagecounts.resolution(phases)
            method = "vmhwm, dithered"
    known = {"peak_bytes": rise, "peak_method": method, "peak_resolution_bytes": off}
    if rise < off:
        known = {"peak_missing": f"it is below what can be told apart here, {off} bytes"}
    elif rise + off + _IN_PLACE < made:
        known = {
            "peak_missing": f"{rise} bytes were added, and {made} given back: memory that was there already"
        }
    else:
        known |= {"peak_bytes": max(rise, made), "peak_resolution_bytes": max(off, made - rise)}
    return known


class Stopwatch:
    """A call that knows the seconds which its fastest took so far."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call, self.fastest = call, math.inf

    def __call__(self) -> Any:
        start = time.perf_counter()
        output = self._call()
        self.fastest = min(self.fastest, time.perf_counter() - start)
        return output


def _phases(seconds: float) -> int | None:
    """How many calls that take so long may be made to dither; None where the fewest would take too long."""
    phases = _MOST
    while phases >= _FEWEST:
        if phases * (seconds + _PHASE_S) <= _DITHER_S:
            return phases
        phases //= 2
    return None


def _made(output: Any, live: Iterable[torch.Tensor]) -> int:
    """Bytes of an output that were not there before."""
    there = {storage_key(tensor)[0] for tensor in live}
    made = (leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor))
    return unique_bytes(tensor for tensor in made if storage_key(tensor)[0] not in there)


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
