"""The least time in which this machine could do what a cell did, by its ceilings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: A cell is above its ceiling beyond so much, on top of the ceiling's own spread.
MARGIN = 0.1


@dataclass(frozen=True)
class Bound:
    """Seconds that no pass can undercut, the relative spread of the rate that says so, and its doubt."""

    seconds: float
    spread: float
    disturbed: bool = False  # the rate was taken only while something else ran: a pass may undercut it

    def exceeded_by(self, time_s: float) -> bool:
        """Whether a pass was faster than this machine can be."""
        return self.seconds > (1 + MARGIN + self.spread) * time_s

    @classmethod
    def of(cls, work: float, rate: Mapping[str, Any]) -> Bound:
        """For so much work at a rate as the ceilings hold it."""
        per_s = next(value for name, value in rate.items() if name.endswith("_per_s"))
        return cls(work / per_s, rate.get("spread") or 0.0, bool(rate.get("disturbed")))


def bound(
    ceilings: Mapping[str, Any],
    *,
    dtype: str,
    device: str,
    threads: int,
    providers: Iterable[str],
    flops: float | None,
    bytes_moved: float | None,
    held_bytes: float | None,
    time_s: float,
) -> Bound | None:
    """max(FLOPs / rate of products, bytes / bandwidth); None where the run knows no ceiling for either.

    The rate is that of the fastest of the ``providers`` that ran (of all, where none is known). Bytes that
    fit the caches with everything held, or that moved faster than memory can, moved at the caches' rate.
    """
    rates = at(ceilings, device, threads)
    found = []
    if flops is not None and (rate := _product_rate(rates, dtype, providers)):
        found.append(Bound.of(flops, rate))
    if bytes_moved is not None:
        found += _carried(rates, bytes_moved, held_bytes, time_s)
    return max(found, key=lambda one: one.seconds, default=None)


def at(ceilings: Mapping[str, Any], device: str, threads: int) -> Mapping[str, Any]:
    """The ceilings for a device and a number of threads; the run's first ones where they name neither."""
    everyone: list[Mapping[str, Any]] = [ceilings, *ceilings.get("others", ())]
    for one in everyone:
        if one.get("device", device) == device and one.get("threads", threads) == threads:
            return one
    return {}


def _product_rate(rates: Mapping[str, Any], dtype: str, providers: Iterable[str]) -> Mapping[str, Any] | None:
    by_provider = rates.get("matmul", {}).get(dtype, {})
    ran = [by_provider[name] for name in providers if name in by_provider]
    return max(ran or by_provider.values(), key=lambda rate: float(rate["flops_per_s"]), default=None)


def _carried(rates: Mapping[str, Any], amount: float, held: float | None, time_s: float) -> list[Bound]:
    copies = rates.get("copy", {})
    bounds = {name: Bound.of(amount, rate) for name, rate in copies.items()}
    cached, memory = bounds.get("cache"), bounds.get("memory")
    capacity = rates.get("cache_bytes")
    fits = capacity is not None and held is not None and held <= capacity
    if cached and memory and (fits or memory.exceeded_by(time_s)):
        return [min(cached, memory, key=lambda one: one.seconds)]  # a GPU's cache may be hardly faster
    return [one for one in (memory or cached,) if one]
