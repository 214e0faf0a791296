"""What this machine can do: rates of matrix products, copies and exponentials, measured in the same run.

The threads are torch's current number; the rates name them and the device. A rate is that of the fastest
repetition, since other processes can only take from it; its ``spread`` is the range of the middle half of
the repetitions over their median. Repetitions during which something else had the cores are made again, some
times; where they never came out clean the rate is ``disturbed``: what the machine can do is then unknown.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import torch

from effbench import products
from effbench.calm import Pace
from effbench.meters.cores import Cores
from effbench.meters.neighbours import neighbours

REPETITIONS = 7
TIME_EACH = 0.25  # seconds that the repetitions of one rate may take
#: Series of repetitions that are made again because they were not clean, over all rates, and seconds before
#: each. In a clean one the fastest repetition had a core for this share of its time.
RETAKES, REST_S, CLEAN = 4, 0.1, 0.9
SIDES = (128, 256, 512, 1024, 2048, 4096, 8192)  # of square matrices: the largest that fits the time is used
#: Bytes of a copy's source: far beyond any last-level cache, and within a core's own second level.
COPIES = {"memory": 128 << 20, "cache": 256 << 10}
EXP_BYTES = 1 << 20  # of float32: in cache, so that arithmetic bounds it


class Conditions(NamedTuple):
    """Series that may still be made again, and the cores where these are watched."""

    retakes: Iterator[int]
    cores: Cores | None = None

    def slow(self) -> bool:
        """Whether the cores are known to work slower just now than they do at best.

        By their arithmetic alone: where rates are taken, threads hardly ever wait for each other.
        """
        return self.cores is not None and self.cores.slow()


def measure(dtypes: Iterable[str], device: str = "cpu", best_s: Pace | None = None) -> dict[str, Any]:
    """FLOPs a second by dtype and provider, bytes a second (read plus written), exponentials a second.

    Products of tiles of heads have rates of their own where there are two providers.
    ``best_s``: seconds of the fixed works of ``Cores`` at their best; slower cores disturb a rate.
    """
    sizes = _sizes(device)
    conditions = Conditions(iter(range(RETAKES)), Cores(best_s) if device == "cpu" else None)
    with torch.no_grad():
        squares = {dtype: _matmul_rates(getattr(torch, dtype), device, conditions) for dtype in dtypes}
        rivals = any(len(rates) > 1 for rates in squares.values())
        return {
            "device": device,
            "threads": torch.get_num_threads(),
            "cache_bytes": _cache_bytes(device),
            "matmul": squares,
            "matmul_by_heads": _rates_by_heads(device, conditions) if rivals else {},
            "copy": {name: _copy_rate(sizes[name], device, conditions) for name in COPIES},
            "exp": _exp_rate(sizes["exp"], device, conditions),
        }


def faster(ceilings: dict[str, Any], dtype: str) -> str:
    """The provider that ``gemm = auto`` stands for: torch unless another was measured faster."""
    return _fastest(ceilings["matmul"].get(dtype, {}))


def faster_by_heads(ceilings: dict[str, Any]) -> str:
    """Likewise, in tiles of heads."""
    return _fastest(ceilings["matmul_by_heads"])


def _fastest(rates: Mapping[str, Mapping[str, float]]) -> str:
    return max(("torch", *rates), key=lambda name: rates.get(name, {}).get("flops_per_s", 0.0))


def _cache_bytes(device: str, root: Path = Path("/")) -> int | None:
    """The size of the last cache before memory; None where the system does not say."""
    if device != "cpu":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = []
    for size in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        amount = re.fullmatch(r"(\d+)([KMG])", size.read_text().strip())
        if amount:
            sizes.append(int(amount[1]) << {"K": 10, "M": 20, "G": 30}[amount[2]])
    return max(sizes, default=None)


def _matmul_rates(dtype: torch.dtype, device: str, conditions: Conditions) -> dict[str, dict[str, Any]]:
    """The rate of each provider that answers for this dtype."""
    rates = {}
    for name, product in _providers(dtype, device).items():
        side, call = _largest(product, dtype, device)
        rates[name] = _timed(call, device, conditions).rate("flops_per_s", 2 * side**3)
    return rates


def _rates_by_heads(device: str, conditions: Conditions) -> dict[str, dict[str, Any]]:
    """The rate of each provider of float32 in tiles of heads, which smaller dtypes are multiplied in too."""
    rates = {}
    for name in _providers(torch.float32, device):
        call, flops = products.tiles_of_heads(name)
        rates[name] = _timed(call, device, conditions).rate("flops_per_s", flops)
    return rates


def _onednn(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return result


def _providers(dtype: torch.dtype, device: str) -> dict[str, Callable[..., torch.Tensor]]:
    """torch's own product x @ w.T, and oneDNN's where it takes this dtype and gets it right."""
    x = torch.eye(32, dtype=dtype, device=device)
    providers: dict[str, Callable[..., torch.Tensor]] = {}
    candidates: dict[str, Callable[..., torch.Tensor]] = {"torch": torch.nn.functional.linear}
    if device == "cpu":
        candidates["onednn"] = _onednn
    for name, product in candidates.items():
        try:
            right = torch.equal(product(x, x), x)
        except (RuntimeError, NotImplementedError, AttributeError):  # no such op, or not for this dtype
            continue
        if right:
            providers[name] = product
    return providers


def _largest(
    product: Callable[..., torch.Tensor], dtype: torch.dtype, device: str
) -> tuple[int, Callable[[], torch.Tensor]]:
    """The largest product whose repetitions fit the time: it doubles as long as an eightfold would."""
    for side in SIDES:
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        call = functools.partial(product, a, b)
        call()
        once = min(_once(call, device) for _ in range(3))
        if 8 * once * (REPETITIONS + 1) > TIME_EACH:
            break
    return side, call


def _sizes(device: str) -> dict[str, int]:
    """Bytes of what is copied and exponentiated: a GPU has one cache, too large for launches to count."""
    if device == "cpu":
        return {**COPIES, "exp": EXP_BYTES}
    quarter = torch.cuda.get_device_properties(device).L2_cache_size // 4
    return {"memory": 1 << 30, "cache": quarter, "exp": quarter}


def _copy_rate(size: int, device: str, conditions: Conditions) -> dict[str, Any]:
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    return _timed(lambda: target.copy_(source), device, conditions).rate("bytes_per_s", 2 * size)


def _exp_rate(size: int, device: str, conditions: Conditions) -> dict[str, Any]:
    x = torch.randn(size // 4, device=device)
    target = torch.empty_like(x)
    return _timed(lambda: torch.exp(x, out=target), device, conditions).rate("elements_per_s", x.numel())


def _once(call: Callable[[], Any], device: str, calls: int = 1) -> float:
    """Seconds a call over some calls."""
    if device != "cpu":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        call()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return (time.perf_counter() - start) / calls


class Timed(NamedTuple):
    """The fewest seconds a call, the relative spread of the repetitions, and whether all were disturbed."""

    seconds: float
    spread: float
    disturbed: bool

    def rate(self, name: str, work: float) -> dict[str, Any]:
        """So much work a second, with the spread and the doubt."""
        return {name: work / self.seconds, "spread": self.spread, "disturbed": self.disturbed}


def _timed(call: Callable[[], Any], device: str, conditions: Conditions) -> Timed:
    """The fastest of the series until one is clean; after a warm-up, repetitions of a millisecond or more."""
    call()
    once = min(_once(call, device) for _ in range(3))
    calls = max(1, int(1e-3 / max(once, 1e-9)) + 1)
    found = [_series(call, device, calls, conditions)]
    while found[-1].disturbed and next(conditions.retakes, None) is not None:
        time.sleep(REST_S)
        found.append(_series(call, device, calls, conditions))
    return min(found)._replace(disturbed=found[-1].disturbed)


def _series(call: Callable[[], Any], device: str, calls: int, conditions: Conditions) -> Timed:
    """Some repetitions, and whether others had the cores meanwhile."""
    samples: list[float] = []
    shares: list[float] = []  # of a repetition in which this thread had a core
    slow = conditions.slow()
    begin = time.perf_counter()
    with neighbours(torch.get_num_threads()) as others:
        while len(samples) < 3 or (len(samples) < REPETITIONS and time.perf_counter() - begin < TIME_EACH):
            worked = time.thread_time()
            samples.append(_once(call, device, calls))
            shares.append((time.thread_time() - worked) / (samples[-1] * calls))
    low, middle, high = quantiles(samples, n=4)
    waited = device == "cpu" and shares[samples.index(min(samples))] < CLEAN  # a GPU's is waited for
    return Timed(min(samples), (high - low) / middle, waited or others.disturb or slow or conditions.slow())
