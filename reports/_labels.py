"""Where the labels of lines go: beside the lines' ends, moved apart where they would overlap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, in their order, at least ``gap`` apart, within [low, high] if they fit.

    Neighbours that are too close form a block centred on where its members want to be.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    blocks: list[list[float]] = []  # [sum of wanted starts, members]: a block starts at their mean
    for position, index in enumerate(order):
        blocks.append([wanted[index] - position * gap, 1])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, members = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += members
    highest = high - (len(wanted) - 1) * gap
    starts = [total / members for total, members in blocks for _ in range(int(members))]
    placed = [0.0] * len(wanted)
    for position, index in enumerate(order):
        placed[index] = max(low, min(starts[position], highest)) + position * gap
    return placed


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def holds(self, x: float, y: float) -> bool:
        return self.left <= x <= self.right and self.bottom <= y <= self.top

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of this box that is closest to another."""
        return min(max(x, self.left), self.right), min(max(y, self.bottom), self.top)

    def meets(self, other: Box) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.bottom < other.top and other.bottom < self.top


def quietest(places: Sequence[Box], boxes: Sequence[Box], points: Sequence[tuple[float, float]]) -> Box:
    """The place that meets no other box if there is one, and hides the fewest points; the first of equals."""

    def cost(place: Box) -> tuple[int, int]:
        return sum(place.meets(box) for box in boxes), sum(place.holds(x, y) for x, y in points)

    return min(places, key=cost)
