"""Statistics of times: pure functions on lists of seconds, no clock and no table.

A *group* is what one process measured, in the order in which it was measured. Passes of one process
resemble each other more than passes of different processes, so the process is the unit of replication:
the value of a cell is the median over processes of each process' median, and its interval comes from a
hierarchical bootstrap that draws processes first and moving blocks of their passes second.

Everything is seeded: the same samples give the same interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from statistics import median
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]
Groups = Sequence[Sequence[float]]

CONFIDENCE = 0.95
#: Resamples of a cell, and of the passes within one of its processes.
DRAWS, BLOCK_DRAWS = 1000, 200
#: A longer sequence of passes is condensed to so many medians of consecutive passes.
CONDENSED = 64
#: From so many processes on, a cell's own spread is trusted alone.
ENOUGH_PROCESSES = 5
#: The share of cells with the largest spread that does not enter the pooled spread.
TRIMMED = 0.05
#: So many passes of a process enter the pass-to-pass spread at most.
FEW_PASSES = 8


class Spread(NamedTuple):
    """How the times of a run differ: standard deviations of logs, as intervals borrow them.

    Where little was seen they are wider than what was seen, by as much as Student's distribution is wider
    than the normal one: 2.2 times for two cells with two processes each, 1.04 for thirty.

    ``processes``: between the medians of a cell's processes; None where no cell has several.
    ``passes``: between the passes of one process; None where each timed a single one, and then the former
    holds it already.
    ``rounds``: ``processes`` for a time by itself. What slows the machine for a while slows all cells of a
    round: the more of the spread the rounds explain, the more all cells together say no more than one.
    """

    processes: float | None
    passes: float | None
    rounds: float | None

    @staticmethod
    def pooled(cells: Sequence[Groups]) -> Spread:
        """That of all cells of a run, of each its processes in the order of the rounds."""
        processes, passes = _pooled(_process_medians(cells)), _pooled(_passes(cells))
        rounds = processes and (processes[0], _independent(_process_medians(cells)))
        return Spread(_widened(processes), _widened(passes), _widened(rounds))

    def of(self, groups: Groups) -> float | None:
        """What a cell borrows to be compared with others of its run, which each round disturbs alike.

        A single pass is off by its process and by itself, a median by its process.
        """
        return self._with_passes(self.processes, groups)

    def alone(self, groups: Groups) -> float | None:
        """What a cell borrows for its time by itself."""
        return self._with_passes(self.rounds, groups)

    def _with_passes(self, spread: float | None, groups: Groups) -> float | None:
        if spread is None or not groups or any(len(group) > 1 for group in groups):
            return spread
        return math.hypot(spread, self.passes or 0.0)


def median_of_medians(groups: Groups) -> float:
    """Seconds: the median over processes of each process' median."""
    return float(median(median(group) for group in groups))


def process_spread(cells: Iterable[Groups]) -> float | None:
    """The run's process-to-process spread: pooled standard deviation of log medians.

    None where no cell was measured by several processes. The noisiest cells are left out
    (``TRIMMED``), so that one disturbed cell does not widen all others.
    """
    found = _pooled(_process_medians(cells))
    return found and found[0]


def _process_medians(cells: Iterable[Groups]) -> list[list[float]]:
    return [[median(group) for group in groups] for groups in cells if len(groups) > 1]


def _passes(cells: Iterable[Groups]) -> list[Sequence[float]]:
    """Passes of each process that timed several: up to ``FEW_PASSES``, evenly taken.

    So short passes, of which there are thousands, do not speak for the long ones.
    """
    several = (group for groups in cells for group in groups if len(group) > 1)
    return [group[:: math.ceil(len(group) / FEW_PASSES)] for group in several]


def _pooled(samples: Sequence[Sequence[float]]) -> tuple[float, int] | None:
    """Standard deviation of the logarithm within each sample, pooled over all but the noisiest ones.

    With its degrees of freedom.
    """
    if not samples:
        return None
    kept = _without_noisiest(samples)
    freedoms = [len(values) - 1 for values in kept]
    variances = [np.var(np.log(values), ddof=1) for values in kept]
    return math.sqrt(float(np.average(variances, weights=freedoms))), sum(freedoms)


def _without_noisiest(samples: Sequence[Sequence[float]]) -> list[Sequence[float]]:
    ranked = sorted(samples, key=lambda values: float(np.var(np.log(values), ddof=1)))
    return ranked[: math.ceil(len(samples) * (1 - TRIMMED))]


def _independent(samples: Sequence[Sequence[float]]) -> float:
    """Degrees of freedom of the pooled spread where a round disturbs its cells alike (Satterthwaite 1946).

    Those of the rounds and those of what the rounds do not explain, by their shares of the sum of squares.
    """
    kept = _without_noisiest(samples)
    rounds = max(map(len, kept))
    off = np.full((len(kept), rounds), np.nan)  # logs less their cell's mean
    for row, values in zip(off, kept, strict=True):
        row[: len(values)] = np.log(values) - np.mean(np.log(values))
    total = float(np.nansum(off**2))
    common = float(np.nansum(np.nansum(off, axis=0) ** 2 / np.sum(~np.isnan(off), axis=0)))
    share = min(1.0, common / total) if total else 1.0
    rest = sum(len(values) - 1 for values in kept) - (rounds - 1)
    return 1 / (share**2 / (rounds - 1) + ((1 - share) ** 2 / rest if rest else 0.0))


