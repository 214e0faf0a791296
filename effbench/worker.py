"""Answers one question in a child process: describe, survey, check, counts, time, memory, and so on.

The child reads one line of JSON from its channel and writes lines of JSON: ``{"stage", "allow"}``
before each part (the seconds that the part may take), and at last ``{"stage", "answer"}``. Every
answer is plain data; a failure is an answer with ``status`` and ``reason``.
"""

from __future__ import annotations

import operator
import os
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import nn

from effbench import abilities, environment, loading, nvml, perf, prediction, products
from effbench.attention import kernels_of_call
from effbench.cell import Cell
from effbench.check import check
from effbench.conformance import checks_for
from effbench.declaration import describe, formula, needed, unsupported
from effbench.dialogue import Visit, failure
from effbench.limits import limit_memory
from effbench.meters import clocks, instructions, memory, time, turns
from effbench.meters.neighbours import neighbours
from effbench.meters.storages import unique_bytes
from effbench.plugin import Mechanism
from effbench.subject import Subject, build_subject, quarter, remembers

_WARM_UP = 1.25  # a first pass may take this much longer than the time-out of a pass, and
_SETTLE_S = 2.0  # this much more
_COMPILE_S = 600.0
_QUICK_S = 0.01  # a pass that may be made some times more; who remembers is quick

_LOADED = {"status": "ok"}


def answer(channel: socket.socket) -> None:
    """Read the question, answer it, and end the process without running anyone's exit handlers.

    Returns where a mechanism was loaded for others to be forked: they are asked about it.
    """
    visit = Visit(channel)
    sys.path[:] = list(dict.fromkeys([*sys.path, *visit.request.get("path", ())]))
    try:
        result = QUESTIONS[visit.request["question"]](visit)
    except BaseException as error:
        traceback.print_exc()
        result = failure(error)
    visit.send({"answer": result})
    sys.stdout.flush()
    sys.stderr.flush()
    if result is not _LOADED:
        os._exit(0)


def _load(visit: Visit) -> dict[str, Any]:
    """Load a mechanism, and stay: the children of this process then have it."""
    loading.keep(visit)
    return _LOADED


def _describe(visit: Visit) -> dict[str, Any]:
    return describe(visit.request["spec"], visit.request.get("source", ""))


def _survey(visit: Visit) -> dict[str, Any]:
    """For each cell, why it is not supported (None where it is); its closed-form FLOPs, done and needed."""
    mechanism = loading.load(visit)
    visit.enter("check", visit.request["load_timeout"])
    cells = [Cell(**cell) for cell in visit.request["cells"]]
    asked = (unsupported, formula, needed)
    return {"cells": [[each(mechanism, cell) for each in asked] for cell in cells]}


def _check(visit: Visit) -> dict[str, Any]:
    mechanism, cell = _opened(visit)
    visit.enter("check", visit.request["cell_timeout"])
    verdict = check(mechanism, cell, seed=visit.request["seed"])
    if verdict.wrong:
        return {"status": "incorrect", "reason": verdict.wrong}
    return {"status": "ok", "flags": list(verdict.flags)}


def _counts(visit: Visit) -> dict[str, Any]:
    """FLOPs and bytes by kind and the predicted peak; on fake tensors unless ``real`` is asked."""
    mechanism, cell = _opened(visit)
    if visit.request.get("real"):
        visit.enter("counts", visit.request["cell_timeout"])
        return {"status": "ok", **prediction.on_real_tensors(mechanism, cell)}
    seconds = visit.request["count_seconds"]
    visit.enter("predict", visit.request["load_timeout"] + 2 * seconds)
    return {"status": "ok", **prediction.on_fake_tensors(mechanism, cell, seconds=seconds)}


def _instructions(visit: Visit) -> dict[str, Any]:
    """Retired instructions of one pass on one thread."""
    request = visit.request
    with perf.Counter(perf.INSTRUCTIONS) as counter:  # open before any thread starts that it shall follow
        mechanism, cell = _opened(visit)
        warm = _quarter_pass(visit, mechanism, cell) if request["cold"] else None
        subject = _built(visit, mechanism, cell, ring=2)
        tick = partial(visit.enter, "counts", request["cell_timeout"] + 30)
        found = instructions.measure(subject.call, counter=counter, warm=warm, tick=tick)
    return {"status": "ok", "instructions": found, "fixed_layout": perf.layout_is_fixed()}


