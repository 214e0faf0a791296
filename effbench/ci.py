"""The commands for continuous integration. Imports stand where they are needed, as in ``cli``."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from effbench import options
from effbench.errors import FINE, NOTHING, WORSE, BadInput, NothingMeasured
from effbench.options import Text, option

if TYPE_CHECKING:
    from effbench.gate import Gated
    from effbench.session import Request
    from effbench.settings import Settings

#: Where ``effbench noise`` writes and ``effbench gate`` reads.
NOISE = Path("results/noise.json")
Suite = Annotated[
    Text, typer.Argument(help="A built-in suite, or the path of a TOML file; ci.", show_default=False)
]


def gate(
    suite: Suite = None,
    base: Annotated[
        Text, option("Compare with where HEAD left this revision, measured here and now.")
    ] = None,
    setup: Annotated[str, option("A command that builds each side, run in each tree.")] = "",
    mechanism: options.Mechanism = None,
    with_: options.With = None,
    option_: Annotated[list[str] | None, option("An option: aft-local.window=32..512", "--option")] = None,
    seq: options.Seq = None,
    dim: options.Dim = None,
    batch: options.Batch = None,
    heads: options.Heads = None,
    dtype: options.Dtype = None,
    mode: options.Mode = None,
    level: options.Level = None,
    stack: options.Stack = None,
    causal: options.Causal = None,
    device: options.Device = None,
    threads: options.Threads = None,
    compile_: options.Compile = False,
    gemm: options.Gemm = None,
    precision: options.Precision = None,
    allocator: options.Allocator = None,
    memory_limit: options.MemoryLimit = None,
    cell_timeout: options.CellTimeout = "60s",
    budget: options.Budget = None,
    out: Annotated[Path, option("Folder of both sides' records.")] = Path("results/gate"),
    baseline: Annotated[
        Path | None, option("Compare with a stored run: its folder, or a file in it.")
    ] = None,
    advisory: Annotated[
        bool, option("Compare time with another machine's too, without letting it count.", "--advisory")
    ] = False,
    markdown: Annotated[Path | None, option("Write the summary there, for a comment.")] = None,
    inconclusive: Annotated[Text, option("fail (exit code 3) or warn (0).")] = None,
    noise_file: Annotated[Path, option("The floors that effbench noise wrote.", "--noise")] = NOISE,
) -> None:
    """Say by exit code whether a change made anything slower, bigger or wrong: 1 worse, 3 inconclusive."""
    from effbench.gate import gate as measure
    from effbench.gate import gate_stored
    from effbench.noise import read_floors
    from effbench.settings import read_settings
    from effbench.terminal import watched

    if (base is None) == (baseline is None):
        raise BadInput("gate takes either --base REF or --baseline FILE")
    settings = read_settings(Path.cwd())
    tolerance = inconclusive or settings.inconclusive
    if tolerance not in ("fail", "warn"):
        raise BadInput(f"--inconclusive: {tolerance!r} is none of fail, warn")
    axes = options.axes(locals())
    request = _request(
        settings, suite, axes, mechanism, with_, option_, memory_limit, cell_timeout, budget, out
    )
    rules = settings.rules(read_floors(noise_file), advisory=advisory)
    with watched() as watch:
        if base is not None:
            found = measure(_halved(request), base, setup=setup, rules=rules, watch=watch)
        else:
            found = gate_stored(request, Path(str(baseline)), rules=rules, watch=watch)
    _announce(found, markdown)
    raise typer.Exit(_code(found, tolerance))


def noise(
    suite: Suite = None,
    mechanism: options.Mechanism = None,
    with_: options.With = None,
    option_: Annotated[list[str] | None, option("An option: aft-local.window=32..512", "--option")] = None,
    seq: options.Seq = None,
    dim: options.Dim = None,
    batch: options.Batch = None,
    dtype: options.Dtype = None,
    mode: options.Mode = None,
    level: options.Level = None,
    stack: options.Stack = None,
    causal: options.Causal = None,
    threads: options.Threads = None,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of each cell.")] = 12,
    out: Annotated[Path, option("Folder of both sides' records.")] = Path("results/noise"),
    noise_file: Annotated[Path, option("Where the floors go.", "--noise")] = NOISE,
) -> None:
    """Measure equal sides against each other: what a gate on this machine cannot tell from nothing."""
    from tabulate import tabulate

    from effbench.gate import compare_trees, working_tree
    from effbench.noise import floors_of, write_floors
    from effbench.settings import read_settings
    from effbench.terminal import watched

    settings = read_settings(Path.cwd())
    axes = options.axes(locals())
    request = _halved(_request(settings, suite, axes, mechanism, with_, option_, None, "60s", None, out))
    rules = settings.rules({})
    with watched() as watch:
        found = compare_trees(
            request, [working_tree()] * 2, rules=rules, watch=watch, sweeps=pairs, again=False
        )
    floors = floors_of(found.base, found.head, rules)
    if not floors:
        raise NothingMeasured(f"no cell could be measured on both sides; see {out}")
    write_floors(noise_file, str(found.head.info["environment"]), floors)
    rows = [
        [f.cell, f"{f.value:.1%}", "" if f.gateable else f"not gateable for time at {f.threshold:.0%}"]
        for f in floors
    ]
    print(tabulate(rows, ["cell", "A/A floor", ""], disable_numparse=True))
    print(f"\nwrote the floors of {len(floors)} cells on this machine to {noise_file}")


def merge(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Annotated[Path, option("The folder to write.")],
    apart: Annotated[
        bool, option("Of several machines write a folder each, inside the given one.", "--apart")
    ] = False,
) -> None:
    """Join runs into one; those of different machines only where they are kept apart."""
    from effbench.merge import merge as join

    for folder, sources in join(folders, out, apart=apart).items():
        print(f"wrote {folder} from {', '.join(map(str, sources))}")


def _request(
    settings: Settings,
    suite: str | None,
    axes: dict[str, Any],
    mechanism: str | None,
    added: list[str] | None,
    given: list[str] | None,
    memory_limit: str | None,
    cell_timeout: str,
    budget: str | None,
    out: Path,
) -> Request:
    """What was asked; what was not is taken from the settings, then from the suite ``ci``."""
    if mechanism is None and settings.mechanisms:
        mechanism = ",".join(settings.mechanisms)
    name = suite or settings.suite or "ci"
    return options.request(
        name, axes, mechanism, added or [], given or [], None, memory_limit, cell_timeout, budget, out
    )


def _halved(request: Request) -> Request:
    """Both sides are in memory at a time: each may take half of what a run's cell may."""
    budget = request.budget
    limits = ("memory_limit", "gpu_limit", "heap_limit")
    halves = {name: limit // 2 for name in limits if (limit := getattr(budget, name)) is not None}
    return replace(request, budget=replace(budget, **halves))


def _code(found: Gated, tolerance: str) -> int:
    overall = found.verdict.overall
    if overall != "worse" and not (found.head.frame["status"] == "ok").any():
        print("effbench: no cell of head could be measured", file=sys.stderr)
        return NOTHING
    if overall == "inconclusive" and tolerance == "warn":
        print("effbench: inconclusive, let pass by --inconclusive warn", file=sys.stderr)
        return FINE
    return {"fine": FINE, "worse": WORSE}.get(overall, NOTHING)


def _announce(found: Gated, file: Path | None) -> None:
    """On the terminal, into a file, and where GitHub looks."""
    from effbench.announce import github_annotations, markdown, table

    print("\n".join(found.remarks))
    print(table(found.verdict))
    text = markdown(found.verdict, found.remarks)
    if file is not None:
        file.write_text(text)
    if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
        with Path(summary).open("a") as step:
            step.write(text)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        top = Path(os.environ.get("GITHUB_WORKSPACE") or ".").resolve()
        mechanisms = {**found.base.info["mechanisms"], **found.head.info["mechanisms"]}
        print("\n".join(github_annotations(found.verdict, mechanisms, top)))