def _widened(found: tuple[float, float] | None) -> float | None:
    if found is None:
        return None
    spread, freedom = found
    tail = (1 + CONFIDENCE) / 2
    return spread * float(special.stdtrit(freedom, tail) / special.ndtri(tail))


def median_interval(groups: Groups, spread: float | None = None, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of ``median_of_medians``, in seconds; None where nothing says how processes differ.

    ``spread`` is what a cell borrows from its run (``Spread.of``). One process needs it; two to four alone
    would claim too much (the range of three medians misses the truth one time in four), so
    there the wider of their own interval and the pooled one counts.
    """
    draws = _draws(groups, spread, seed)
    if draws is None:
        return None
    value = median_of_medians(groups)
    low, high = _bounds(draws)
    return min(low, value), max(high, value)


def ratio_interval(
    base: Groups, head: Groups, base_spread: float | None, head_spread: float | None, seed: int = 0
) -> tuple[float, float] | None:
    """The 95 % interval of head / base (both as ``median_of_medians``); None as in ``median_interval``."""
    below, above = _draws(base, base_spread, seed), _draws(head, head_spread, seed + 1)
    if below is None or above is None:
        return None
    return _bounds(above / below)


def _bounds(draws: Floats) -> tuple[float, float]:
    last = len(draws) - 1
    tail = last * (1 - CONFIDENCE) / 2
    low, high = np.interp([tail, last - tail], np.arange(len(draws)), np.sort(draws))
    return float(low), float(high)


def _draws(groups: Groups, spread: float | None, seed: int) -> Floats | None:
    return _cached_draws(tuple(map(tuple, groups)), spread, seed)


@lru_cache(maxsize=1024)  # a baseline is held against every mechanism, a cell against all others of a point
def _cached_draws(groups: tuple[tuple[float, ...], ...], spread: float | None, seed: int) -> Floats | None:
    """Resampled values of the cell, in seconds."""
    if not groups or (len(groups) == 1 and spread is None):
        return None
    own = _bootstrap(groups, seed)
    if spread is None or len(groups) >= ENOUGH_PROCESSES:
        return own
    noise = np.exp(spread * _noise(len(groups), seed))
    if len(groups) == 1:
        return own * noise
    pooled = median_of_medians(groups) * noise
    return pooled if np.std(np.log(pooled)) > np.std(np.log(own)) else own


def _bootstrap(groups: Groups, seed: int) -> Floats:
    """Draws processes with replacement, then a resampled median of each process drawn."""
    medians = np.stack([_block_medians(group, seed) for group in groups])  # [processes, BLOCK_DRAWS]
    process, block = _picks(len(groups), seed)
    return _row_medians(medians[process, block])


def _block_medians(group: Sequence[float], seed: int) -> Floats:
    """Medians of resamples by moving blocks, which keep the order of neighbouring passes."""
    passes = np.asarray(group, dtype=np.float64)
    centre = median(group)
    if len(passes) > CONDENSED:
        width = len(passes) // CONDENSED
        passes = _row_medians(passes[: width * CONDENSED].reshape(CONDENSED, width))
    drawn: Floats = _row_medians(passes[_block_indices(len(passes), seed)]) * (
        centre / median(passes.tolist())
    )
    return drawn


def _row_medians(values: Floats) -> Floats:
    """The median of each row; numpy's own takes several times as long for rows as short as these."""
    ordered, length = np.sort(values, axis=1), values.shape[1]
    middle: Floats = (ordered[:, (length - 1) // 2] + ordered[:, length // 2]) / 2
    return middle


@lru_cache(maxsize=256)
def _block_indices(length: int, seed: int) -> NDArray[np.int64]:
    """Indices [BLOCK_DRAWS, length] of moving blocks, each about the cube root of ``length`` long."""
    block = max(1, round(length ** (1 / 3)))
    starts = np.random.default_rng((seed, length)).integers(
        0, length - block + 1, size=(BLOCK_DRAWS, -(-length // block))
    )
    return (starts[:, :, None] + np.arange(block)).reshape(BLOCK_DRAWS, -1)[:, :length]


@lru_cache(maxsize=64)
def _picks(processes: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Which process and which of its resampled medians stands in each place of each draw."""
    random = np.random.default_rng((seed, processes, 1))
    size = (DRAWS, processes)
    return random.integers(0, processes, size=size), random.integers(0, BLOCK_DRAWS, size=size)


@lru_cache(maxsize=64)
def _noise(processes: int, seed: int) -> Floats:
    """Medians of so many standard normal values, one a draw."""
    return _row_medians(np.random.default_rng((seed, processes, 2)).standard_normal((DRAWS, processes)))
