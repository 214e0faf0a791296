"""The frame that every figure shares: a title, the setting below it, one pair of axes."""

from __future__ import annotations

from textwrap import wrap

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ._annotations import ROW, SMALL, TEXT, text_size
from ._style import DPI, Sheet

#: Inches at full size.
LEFT, BOTTOM, TOP, HEIGHT = 0.98, 0.72, 0.78, 4.1
#: Points at full size.
LARGE = 12.0


def panel(
    title: str,
    setting: str,
    sheet: Sheet,
    *,
    height: float = HEIGHT,
    right: float = 0.3,
    left: float = LEFT,
    above: float = 0.0,
    remark: str = "",
) -> tuple[Figure, Axes]:
    """A figure and its axes; ``above`` is kept free between axes and title. Inches at full size.

    ``remark`` is what ``name_axes`` will write; left out, it has one line.
    """
    bottom = BOTTOM + ROW * (len(_lines(remark, sheet)) - 1 if remark else 0)
    letters = int(12.5 * sheet.width / sheet.scale)
    heading, lines = wrap(title, int(letters * 0.58)), wrap(setting, letters)
    head = TOP + 0.16 * (len(lines) - 1) + 0.2 * (len(heading) - 1)
    total = (bottom + height + above + head) * sheet.scale
    figure = Figure(figsize=(sheet.width, total), dpi=DPI, facecolor=sheet.ground)
    FigureCanvasAgg(figure)
    wide = sheet.width / sheet.scale
    box = (
        left / wide,
        bottom * sheet.scale / total,
        1 - (left + right) / wide,
        height * sheet.scale / total,
    )
    axes = figure.add_axes(box, facecolor=sheet.ground)
    down = 0.3
    for number, text in enumerate([*heading, *lines]):
        large = number < len(heading)
        figure.text(
            min(left, LEFT) / wide,
            1 - down * sheet.scale / total,
            text,
            size=(LARGE if large else SMALL) * sheet.scale,
            weight="bold" if large else "normal",
            color=sheet.ink if large else sheet.faint,
            parse_math=False,
        )
        down += 0.22 if number == len(heading) - 1 else 0.2 if large else 0.16
    axes.tick_params(
        labelsize=TEXT * sheet.scale,
        colors=sheet.ink,
        width=0.8 * sheet.scale,
        length=3.5 * sheet.scale,
        pad=3.5 * sheet.scale,
    )
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(sheet.faint)
        spine.set_linewidth(0.8 * sheet.scale)
    axes.set_axisbelow(True)
    return figure, axes


def name_axes(figure: Figure, axes: Axes, sheet: Sheet, x: str, remark: str = "") -> None:
    """The name of the x axis, and a remark below it that ends where the axes do, a long one later."""
    axes.set_xlabel(x, size=TEXT * sheet.scale, color=sheet.ink, labelpad=3 * sheet.scale)
    inch = DPI * sheet.scale
    lines = _lines(remark, sheet)
    length = max((text_size(line, sheet)[0] for line in lines), default=0.0)
    for number, line in enumerate(lines):
        figure.text(
            max(axes.bbox.x1, length) / figure.bbox.width,
            (axes.bbox.y0 - (0.57 + number * ROW) * inch) / figure.bbox.height,
            line,
            size=SMALL * sheet.scale,
            color=sheet.faint,
            ha="right",
            va="center",
        )


def _lines(remark: str, sheet: Sheet) -> list[str]:
    """A remark on as many lines as the sheet needs, broken between its parts."""
    lines: list[str] = []
    for part in remark.split("; ") if remark else []:
        longer = f"{lines[-1]}; {part}" if lines else part
        if lines and text_size(longer, sheet)[0] < sheet.width * DPI:
            lines[-1] = longer
        else:
            lines.append(part)
    return lines
