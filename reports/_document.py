"""What a report says, in order, whatever it is set in: sections of paragraphs, tables and pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from effbench.frame import NOT_YET, Run
from effbench.lines import once_a_run
from effbench.metrics import METRICS
from effbench.ranking import Ranking, points
from effbench.words import counted, share

from ._answers import growth_tables, memory_table, ranking_tables, rivalry_tables
from ._beside import beside_blocks
from ._figures import Picture, plots, ranked, settings_left_out
from ._findings import findings
from ._machine import plain, rows, sentence
from ._methods import methods
from ._tables import (
    Table,
    failed_table,
    flagged_table,
    mechanism_table,
    missing_table,
    point_table,
    scaling_table,
    status_table,
    tabulated,
)
from ._views import View, views

Block = str | Table | Picture


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it; a ``str`` is a paragraph."""

    title: str
    blocks: Sequence[Block]

    @property
    def kinds(self) -> list[tuple[str, Block]]:
        """Each block with what it is, for the templates."""
        names = {str: "paragraph", Table: "table", Picture: "picture"}
        return [(names[type(block)], block) for block in self.blocks]


@dataclass(frozen=True)
class Document:
    """A whole report."""

    title: str
    sections: Sequence[Section]


@once_a_run
def document(run: Run) -> Document:
    """The report of a run, finished or not."""
    shown = views(run)
    sections = [
        Section("What was found", [*findings(run), COST_IS_NOT_QUALITY]),
        *answers(run),
        Section("Numbers", _tables(run, shown) or ["The plan of this run is empty."]),
        *([Section("Beside another run", beside_blocks(run, run.beside))] if run.beside else []),
        Section("Plots", _plots(run)),
        Section("Mechanisms", [mechanism_table(run)]),
        Section("What was run", [_what(run), sentence(run.machine)]),
        Section(
            "How it was measured",
            _how(run),
        ),
        Section("How the cells ended", [_counts(run), status_table(run)]),
        Section("Cells without numbers", _failed(run)),
        Section("Flagged cells", _flagged(run)),
        *([Section("Missing numbers", [missing_table(run)])] if missing_table(run).rows else []),
    ]
    return Document(run.info.get("title") or run.info.get("suite") or "effbench run", sections)


COST_IS_NOT_QUALITY = (
    "Cost is not quality: these numbers say what a mechanism costs, not how well a model learns with it. "
    "Mechanisms that compute different functions are not exchangeable without training."
)

METHOD = (
    "Every visit to a cell and every question (time, memory, counts) has a fresh process of its own. Time "
    "is the median over processes of each process' median; its 95 % interval is a hierarchical bootstrap "
    "that draws processes first and moving blocks of passes second. On a CPU, samples taken while the cores "
    "worked below their best, next to such, or while threads waited for one, have no say; of a cell that "
    "has no others (flag: slowed) those speak that were hindered least; its interval reaches down to what "
    "they may have been without, and comparisons allow for it. Where a cell was measured in one process "
    "only, the interval borrows the process-to-process spread pooled over this run (flag: borrowed), and "
    "where that process timed one pass, the pass-to-pass spread too (flag: few-samples).",
    "Memory is what was in place before the call (inputs and parameters) plus the resident peak above it. "
    "FLOPs are counted operation by operation (declared ones where nothing could be counted); a "
    "multiply-add is 2, and transcendentals are counted apart.",
)


def answers(run: Run) -> Iterator[Section]:
    """The answer at a point, how cost grows, and where a mechanism overtakes the baseline."""
    tables = [table for ranking in points(run) for table in _point(run, ranking)]
    named: tuple[tuple[str, Sequence[Block]], ...] = (
        ("The answer at a point", [*ranked(run), *tables]),
        ("How cost grows", growth_tables(run)),
        ("Where the baseline is overtaken", rivalry_tables(run)),
    )
    yield from (Section(title, blocks) for title, blocks in named if blocks)


def _point(run: Run, ranking: Ranking) -> list[Table]:
    return [*ranking_tables(run, ranking), memory_table(run, ranking)]


