"""A whole run from a suite to its folder: describe, plan, measure, report."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from effbench import environment
from effbench.calibration import doubtful, keep_ceilings, raise_ceilings
from effbench.cell import Budget, Cell, usable_cores
from effbench.errors import BadInput, EffbenchError
from effbench.foresight import Prediction
from effbench.frame import Run, load_run
from effbench.paces import recall, remember
from effbench.pickled import send
from effbench.plan import Plan, make_plan, threads_asked
from effbench.registry import MECHANISMS, Registry
from effbench.render import write_reports
from effbench.rows import ABOVE_CEILING
from effbench.runner import Watch, run_plan, still_valid
from effbench.servers import Servers
from effbench.store import Store
from effbench.suite import Suite
from effbench.visit import Visitor

#: What a run writes when it ends, however it ends.
REPORTS = ("csv", "markdown", "png", "html")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked of a run: the question, where it goes, and the words that repeat it."""

    name: str  # of the suite
    suite: Suite
    out: Path
    budget: Budget
    extra: Sequence[Any] = ()  # mechanisms as Python objects
    fresh: bool = False
    command: str = ""
    reports: Sequence[str] = REPORTS


def measure(request: Request, *, watch: Watch = lambda _: None) -> Run:
    """Carry out a run into its folder, going on with what is there, and write its reports.

    Raises:
        BadInput: something asked for does not exist, before anything is measured.
        KeyboardInterrupt: after everything measured was written, with the run marked interrupted.
    """
    with Store(request.out) as store, _prepared(request) as (visitor, plan, facts):
        if request.fresh:
            store.clear()
        info = make_info(request, plan, visitor.environment, facts, store.info() or {})
        store.write_info(info)
        answered = store.records()
        waiting = len(still_valid(answered, plan, visitor.environment, request.budget)) < len(plan.cells)
        if waiting:
            visitor.servers.start(plan.cells, request.budget.most_rounds)
            keep_ceilings(info, plan, visitor)
            store.write_info(info)
        visitor.faster = info["faster"].get(visitor.environment, {})
        begun = time.monotonic()
        try:
            run_plan(plan, visitor, request.budget, answered=answered, append=store.append, watch=watch)
            remember(visitor.environment, visitor.paces)
            info["state"] = "finished"
        except KeyboardInterrupt:
            info["state"] = "interrupted"
            raise
        finally:
            info["circumstances"][-1]["after"] = environment.circumstances()
            info["pace"][visitor.environment] = visitor.paces.all()
            store.write_info(info)
            seconds, finished = time.monotonic() - begun, load_run(request.out)
            beaten = bool(finished.frame["flags"].str.contains(ABOVE_CEILING).any())
            again = waiting and doubtful(info, visitor, seconds=seconds, beaten=beaten)
            if info["state"] == "finished" and again:
                raise_ceilings(info, plan, visitor)
                store.write_info(info)
                finished = load_run(request.out)
            write_reports(finished, request.out, request.reports)
    return finished


def plan_only(
    request: Request, one_by_one: Callable[[Sequence[Cell]], Iterable[Cell]]
) -> tuple[Plan, list[Mapping[str, Any]]]:
    """The plan, and for each cell what is known before it is measured: support, FLOPs, predicted bytes.

    ``one_by_one`` gives the cells again, as each is asked for: many take long, and somebody may be watching.
    """
    with _prepared(request) as (visitor, plan, _):
        known: list[Mapping[str, Any]] = []
        for cell in one_by_one(plan.cells):
            description = plan.mechanisms[cell.mechanism]
            reason, formula = visitor.surveys.get(cell.id, (None, None))
            answer: Mapping[str, Any] = {}
            if description.error is None and reason is None:
                asked = Prediction(cell, description.spec)
                answer = visitor.foresight.answer(asked, visitor.begin).answer
            known.append({"unsupported": description.error or reason, "formula": formula, **answer})
        return plan, known


def describe_all(specs: Sequence[str]) -> list[Any]:
    """Descriptions of mechanisms, each loaded in a child of its own."""
    budget = Budget(memory_limit=environment.default_memory_limit(), load_timeout=20.0)
    with tempfile.TemporaryDirectory() as logs, _visitor(budget, Path(logs)) as visitor:
        return [visitor.describe(spec, threads=usable_cores()) for spec in specs]


