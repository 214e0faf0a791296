"""A map of which mechanism is fastest over length and width, with ties marked as ties."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from effbench.against import product_of
from effbench.frame import AXES, Run
from effbench.metrics import step_label
from effbench.plausibility import sound
from effbench.words import setting_title

from ._annotations import TEXT
from ._lines import variants_of
from ._panel import name_axes, panel
from ._style import DPI, Sheet, look

#: Behind a name: a flag puts its time in doubt; not everyone there multiplied matrices with the same code.
DOUBT, OTHER_PRODUCT = "†", "‡"
#: A map is drawn where so large a share of its squares was measured.
FILLED = 0.6


@dataclass(frozen=True)
class Square:
    """The fastest at one length and width, and whoever's interval overlaps its own."""

    seq: int
    dim: int
    mechanism: str
    label: str
    ties: tuple[str, ...] = ()
    remark: str = ""  # DOUBT, OTHER_PRODUCT or nothing


def winners(run: Run) -> Iterator[tuple[str, str, Callable[[Sheet], Figure]]]:
    """Name, title and drawing for each setting that was measured over lengths times widths."""
    fixed = [axis for axis in AXES[2:] if axis not in ("seq", "dim", "heads")]
    frame = run.frame.assign(series=run.series)
    frame["product"] = [product_of(run, i) for i in frame["id"]]
    kept = frame[frame["status"] == "ok"]
    if kept.empty:
        return
    groups = list(kept.groupby(fixed, sort=True))
    for number, (values, rows) in enumerate(groups):
        seqs, dims = rows["seq"].nunique(), rows["dim"].nunique()
        contested = int((rows.groupby(["seq", "dim"]).size() > 1).sum())
        if min(seqs, dims, rows["series"].nunique()) < 2 or contested < FILLED * seqs * dims:
            continue
        squares = squares_of(rows)
        setting = setting_title(dict(zip(fixed, values, strict=True)))
        title = "Fastest by length and width"
        yield (
            f"fastest{f'-{number + 1}' * (len(groups) > 1)}",
            f"{title} ({setting})",
            partial(_draw, run, squares, setting, title),
        )


def squares_of(rows: pd.DataFrame) -> list[Square]:
    """The fastest of each length and width where at least two were measured."""
    found = []
    for _, here in rows.groupby(["seq", "dim"]):
        here = here.sort_values("time_s")
        if len(here) < 2:
            continue
        first, others = here.iloc[0], here.iloc[1:]
        reach = first["time_high_s"] if pd.notna(first["time_high_s"]) else first["time_s"]
        lowest = others["time_low_s"].fillna(others["time_s"])
        ties = tuple(others["series"][lowest <= reach])
        remark = "" if sound({"status": "ok", "flags": first["flags"]}, "time_s") else DOUBT
        remark += OTHER_PRODUCT if len(set(here["product"]) - {""}) > 1 else ""
        found.append(
            Square(int(first["seq"]), int(first["dim"]), first["mechanism"], first["series"], ties, remark)
        )
    return found


def _draw(run: Run, squares: list[Square], setting: str, title: str, sheet: Sheet) -> Figure:
    seqs, dims = sorted({one.seq for one in squares}), sorted({one.dim for one in squares})
    figure, axes = panel(title, setting, sheet, height=max(1.4, 0.62 * len(dims)), right=0.2)
    variants = variants_of(run)
    texts = [_text(one) for one in squares]
    letters = max(len(line) for text in texts for line in text.split("\n"))
    rows = max(len(text.split("\n")) for text in texts)
    wide, high = (axes.bbox.width / len(seqs), axes.bbox.height / len(dims))
    size = min(TEXT * sheet.scale, 0.88 * 72 / DPI * min(wide / (0.62 * letters), high / (1.25 * rows)))
    for one, text in zip(squares, texts, strict=True):
        x, y = seqs.index(one.seq), dims.index(one.dim)
        colour = sheet.colour(look(one.mechanism, variants[one.label]))
        axes.add_patch(
            Rectangle(
                (x + 0.03, y + 0.03),
                0.94,
                0.94,
                facecolor=(*_rgb(colour), 0.18),
                edgecolor=colour,
                linewidth=(0.8 if one.ties else 2) * sheet.scale,
                linestyle=(0, (2, 2)) if one.ties else "solid",
            )
        )
        axes.text(
            x + 0.5,
            y + 0.5,
            text,
            ha="center",
            va="center",
            size=size,
            color=sheet.ink,
            parse_math=False,
        )
    axes.set_xlim(0, len(seqs))
    axes.set_ylim(0, len(dims))
    axes.set_xticks([n + 0.5 for n in range(len(seqs))], [step_label("seq", seq) for seq in seqs])
    axes.set_yticks([n + 0.5 for n in range(len(dims))], [step_label("dim", dim) for dim in dims])
    axes.tick_params(length=0)
    axes.set_ylabel("Width", size=TEXT * sheet.scale, color=sheet.ink)
    for spine in axes.spines.values():
        spine.set_visible(False)
    used = "".join(one.remark for one in squares)
    remarks = {
        "tie": "tie: 95 % intervals overlap",
        DOUBT: f"{DOUBT} flagged",
        OTHER_PRODUCT: f"{OTHER_PRODUCT} other matrix product",
    }
    said = [
        text
        for mark, text in remarks.items()
        if mark in used or (mark == "tie" and any(q.ties for q in squares))
    ]
    name_axes(figure, axes, sheet, "Sequence length", "; ".join(said))
    return figure


def _text(one: Square) -> str:
    """Who is named in a square: the fastest, or two of those that tie and how many more."""
    text = one.label if not one.ties else f"tie: {one.label}, {one.ties[0]}"
    more = len(one.ties) - 1
    return _broken(text + (f" +{more}" if more > 0 else "") + (one.remark and f" {one.remark}"))


def _broken(text: str) -> str:
    """A name on lines of a square's width."""
    lines = [""]
    for part in text.replace("-", "-\0").replace(" ", " \0").split("\0"):
        if lines[-1] and len(lines[-1]) + len(part.strip()) > 12:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def _rgb(colour: str) -> tuple[float, float, float]:
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    return red, green, blue
