"""Which figures a run gets: each only where the run has its data, drawn on the sheet that is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import BytesIO
from itertools import islice, zip_longest

from matplotlib.figure import Figure
from PIL import Image

from effbench.frame import Run
from effbench.lines import once_a_run

from ._bars import bars
from ._lines import lines_of
from ._roofline import roofline
from ._scaling import draw, quantity
from ._shares import shares
from ._speedup import speedup
from ._style import DPI, LIGHT, Sheet
from ._views import ALONG, View, views
from ._winners import winners

#: Metric -> how its files are called.
PLOTTED = {
    "time_s": "time",
    "total_bytes": "memory",
    "state_bytes": "state",
    "flops": "flops",
    "tokens_per_s": "throughput",
}
#: A report shows the pictures of so many settings; more would be neither looked at nor drawn in time.
MOST_SETTINGS = 4

Draw = Callable[[Sheet], Figure]


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure, drawn when it is needed."""

    name: str
    title: str
    draw: Draw = field(repr=False)

    @property
    def file(self) -> str:
        return f"{self.name}.png"

    @cached_property
    def png(self) -> bytes:
        return self.saved("png")

    def saved(self, form: str, sheet: Sheet = LIGHT) -> bytes:
        """The figure as png, svg or pdf; the same bytes whenever it is drawn."""
        figure, buffer = self.draw(sheet), BytesIO()
        if form == "png":
            return _indexed(figure)
        when = {"svg": "Date", "pdf": "CreationDate"}[form]
        figure.savefig(buffer, format=form, dpi=DPI, metadata={when: None})
        return buffer.getvalue()


def _indexed(figure: Figure) -> bytes:
    """A PNG of 256 colours: a third of the size, in half the time, and to the eye the same."""
    raw, buffer = BytesIO(), BytesIO()
    figure.savefig(raw, format="rgba", dpi=DPI)
    full = Image.frombytes("RGBA", figure.canvas.get_width_height(), raw.getvalue()).convert("RGB")
    indexed = full.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours, ground = indexed.getpalette() or [], indexed.getpixel((0, 0))
    assert isinstance(ground, int)
    colours[3 * ground : 3 * ground + 3] = full.getpixel((0, 0))  # the tree's mean may be off by one
    indexed.putpalette(colours)
    indexed.save(buffer, "png")
    return buffer.getvalue()


def pictures(run: Run) -> list[Picture]:
    """All of a run: the answers at its points as bars, then the plots."""
    return [*ranked(run), *plots(run)]


@once_a_run
def ranked(run: Run) -> list[Picture]:
    """The answer at each of some points, as bars."""
    return [Picture(*one) for one in bars(run, MOST_SETTINGS)]


@once_a_run
def plots(run: Run) -> list[Picture]:
    """The figures of some settings along lengths and widths, then those across them."""
    along = [picture for view in _chosen(run) for picture in _along(run, view)]
    across = [*islice(winners(run), MOST_SETTINGS), *islice(shares(run), MOST_SETTINGS)]
    return along + [Picture(*one) for one in across]


def settings_left_out(run: Run) -> int:
    """How many settings ``plots`` does not draw."""
    return max(0, sum(bool(view.along) for view in views(run)) - MOST_SETTINGS)


def _chosen(run: Run) -> list[View]:
    """``MOST_SETTINGS`` settings, by length and by width in turns; in the order of the tables."""
    lined = [view for view in views(run) if view.along]
    by_length, by_width = ([view for view in lined if view.along == along] for along in ALONG)
    turns = [view for pair in zip_longest(by_length, by_width) for view in pair if view is not None]
    return [view for view in lined if any(view is one for one in turns[:MOST_SETTINGS])]


def _along(run: Run, view: View) -> Iterator[Picture]:
    for name, called in PLOTTED.items():
        lines = lines_of(run, view, name)
        if any(len(line.points) > 1 for line in lines):
            what = quantity(name, view)
            yield Picture(
                f"{called}-by-{view.along}{view.suffix}",
                f"{what.title} ({view.title})",
                partial(draw, lines, view, what),
            )
    for one in (speedup(run, view), roofline(run, view)):
        if one is not None:
            yield Picture(*one)
