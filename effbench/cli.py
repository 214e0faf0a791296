"""The command line. Imports stand where they are needed: ``--help`` shall cost little more than Python."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from effbench import ci, options
from effbench.errors import (
    FINE,
    INTERRUPTED,
    NOTHING,
    USAGE,
    WORSE,
    BadInput,
    EffbenchError,
    NothingMeasured,
)
from effbench.plain import allow_plain_terminals

if TYPE_CHECKING:
    from effbench.session import Request

app = typer.Typer(
    name="effbench",
    help="Measures how the time, peak memory and FLOPs of attention mechanisms grow with length and width.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

#: For which the system does not let a file be written or read: nobody's bug, so no traceback.
_REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)

Text = options.Text
_option = options.option


@app.command("list")
def list_(
    as_json: Annotated[bool, _option("As a list of objects.", "--json")] = False,
) -> None:
    """Show what is there: mechanism, paper, complexity, causal, options, where it came from."""
    from effbench.listing import as_objects, as_table

    found = as_objects()
    print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else as_table(found))


@app.command()
def run(
    suite: Annotated[str, typer.Argument(help="A built-in suite, or the path of a TOML file.")] = "scaling",
    mechanism: options.Mechanism = None,
    with_: options.With = None,
    option: options.Option = None,
    baseline: options.Baseline = None,
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
    patience: options.Patience = None,
    out: Annotated[Path | None, _option("Folder of the run; results/SUITE where left out.")] = None,
    fresh: Annotated[bool, _option("Forget what the folder holds.", "--fresh")] = False,
    dry_run: Annotated[
        bool, _option("Show the cells and what is predicted; measure nothing.", "--dry-run")
    ] = False,
) -> None:
    """Measure a suite and write its report; run again to go on where it stopped."""
    axes = options.axes(locals())
    request = options.request(
        suite,
        axes,
        mechanism,
        with_ or [],
        option or [],
        baseline,
        memory_limit,
        cell_timeout,
        budget,
        out,
        fresh,
        patience,
    )
    if dry_run:
        _dry_run(request)
    else:
        from effbench.terminal import measure_and_show

        measure_and_show(request)


@app.command()
def reproduce(
    suite: Annotated[str, typer.Argument(help="A suite with claims: paper-enwik8, or the path of one.")],
    mechanism: options.Mechanism = None,
    seq: options.Seq = None,
    dim: options.Dim = None,
    batch: options.Batch = None,
    heads: options.Heads = None,
    level: options.Level = None,
    stack: options.Stack = None,
    device: options.Device = None,
    threads: options.Threads = None,
    gemm: options.Gemm = None,
    memory_limit: options.MemoryLimit = None,
    cell_timeout: options.CellTimeout = "60s",
    budget: options.Budget = None,
    patience: options.Patience = None,
    out: Annotated[Path | None, _option("Folder of the run; results/SUITE where left out.")] = None,
    fresh: Annotated[bool, _option("Forget what the folder holds.", "--fresh")] = False,
    from_: Annotated[Path | None, _option("Measure nothing: judge the run in this folder.", "--from")] = None,
    markdown: Annotated[Path | None, _option("The page; reproduction.md in the run's folder.")] = None,
) -> None:
    """Measure the settings of a paper and say claim by claim whether what it printed holds here."""
    from rich.console import Console

    from effbench.claims import load_claims
    from effbench.reproduction import reproduce as judge
    from effbench.retelling import as_markdown, tell

    claims = load_claims(suite)
    if from_ is not None:
        from effbench.frame import load_run

        found = load_run(from_)
    else:
        from effbench.terminal import measure_and_show

        axes = options.axes(locals())
        request = options.request(
            suite, axes, mechanism, [], [], None, memory_limit, cell_timeout, budget, out, fresh, patience
        )
        found = measure_and_show(request)
    outcomes = judge(found, claims)
    tell(outcomes, claims, Console())
    page = markdown or found.folder / "reproduction.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(as_markdown(found, outcomes, claims))
    print(f"wrote {page}")


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    as_: Annotated[
        str, _option("markdown, github, png, svg, pdf, html, csv, latex", "--as")
    ] = "csv,markdown,png,html",
    baseline: options.Baseline = None,
    at: Annotated[Text, _option("The point to rank at: seq=8192,dim=512")] = None,
    memory_limit: Annotated[Text, _option("What may be held at that point: 350MiB")] = None,
    compare: Annotated[Path | None, _option("Another run, to be shown beside this one.")] = None,
) -> None:
    """Render a run again, finished or not, and answer at a point."""
    from rich.console import Console

    from effbench.ranking import answers_by_itself
    from effbench.reading import run_as_asked
    from effbench.render import write_reports
    from effbench.summary import answer_at_points, say_what_is_missing

    loaded = run_as_asked(folder, baseline=baseline, at=at, memory_limit=memory_limit, beside=compare)
    if at or memory_limit or answers_by_itself(loaded):
        answer_at_points(loaded, Console())
    write_reports(loaded, folder, [name.strip() for name in as_.split(",")])
    say_what_is_missing(loaded, Console(stderr=True))
    print(f"wrote {as_} into {folder}")


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(help="The folder of the run that is compared with.")],
    head: Annotated[Path, typer.Argument(help="The folder of the run in question.")],
    explain: Annotated[bool, _option("Say for each row why.", "--explain")] = False,
) -> None:
    """Compare two finished runs row by row; exit code 1 where something is worse, 3 where it stays open."""
    from effbench.announce import table
    from effbench.frame import load_run
    from effbench.verdict import judge

    verdict = judge(load_run(base), load_run(head))
    print(table(verdict, explain))
    raise typer.Exit({"fine": FINE, "worse": WORSE}.get(verdict.overall, NOTHING))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    to: Annotated[str, _option("csv, json, pytest-benchmark, github-action-benchmark or bencher.", "--to")],
) -> None:
    """Write a run's rows to standard output in another tool's form."""
    from effbench.export import export as write
    from effbench.frame import load_run

    print(write(load_run(folder), to), end="")


@app.command()
def verify(
    names: Annotated[list[str], typer.Argument(help="Mechanisms: names, module:object or files.")],
    waive: Annotated[list[str] | None, _option("LAW=REASON, or LAW:PART=REASON for one parameter.")] = None,
    option: options.Option = None,
    strict: Annotated[bool, _option("Ask for a future invisible to the bit too.", "--strict")] = False,
    timeout: Annotated[str, _option("Time to import a mechanism, and for one law.")] = "60s",
) -> None:
    """Hold the conformance laws against mechanisms; exit code 1 where one is broken."""
    from effbench.api import option_values
    from effbench.quantity import parse_seconds
    from effbench.verification import verify as ask

    found = ask(
        names,
        options=option_values(options.by_mechanism(option or [])),
        waive=_waivers(waive or []),
        strict=strict,
        timeout=parse_seconds(timeout, where="timeout"),
    )
    broken, unchecked = False, 0
    for one in found:
        print(one.table(), flush=True)
        broken, unchecked = broken or one.broken, unchecked + bool(one.error)
    if broken or unchecked:
        raise typer.Exit(WORSE if broken else NOTHING)


@app.command()
def doctor(as_json: Annotated[bool, _option("As a list of objects.", "--json")] = False) -> None:
    """Say what this machine can and cannot measure, and what to do about it; takes some seconds."""
    from effbench.doctor import examine
    from effbench.doctor.shown import as_objects, show

    if as_json:
        print(json.dumps(as_objects(examine()), indent=1, ensure_ascii=False))
    else:
        show(examine())


@app.command()
def new(name: Annotated[str, typer.Argument(help="Of the mechanism: my-mixer writes my_mixer.py.")]) -> None:
    """Write a file with a mechanism that runs as it stands, to be changed into yours."""
    from effbench.scaffold import write

    path = write(name, Path())
    print(f"wrote {path}; compare it at once: effbench run quick --with {path}")


for _command in (ci.gate, ci.noise, ci.merge):
    app.command()(_command)


def _waivers(given: list[str]) -> dict[str, str]:
    """``law=reason`` or ``law:part=reason``."""
    waivers: dict[str, str] = {}
    for text in given:
        place, equals, reason = text.partition("=")
        if not (place.strip() and equals and reason.strip()):
            raise BadInput(f"--waive: {text!r} is not of the form LAW=REASON or LAW:PART=REASON")
        waivers[place.strip()] = reason.strip()
    return waivers


def _dry_run(request: Request) -> None:
    from effbench.listing import as_plan
    from effbench.progress import predicted
    from effbench.session import plan_only

    plan, known = plan_only(request, predicted)
    print(as_plan(plan, known, request.budget.memory_limit))


def main() -> None:
    """Run the program; errors made on purpose are a line and an exit code, everything else a traceback."""
    allow_plain_terminals()
    try:
        code = app(standalone_mode=False)
    except NothingMeasured as error:
        sys.exit(_say(error, NOTHING))
    except EffbenchError as error:
        sys.exit(_say(error, USAGE))
    except OSError as error:
        if error.errno not in _REFUSALS or not error.filename:
            raise
        sys.exit(_say(f"{error.filename}: {error.strerror}", USAGE))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except typer.TyperException as error:
        sys.exit(_say(error.format_message(), USAGE))
    sys.exit(code or FINE)


def _say(error: object, code: int) -> int:
    print(f"effbench: {error}", file=sys.stderr)
    return code
