"""Colour, marker and dash of a mechanism: a function of its name alone.

The rule: SHA-256 of ``SALT`` and the name picks a colour, a marker and a dash, independently of one
another. So a mechanism looks the same in every figure of every run on every machine, whichever others
are there, and nobody has to be asked for a colour. Two names may meet in a colour; then marker or dash
tells them apart (one pair in 480 meets in all three), and every line has its label anyway. ``SALT`` was
searched for once so that the mechanisms of the README get ten different colours; changing it repaints
every published figure.

Several option values of one mechanism share its colour, and the first four its marker; the dash and an
empty marker tell them apart, in the order in which the run lists them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

SALT = 346801
#: Dots an inch of a figure.
DPI = 200

#: Okabe and Ito's colours without yellow (too faint on white), then dark ones of Paul Tol's "muted".
COLOURS = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#D55E00",
    "#000000",
    "#882255",
    "#999933",
    "#332288",
    "#7F7F7F",
    "#117733",
)
MARKERS = ("o", "s", "^", "v", "D", "P", "X", "<", ">", "*")
DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))

#: What each of ``COLOURS`` becomes on a dark ground: the same hue, light enough.
DARK_COLOURS = (
    "#4DA6E0",
    "#F0B030",
    "#2FC79B",
    "#E29CC8",
    "#8FD3F8",
    "#FF8A3D",
    "#FFFFFF",
    "#E06A98",
    "#CFCF66",
    "#A59AF2",
    "#ABABAB",
    "#5FC27C",
)


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn on: how wide (inches), on which ground, and at which share of the full size."""

    width: float = 8.0
    scale: float = 1.0
    dark: bool = False

    @property
    def ground(self) -> str:
        return "#0D1117" if self.dark else "#FFFFFF"

    @property
    def ink(self) -> str:
        return "#E6EDF3" if self.dark else "#222222"

    @property
    def faint(self) -> str:
        return "#9DA7B1" if self.dark else "#666666"

    @property
    def grid(self) -> str:
        return "#2D333B" if self.dark else "#DDDDDD"

    def colour(self, look: Look) -> str:
        """The colour of a series here."""
        return look.dark if self.dark else look.colour


@dataclass(frozen=True)
class Look:
    """How one series is drawn."""

    colour: str
    dark: str  # its colour on a dark ground
    marker: str
    dash: str | tuple[float, tuple[float, ...]]
    hollow: bool = False


def look(mechanism: str, variant: int = 0) -> Look:
    """The look of a mechanism; ``variant`` counts its option values within a run."""
    digest = hashlib.sha256(f"{SALT}:{mechanism}".encode()).digest()
    return Look(
        colour=COLOURS[digest[0] % len(COLOURS)],
        dark=DARK_COLOURS[digest[0] % len(COLOURS)],
        marker=MARKERS[(digest[1] + variant // len(DASHES)) % len(MARKERS)],
        dash=DASHES[(digest[2] + variant) % len(DASHES)],
        hollow=variant % 2 == 1,
    )


#: 1600 pixels across at 200 dots an inch, legible when shown at 800; the same for dark pages.
LIGHT, DARK = Sheet(), Sheet(dark=True)
#: One column of a paper.
COLUMN = Sheet(width=3.35, scale=0.68)