def _time(visit: Visit) -> dict[str, Any]:
    """Samples of one pass."""
    request = visit.request
    mechanism, cell = _opened(visit)
    timeout = request["cell_timeout"]
    warm: Callable[[], Any] = lambda: None  # noqa: E731 - one that does nothing
    kernels: set[str] = set()
    seen = request.get("attention")  # by an earlier visit, in which the pass was also tried for its memory
    if request["single"]:
        small = _quarter_pass(visit, mechanism, cell)
        warm = lambda: kernels.update(_kernels(small, cell, seen))  # noqa: E731
    subject = _built(visit, mechanism, cell)
    first = [_COMPILE_S if cell.compile else 0.0]

    def tick() -> None:
        # Only the first pass warms up and compiles; a costly cell was warmed up by its quarter.
        extra = (first.pop() + timeout * (_WARM_UP - 1) + _SETTLE_S) if first and not request["single"] else 0
        visit.enter("time", timeout + extra)

    if request["single"]:
        visit.enter("time", timeout)
    before = clocks.gpu_state(cell.device)
    with neighbours(cell.threads) as others:
        measured = time.measure(
            subject.call,
            min_samples=request["min_samples"],
            min_time=request["min_time"],
            single=request["single"],
            warm=warm,
            tick=tick,
            device=cell.device,
            best_s=request.get("best_s"),
            patience_s=request.get("patience_s", 0.0),
        )
    after = clocks.gpu_state(cell.device)
    measured |= {"spent_s": others.seconds, "other_cores": others.cores}
    measured |= {"gpu_before": before, "gpu_after": after}
    if cell.compile:
        measured["compile_s"] = measured["first_call_s"]
    flags = measured.pop("flags", [])
    flags += ["loaded"] if others.disturb else []
    flags += ["other-threads"] if torch.get_num_threads() != cell.threads else []
    flags += ["throttled"] if nvml.held(after) - {nvml.POWER} else []
    flags += ["power-limited"] if nvml.POWER in nvml.held(after) else []
    quick = min(measured["samples_s"]) < _QUICK_S
    if quick and not cell.compile:  # compiled code would be compiled anew
        torch.set_num_threads(1)  # what is not timed need not wait for threads, long on a busy machine
    if not request["single"]:  # one more costly pass would buy too little
        visit.enter("time", timeout + _SETTLE_S)
        last: list[Any] = []
        kernels.update(_kernels(lambda: last.append(subject.call(0)), cell, seen))
        flags += [] if _finite(last.pop()) else ["not-finite"]
        if quick and seen is None and cell.level != "op":
            flags += ["remembered"] if remembers(subject) else []
    return {
        "status": "ok",
        "time": measured,
        "flags": flags,
        "params": subject.params,
        "path": {"gemm": products.ran(), "attention": "+".join(sorted(kernels))},
    }


def _turns(visit: Visit) -> dict[str, Any]:
    """Passes when the runner says so: it lets two such children take turns."""
    mechanism, cell = _opened(visit)
    timeout = visit.request["cell_timeout"]
    subject = _built(visit, mechanism, cell)
    visit.enter("time", timeout * _WARM_UP + _SETTLE_S + (_COMPILE_S if cell.compile else 0))
    measured = turns.serve(
        subject.call,
        hear=lambda: operator.itemgetter("passes", "keep")(visit.hear()),
        say=lambda part: visit.send({"part": part}),
        tick=lambda: visit.enter("time", timeout + _SETTLE_S),
        device=cell.device,
    )
    if cell.compile:
        measured["compile_s"] = measured["first_call_s"]
    last: list[Any] = []
    kernels = _kernels(lambda: last.append(subject.call(0)), cell)
    return {
        "status": "ok",
        "time": measured,
        "flags": [] if _finite(last.pop()) else ["not-finite"],
        "params": subject.params,
        "path": {"gemm": products.ran(), "attention": "+".join(sorted(kernels))},
    }


def _built(visit: Visit, mechanism: Mechanism, cell: Cell, **more: Any) -> Subject:
    """The subject of a measurement; what fails while it is made failed in build, or in prefill."""
    seed, allow = visit.request["seed"], visit.request["load_timeout"] + visit.request["cell_timeout"]
    visit.enter("build", allow)
    prefilling = lambda: visit.enter("prefill", allow)  # noqa: E731
    subject = build_subject(mechanism, cell, seed=seed, prefilling=prefilling, **more)
    products.forget()  # what made the inputs of an operator, or its state, is not measured
    return subject


