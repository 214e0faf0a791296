"""How long the fixed works of ``meters/cores`` take at best on this machine, kept from run to run.

A run that falls whole into a slow time cannot know that it did: what earlier runs saw tells it. The file is a
cache of the user's; without it a run knows its own readings only.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from platformdirs import user_cache_path

from effbench.calm import Pace, best

_RUNS = 50  # that are remembered: a machine that became slower for good is known to be so after as many
_LEAST = 10  # readings that make a run worth remembering


@dataclass
class Paces:
    """Seconds of the fixed works: the best of earlier runs, by threads, and the readings of this one."""

    earlier: Mapping[int, Sequence[Pace]] = field(default_factory=dict)
    readings: dict[int, list[Pace]] = field(default_factory=dict)

    def learn(self, threads: int, readings: Sequence[Pace | None] | None) -> None:
        """Take note of what a visit read."""
        known = self.readings.setdefault(threads, [])
        known += [pace for pace in readings or () if pace is not None]

    def best(self, threads: int) -> Pace | None:
        """At their best, as far as known; None where nothing is.

        What a run remembers is no luck: a tenth of its readings reached it. So the best of runs is the least.
        """
        seen = (*self.earlier.get(threads, ()), best(self.readings.get(threads, ())))
        known = [pace for pace in seen if pace is not None]
        return tuple(map(min, zip(*known, strict=False))) or None

    def all(self) -> dict[int, Pace]:
        """The best for each number of threads."""
        found = {threads: self.best(threads) for threads in {*self.earlier, *self.readings}}
        return {threads: seconds for threads, seconds in found.items() if seconds is not None}


def recall(environment: str) -> Paces:
    """What earlier runs in this environment saw; nothing where the file is missing or damaged."""
    return Paces({int(threads): seen for threads, seen in _read().get(environment, {}).items()})


def remember(environment: str, paces: Paces) -> None:
    """Add this run's best to what is remembered; a folder that cannot be written to is passed over."""
    kept = _read()
    seen = kept.setdefault(environment, {})
    for threads, readings in paces.readings.items():
        if len(readings) >= _LEAST:
            seen[str(threads)] = [*seen.get(str(threads), ()), best(readings) or ()][-_RUNS:]
    path = _path()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(kept, indent=1) + "\n")
        draft.replace(path)


def _path() -> Path:
    return user_cache_path("effbench") / "paces.json"


def _read() -> dict[str, dict[str, list[Pace]]]:
    try:
        kept = json.loads(_path().read_text())
        return {
            environment: {
                threads: [tuple(map(float, pace)) for pace in seen] for threads, seen in by_threads.items()
            }
            for environment, by_threads in kept.items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
