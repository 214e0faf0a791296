"""The fork servers of a run: one for each kind of question, number of threads and allocator."""

from __future__ import annotations

from collections.abc import Sequence

from effbench.cell import Cell
from effbench.environment import server_environment
from effbench.processes import Server


class Servers:
    """Started when first needed, or all at once before anything is timed."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, int, str, int], Server] = {}

    def get(self, kind: str, *, threads: int, allocator: str, replicate: int = 0) -> Server:
        """The server for a kind of question; ``replicate`` tells apart several of one kind."""
        allocator = allocator if kind == "time" else "default"  # the others have settings of their own
        key = (kind, threads, allocator, replicate)
        if key not in self._servers:
            self._servers[key] = Server(kind, server_environment(kind, threads=threads, allocator=allocator))
        return self._servers[key]

    def start(self, cells: Sequence[Cell], rounds: int) -> None:
        """Start every server that visits to these cells will need, all at once, before anything is timed."""
        settings = dict.fromkeys((cell.threads, cell.allocator) for cell in cells)
        kinds = [("memory", 0), ("counts", 0), *(("time", replicate) for replicate in range(rounds))]
        wanted = [
            self.get(kind, threads=threads, allocator=allocator, replicate=replicate)
            for threads, allocator in settings
            for kind, replicate in kinds
        ]
        for server in wanted:
            server.spawn()
        for server in wanted:
            server.start()

    def stop(self) -> None:
        """End all of them."""
        for server in self._servers.values():
            server.stop()
        self._servers.clear()
