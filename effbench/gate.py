"""Measures two trees of files against each other, cell by cell, and says what became worse.

Sweep after sweep, each with fork servers started afresh on both sides, every cell is visited as a pair; what
looks worse after the first sweeps is measured again, with more pairs, before it is called. The records stay
in two run folders, ``base`` and ``head``, from which ``effbench compare`` gives the same verdict.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from effbench import revision
from effbench.cell import Cell
from effbench.errors import BadInput
from effbench.frame import Run, load_run
from effbench.judgement import USUAL, Rules, Verdict
from effbench.overlay import Tree, read_project
from effbench.paired import LOOKS, SCREENING
from effbench.runner import Watch
from effbench.session import Request, measure
from effbench.side import opened
from effbench.store import Store
from effbench.sweeps import Sweeps
from effbench.verdict import judge, suspects

#: Visits of a cheap cell that is compared with a stored run.
STORED_VISITS = 5
MEMORY = {"alloc_bytes", "peak_bytes"}


@dataclass(frozen=True, kw_only=True)
class Gated:
    """What a gate found: both runs, the verdict on them, and what a reader must know beside it."""

    base: Run
    head: Run
    verdict: Verdict
    remarks: Sequence[str] = ()


def gate(
    request: Request,
    base: str,
    *,
    setup: str = "",
    rules: Rules = USUAL,
    watch: Watch = lambda _: None,
) -> Gated:
    """Compare the working tree as it stands with the commit at which it left ``base``.

    Args:
        request: the question; ``out`` takes the folders ``base`` and ``head``.
        base: any name of a commit.
        setup: a shell command that builds each side, run at the project's place in each tree.

    Raises:
        BadInput: no repository, no such commit, a build that fails, or an unknown mechanism or option.
    """
    head = working_tree()
    top = Path(head.top)
    commit = revision.merge_base(top, base)
    with revision.checked_out(top, commit) as checkout:
        trees = [replace(head, top=str(checkout)), head]
        for tree in trees if setup else ():
            _build(setup, tree)
        remarks = [f"base is {commit[:12]}, where HEAD left {base}", *_changed_dependencies(*trees)]
        if not (changed := revision.changed_files(top, commit)):
            remarks.append("the trees are equal: whatever differs is noise")
        elif packages := _packaging(changed):
            remarks.append(f"{', '.join(packages)} changed, and both sides ran with what is installed here")
        found = compare_trees(request, trees, rules=rules, watch=watch)
        return replace(found, remarks=[*remarks, *advice(found)])


def working_tree() -> Tree:
    """The repository around the working directory, and the project in it that is nearest."""
    here = Path.cwd().resolve()
    top = revision.top_of(here)
    places = [place for place in (here, *here.parents) if place.is_relative_to(top)]
    project = next((place for place in places if (place / "pyproject.toml").is_file()), top)
    return Tree(str(top), str(top), str(project.relative_to(top)))


def compare_trees(
    request: Request,
    trees: Sequence[Tree],
    *,
    rules: Rules = USUAL,
    watch: Watch = lambda _: None,
    sweeps: int = SCREENING,
    again: bool = True,
) -> Gated:
    """Measure the same question in two trees, base first, in so many sweeps and ``again`` where in doubt."""
    folders = [request.out / name for name in ("base", "head")]
    with ExitStack() as stack:
        stores = [stack.enter_context(Store(folder)) for folder in folders]
        sides = [
            stack.enter_context(opened(folder.name, tree, request.budget, folder / "logs"))
            for folder, tree in zip(folders, trees, strict=True)
        ]
        asker = Sweeps(request, sides, stores, watch)
        with asker.recorded(folders):
            for number in range(sweeps):
                asker.sweep(number, asker.cells)
            for had, pairs in pairwise((0, *LOOKS) if again else ()):
                before, after = (load_run(folder) for folder in folders)
                doubtful = suspects(judge(before, after, rules))
                known = MEMORY if had else set()
                doubtful = {i: metrics - known for i, metrics in doubtful.items()}
                first = SCREENING + had
                for number in range(first, SCREENING + pairs):
                    asked = [c for c in asker.cells if _asked_again(doubtful, c, number == first)]
                    memory = {i for i, metrics in doubtful.items() if metrics & MEMORY and number == first}
                    asker.sweep(number, asked, memory)
        before, after = (load_run(folder) for folder in folders)
    return Gated(base=before, head=after, verdict=judge(before, after, rules))


def gate_stored(
    request: Request, baseline: Path, *, rules: Rules = USUAL, watch: Watch = lambda _: None
) -> Gated:
    """Compare the working tree with stored records: a run's folder, or a file in it.

    Time was measured at another moment, so it is judged from several visits a cell, and not at all between
    environments that differ, unless the rules say that it is advisory.
    """
    before = load_run(baseline if baseline.is_dir() else baseline.parent)
    often = replace(request.budget, rounds=((0.1, STORED_VISITS), (1.0, 3)))
    after = measure(
        replace(request, out=request.out / "head", budget=often, fresh=True, reports=()), watch=watch
    )
    verdict = judge(before, after, rules)
    remarks = [
        f"base is {baseline}, measured at another time: a difference of less than 30 % may be the machine's"
    ]
    if before.info.get("environment") != after.info.get("environment"):
        what = "compared for advice only, and never counts" if rules.advisory else "not compared"
        remarks.append(f"the environments differ, so time is {what}: {_differences(before, after)}")
    return Gated(base=before, head=after, verdict=verdict, remarks=remarks)


def advice(found: Gated) -> list[str]:
    """Advice where times stayed open that were taken on several threads."""
    still_open = {
        one.id for one in found.verdict.judgements if one.metric == "time_s" and one.call == "inconclusive"
    }
    frame = found.head.frame
    several = (frame["id"].isin(still_open) & (frame["threads"] > 1)).sum()
    return [f"{several} of the open times are of several threads: --threads 1 tells more"] if several else []


def _differences(before: Run, after: Run) -> str:
    """The facts of two environments that differ, by name."""
    names = [name for name in after.machine if after.machine[name] != before.machine.get(name)]
    return ", ".join(names) or "the stored run does not say in what"


def _asked_again(doubtful: Mapping[str, set[str]], cell: Cell, first: bool) -> bool:
    """A time in doubt needs many pairs, memory one more visit; nothing else changes from visit to visit."""
    metrics = doubtful.get(cell.id, set())
    return "time_s" in metrics or (first and bool(metrics & MEMORY))


def _build(command: str, tree: Tree) -> None:
    done = subprocess.run(command, shell=True, cwd=tree.root, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-5:]
        reason = "\n".join([f"--setup: ended with exit code {done.returncode} in {tree.root}", *lines])
        raise BadInput(reason)


def _changed_dependencies(base: Tree, head: Tree) -> list[str]:
    """What ``pyproject.toml`` of the two trees asks for otherwise; both run with what is installed."""
    before, after = (set(read_project(tree.root).dependencies) for tree in (base, head))
    if before == after:
        return []
    changes = [f"+ {line}" for line in sorted(after - before)] + [
        f"- {line}" for line in sorted(before - after)
    ]
    return [f"dependencies changed, and both sides ran with what is installed here: {'; '.join(changes)}"]


def _packaging(changed: Sequence[str]) -> list[str]:
    """The files among those changed that pin or build what a project runs with, ``pyproject.toml`` apart."""
    names = (
        "requirements",
        "constraints",
        "setup.py",
        "setup.cfg",
        "environment.yml",
        "uv.lock",
        "poetry.lock",
    )
    return [path for path in changed if Path(path).name.startswith(names)]
