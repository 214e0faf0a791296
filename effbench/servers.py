"""The fork servers of a run: one for each kind of question, number of threads and allocator."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from effbench import perf
from effbench.cell import Cell
from effbench.environment import server_environment
from effbench.nursery import Nursery
from effbench.processes import PROGRAM, Leaving, Server

_NURSERIES = 16  # of a server; each has pages of its own for some 10 MB


class FixedServer(Server):
    """A server whose children have the same addresses in every run, where the system allows it."""

    def spawn(self) -> None:
        """Start it so."""
        with perf.fixed_layout():
            super().spawn()


class Servers:
    """Started when first needed, or all at once before anything is timed."""

    def __init__(self, program: Sequence[str] = PROGRAM, folder: Path | None = None) -> None:
        """``program`` and ``folder`` say how and where each server is started."""
        self._program, self._folder = program, folder
        self._servers: dict[tuple[str, int, str, int], Server] = {}
        self._leaving: Leaving = {}
        self._nurseries: dict[tuple[Server, str], Nursery] = {}
        self._compiled: tempfile.TemporaryDirectory[str] | None = None
        self.instructions_missing = perf.missing(perf.INSTRUCTIONS)  # why; None where they can be counted

    def get(self, kind: str, *, threads: int, allocator: str, replicate: int = 0) -> Server:
        """The server for a kind of question; ``replicate`` tells apart several of one kind."""
        allocator = allocator if kind == "time" else "default"  # the others have settings of their own
        key = (kind, threads, allocator, replicate)
        if key not in self._servers:
            settings = server_environment(kind, threads=threads, allocator=allocator)
            settings["TORCHINDUCTOR_CACHE_DIR"] = self._cache()
            make = FixedServer if kind == "instructions" else Server
            self._servers[key] = make(kind, settings, self._program, self._folder, self._leaving)
        return self._servers[key]

    def knowing(self, server: Server, load: Mapping[str, Any], *, log: Path, allow: float) -> Server:
        """Where to ask about a mechanism: among children that have it loaded. ``load`` asks for that."""
        key = (server, load["spec"])
        if key not in self._nurseries:
            if sum(other is server for other, _ in self._nurseries) == _NURSERIES:
                return server
            self._nurseries[key] = Nursery(server, load, log=log, allow=allow)
        return self._nurseries[key]

    def _cache(self) -> str:
        """Where compiled code is kept: for all servers of a run, and empty when it starts."""
        if self._compiled is None:
            self._compiled = tempfile.TemporaryDirectory(prefix="effbench-compiled-")
        return self._compiled.name

    def start(self, cells: Sequence[Cell], rounds: int) -> None:
        """Start every server that visits to these cells will need, all at once, before anything is timed."""
        kinds = [("memory", 0), ("counts", 0), *(("time", replicate) for replicate in range(rounds))]
        wanted = self.wanted(cells, kinds)
        if self.instructions_missing is None:
            wanted.append(self.get("instructions", threads=1, allocator="default"))
        start_all(wanted)

    def wanted(self, cells: Sequence[Cell], kinds: Iterable[tuple[str, int]]) -> list[Server]:
        """The servers of these kinds and replicates that visits to these cells will need."""
        settings = dict.fromkeys((cell.threads, cell.allocator) for cell in cells)
        return list(
            dict.fromkeys(
                self.get(kind, threads=threads, allocator=allocator, replicate=replicate)
                for threads, allocator in settings
                for kind, replicate in kinds
            )
        )

    def retire(self, kind: str) -> None:
        """End the servers of a kind."""
        for key in [key for key in self._servers if key[0] == kind]:
            self._stop(self._servers.pop(key))

    def stop(self) -> None:
        """End all of them."""
        for server in self._servers.values():
            self._stop(server)
        self._servers.clear()
        if self._compiled is not None:
            self._compiled.cleanup()
            self._compiled = None

    def _stop(self, server: Server) -> None:
        for key in [key for key in self._nurseries if key[0] is server]:
            self._nurseries.pop(key).stop()
        server.stop()


def start_all(servers: Iterable[Server]) -> None:
    """Start servers at the same time, and wait for all of them."""
    servers = list(servers)
    for server in servers:
        server.spawn()
    for server in servers:
        server.start()