def _quarter_pass(visit: Visit, mechanism: Mechanism, cell: Cell) -> Callable[[], Any]:
    holder = [_built(visit, mechanism, quarter(cell), ring=1)]
    return lambda: holder.pop().call(0)


def _kernels(call: Callable[[], Any], cell: Cell, seen: str | None = None) -> set[str]:
    """Make the call; torch's attention kernels that it ran, or was ``seen`` to run (not in compiled code)."""
    known = set(filter(None, (seen or "").split("+")))
    with kernels_of_call() if seen is None and not cell.compile else nullcontext(known) as names:
        call()
    return names


def _finite(result: Any) -> bool:
    return all(bool(torch.isfinite(t).all()) for t in _tensors(result))


def _tensors(result: Any) -> list[torch.Tensor]:
    results = result if isinstance(result, tuple | list) else (result,)
    return [t for t in results if isinstance(t, torch.Tensor)]


def _memory(visit: Visit) -> dict[str, Any]:
    """Peak memory of one pass above what is in place."""
    request = visit.request
    mechanism, cell = _opened(visit)
    if request["cold"]:  # what a process takes once, at its first products, is no part of the pass
        small = _quarter_pass(visit, mechanism, cell)
        visit.enter("memory", request["memory_timeout"])
        small()
    subject = _built(visit, mechanism, cell, ring=1)
    visit.enter("memory", request["memory_timeout"])
    live = subject.live
    measured = memory.measure(
        lambda: subject.call(0),
        live=live,
        cold=request["cold"],
        alloc=request["alloc"],
        repeats=request["repeats"],
        device=cell.device,
    )
    held = {"param_bytes": [*subject.module.parameters(), *subject.module.buffers()]}
    held |= {"input_bytes": subject.inputs} | ({"state_bytes": subject.kept} if cell.mode == "decode" else {})
    measured |= {name: unique_bytes(tensors) for name, tensors in held.items()}
    if cell.mode == "train":
        receiving = [*subject.module.parameters(), *(x for x in subject.inputs[:1] if x.is_floating_point())]
        measured["grad_bytes"] = sum(t.numel() * t.element_size() for t in receiving)
        if not request["cold"]:
            measured["saved_bytes"] = memory.saved_bytes(lambda: subject.call(0), live=live)
    return {"status": "ok", "memory": measured}


def _hello(visit: Visit) -> dict[str, Any]:
    return {"status": "ok", "torch": environment.torch_facts(), "questions": list(QUESTIONS)}


def _laws(visit: Visit) -> dict[str, Any]:
    """The names of the laws; waivers that name another one are bad input."""
    checks = checks_for(nn.Identity, waive=visit.request["waive"], strict=visit.request["strict"])
    return {"status": "ok", "laws": [str(check) for check in checks]}


def _verify(visit: Visit) -> dict[str, Any]:
    """One law held against one mechanism."""
    request = visit.request
    mechanism = loading.load(visit)
    products.use("torch")  # the same bits whoever is the faster today
    visit.enter("check", request["cell_timeout"])
    checks = checks_for(mechanism, options=request["options"], waive=request["waive"], strict=True)
    finding = next(check for check in checks if str(check) == request["law"]).find()
    return {"status": "ok", "outcome": finding.outcome, "remark": finding.remark}


QUESTIONS: Mapping[str, Callable[[Visit], dict[str, Any]]] = {
    "hello": _hello,
    "load": _load,
    "describe": _describe,
    "survey": _survey,
    "check": _check,
    "counts": _counts,
    "time": _time,
    "turns": _turns,
    "memory": _memory,
    "instructions": _instructions,
    "ceilings": abilities.rates,
    "pace": abilities.pace,
    "laws": _laws,
    "verify": _verify,
}


def _opened(visit: Visit) -> tuple[Mechanism, Cell]:
    """The mechanism and the cell of a question, with the process set as the cell and its limit say."""
    cell = Cell(**visit.request["cell"])
    mechanism = loading.load(visit)  # first, since an import may set what follows
    torch.set_num_threads(cell.threads)
    torch.set_float32_matmul_precision(cell.precision)
    products.use(visit.request["gemm"], visit.request.get("by_heads"))
    limit_memory(visit.request["memory_limit"], cell.device)
    return mechanism, cell
