"""Blocks of passes made when asked, so that two processes can take turns and a bad moment hits both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from effbench.meters.clocks import clock_of
from effbench.meters.time import SLOW, Passes, minor_faults, no_collection


def serve(
    call: Callable[[int], Any],
    *,
    hear: Callable[[], tuple[int, bool]],
    say: Callable[[Mapping[str, float]], Any],
    tick: Callable[[], Any],
    device: str = "cpu",
) -> dict[str, Any]:
    """Warm ``call(i)`` up, then time a block of as many passes as each ``hear()`` asks for.

    ``hear()`` gives the passes, 0 to end, and whether the block is to be kept as a sample. Says the seconds
    of a pass once after the warm-up (``pass_s``), and of each block (``seconds``). Returns the keys of
    ``record.Time``, a sample a block, in seconds a pass.
    """
    clock = clock_of(device)
    ring = Passes(call, clock, tick)
    samples: list[float] = []
    passes = 0
    with no_collection():
        first_call_s = ring.run_long()
        say({"pass_s": ring.settle() if first_call_s >= SLOW else ring.warm_up(first_call_s)})
        clock.device_samples.clear()
        faults = minor_faults()
        while (asked := hear())[0] > 0:
            wanted, keep = asked
            seconds = ring.block(wanted, keep=keep)
            passes += wanted
            if keep:
                samples.append(seconds / wanted)
            say({"seconds": seconds})
        after = minor_faults()
    return {
        "samples_s": samples,
        "device_samples_s": clock.device_samples or None,
        "first_call_s": first_call_s,
        "compile_s": None,
        "minor_faults": None if faults is None or after is None or not passes else (after - faults) / passes,
        "method": f"{clock.method}, blocks in turns",
    }