def _what(run: Run) -> str:
    frame, info = run.frame, run.info
    names = list(dict.fromkeys(frame["mechanism"]))
    text = f"{counted(len(names), 'mechanism')} ({', '.join(names)}) in {counted(len(frame), 'cell')}"
    text += f" of the suite {info['suite']}" if info.get("suite") else ""
    text += f", by: {info['command']}." if info.get("command") else "."
    if info.get("state", "finished") != "finished":
        waiting = int((frame["reason"] == NOT_YET).sum())
        unanswered = share(waiting, len(frame), "has", "have")
        text += f" The run is not complete ({info['state']}): {unanswered} no answer yet."
    return text


def _how(run: Run) -> list[Block]:
    for_a_paper = f"For a paper: {methods(run)}"
    return [*METHOD, for_a_paper, _facts(run), *_ceilings(run), *_circumstances(run)]


def _counts(run: Run) -> str:
    counts = Counter(run.frame["status"])
    others = len(run.frame) - counts["ok"]
    text = f"{share(counts['ok'], len(run.frame), 'has', 'have')} numbers"
    return f"{text}; {others} ended otherwise, for the reasons below." if others else f"{text}."


def _tables(run: Run, shown: Sequence[View]) -> list[Block]:
    """One table a metric and setting along a length or width, one a setting for single points."""
    scaling: list[Block] = [
        scaling_table(view, name) for name in tabulated(run) for view in shown if view.along
    ]
    return scaling + [point_table(run, view) for view in shown if not view.along]


def _plots(run: Run) -> list[Block]:
    drawn: list[Block] = list(plots(run))
    if left_out := settings_left_out(run):
        stand = "stands" if left_out == 1 else "stand"
        drawn.append(f"{counted(left_out, 'more setting')} {stand} in the tables only: too many to draw.")
    return drawn or ["Nothing to plot: no mechanism has numbers at two lengths or widths of one setting."]


def _facts(run: Run) -> Table:
    info = run.info
    more = {name: info.get(name) for name in ("limits", "seed", "effbench", "environment")}
    return Table("", ["Fact", "Value"], rows({**run.machine, **more}))


def _ceilings(run: Run) -> Iterator[Table]:
    """What the machine can do, as measured in the same run."""
    found = [[" ".join(path), _rate(leaf), _doubt(leaf)] for path, leaf in _leaves(run.ceilings, ())]
    if found:
        header = ["Ceiling", "Rate", "Spread"]
        yield Table("Ceilings of this machine, measured in the same run", header, found)


def _doubt(leaf: dict[str, Any]) -> str:
    """The spread of a ceiling, and whether it was taken only while something else ran."""
    spread = "" if leaf.get("spread") is None else f"{leaf['spread']:.1%}"
    return f"{spread}, disturbed" if leaf.get("disturbed") else spread


def _rate(leaf: dict[str, Any]) -> str:
    name = next(name for name in leaf if name.endswith("_per_s"))
    if name == "bytes_per_s":
        return f"{METRICS['live_bytes'].text(leaf[name])}/s"
    if name == "flops_per_s":
        return METRICS["flops_per_s"].text(leaf[name])
    return f"{METRICS['params'].text(leaf[name])} {name.removesuffix('_per_s')}/s"


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    if not isinstance(tree, dict):
        return
    if any(name.endswith("_per_s") and value for name, value in tree.items()):
        yield path, tree
        return
    for name, branch in tree.items():
        yield from _leaves(branch, (*path, str(name)))


def _circumstances(run: Run) -> Iterator[Table]:
    stays = run.info.get("circumstances", [])
    header = list(dict.fromkeys(name for stay in stays for name in stay))
    if header:
        found = [[plain(stay.get(name)) for name in header] for stay in stays]
        yield Table("When and in what circumstances", header, found)


def _failed(run: Run) -> list[Block]:
    table = failed_table(run)
    return [table] if table.rows else ["Every cell has numbers."]


def _flagged(run: Run) -> list[Block]:
    table = flagged_table(run)
    return [table] if table.rows else ["No cell carries a flag."]
