"""Turns of passes made when asked, so that two processes can take turns and a bad moment hits both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from effbench.meters.clocks import clock_of
from effbench.meters.time import SLOW, Passes, minor_faults, no_collection, passes_for


def serve(
    call: Callable[[int], Any],
    *,
    hear: Callable[[], tuple[int, bool]],
    say: Callable[[Mapping[str, float]], Any],
    tick: Callable[[], Any],
    device: str = "cpu",
) -> dict[str, Any]:
    """Warm ``call(i)`` up, then make a turn of as many passes as each ``hear()`` asks for.

    A turn is made of blocks of a millisecond and more; its sample is their median, so that a moment which the
    scheduler gave to somebody else spoils blocks and not the turn. ``hear()`` gives the passes, 0 to end, and
    whether the turn is to be kept. Says the seconds of a pass once after the warm-up (``pass_s``), and of
    each turn (``seconds``). Returns the keys of ``record.Time``, a sample a turn, in seconds a pass.
    """
    clock = clock_of(device)
    ring = Passes(call, clock, tick)
    samples: list[float] = []
    device_samples: list[float] = []
    passes = 0
    with no_collection():
        first_call_s, long = ring.first()
        pass_s = ring.settle() if long >= SLOW else ring.warm_up(long)
        say({"pass_s": pass_s})
        faults = minor_faults()
        while (asked := hear())[0] > 0:
            wanted, keep = asked
            clock.device_samples.clear()
            sizes = _shares(wanted, passes_for(pass_s))
            blocks = [ring.block(size, keep=True) for size in sizes]
            passes += wanted
            if keep:
                samples.append(median(seconds / size for seconds, size in zip(blocks, sizes, strict=True)))
                device_samples += [median(clock.device_samples)] if clock.device_samples else []
            say({"seconds": sum(blocks)})
        after = minor_faults()
    return {
        "samples_s": samples,
        "device_samples_s": device_samples or None,
        "first_call_s": first_call_s,
        "compile_s": None,
        "minor_faults": None if faults is None or after is None or not passes else (after - faults) / passes,
        "method": f"{clock.method}, in turns",
    }


def _shares(passes: int, block: int) -> list[int]:
    """So many passes in blocks of at least ``block``, as equal as can be."""
    count = max(1, passes // block)
    return [(passes + place) // count for place in range(count)]