@contextmanager
def _visitor(budget: Budget, logs: Path) -> Iterator[Visitor]:
    servers = Servers()
    try:
        yield Visitor(servers=servers, budget=budget, logs=logs, seed=0)
    finally:
        servers.stop()


def _check(registry: Registry, specs: Sequence[str], suite: Suite) -> None:
    """Refuse what cannot be found; a suite may say how to install it."""
    for spec in specs:
        try:
            registry.check(spec)
        except BadInput as error:
            hint = (
                f". This suite needs: {suite.install}" if suite.install and spec in suite.mechanisms else ""
            )
            raise BadInput(f"{error}{hint}") from None


def _check_baseline(baseline: str, plan: Plan, registry: Registry) -> None:
    """Refuse the name of nobody; one that is known and does not run here compares with nothing.

    Raises:
        BadInput: the baseline is neither in the plan nor installed.
    """
    if baseline != "none" and baseline not in plan.mechanisms and baseline not in registry.claims:
        names = ", ".join(plan.mechanisms)
        raise BadInput(f"baseline: {baseline!r} is none of this run's mechanisms, {names}, nor none")


@contextmanager
def _prepared(request: Request) -> Iterator[tuple[Visitor, Plan, dict[str, Any]]]:
    """A visitor with its environment known and every cell surveyed, and the plan."""
    registry = Registry.installed(MECHANISMS)
    named = request.suite.mechanisms or ([] if request.extra else list(registry.claims))
    _check(registry, named, request.suite)
    with _visitor(request.budget, request.out / "logs") as visitor:
        threads = threads_asked(request.suite)
        given = [send(thing, request.out / "plugins") for thing in request.extra]
        asked = [(spec, "") for spec in named] + given
        descriptions = [visitor.describe(spec, threads=threads, source=source) for spec, source in asked]
        plan = make_plan(request.suite, descriptions)
        _check_baseline(request.suite.baseline, plan, registry)
        visitor.seed = plan.seed
        facts = environment.facts(hello(visitor, threads))
        visitor.environment = environment.digest(facts)
        visitor.paces = recall(visitor.environment)
        survey_all(visitor, plan)
        yield visitor, plan, facts


def survey_all(visitor: Visitor, plan: Plan) -> None:
    """Learn of every cell whether it is supported, and its closed-form FLOPs; kept for the visits."""
    for name, description in plan.mechanisms.items():
        cells = [cell for cell in plan.cells if cell.mechanism == name]
        if description.error is None and cells:
            visitor.survey(description, cells)


def ask_hello(visitor: Visitor, threads: int) -> Mapping[str, Any]:
    """The answer of a child of this visitor that is asked nothing but what it is."""
    server = visitor.servers.get("counts", threads=threads, allocator="default")
    outcome = server.ask({"question": "hello"}, log=visitor.log("hello"), allow=60)
    if outcome.ended != "answered" or "torch" not in outcome.answer:
        reason = outcome.reason or outcome.answer.get("reason")
        raise EffbenchError(f"torch could not be asked what it is: {reason}")
    return outcome.answer


def hello(visitor: Visitor, threads: int) -> dict[str, Any]:
    """What torch says of itself."""
    return dict(ask_hello(visitor, threads)["torch"])


def make_info(
    request: Request, plan: Plan, digest: str, facts: Mapping[str, Any], before: Mapping[str, Any]
) -> dict[str, Any]:
    """What ``run.json`` says: all that reports need beside the records."""
    from effbench import __version__

    budget = request.budget
    return {
        "schema": 1,
        "suite": request.name,
        "title": request.suite.title or request.name,
        "description": request.suite.description,
        "command": request.command,
        "baseline": request.suite.baseline,
        "plan": [{"id": cell.id, "cell": asdict(cell)} for cell in plan.cells],
        "mechanisms": {name: asdict(d) for name, d in plan.mechanisms.items()},
        "environments": {**before.get("environments", {}), digest: facts},
        "environment": digest,
        "circumstances": [*before.get("circumstances", []), environment.circumstances()],
        "ceilings": dict(before.get("ceilings", {})),
        "faster": dict(before.get("faster", {})),
        "pace": dict(before.get("pace", {})),
        "limits": {"memory_limit": budget.memory_limit, "cell_timeout": budget.cell_timeout},
        "seed": plan.seed,
        "effbench": __version__,
        "state": "running",
    }
