"""Ceilings that cells beat are measured again, and the faster of each rate is kept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from effbench import calibration, products
from effbench.cell import Budget
from effbench.servers import Servers
from effbench.visit import Visitor
from tests.synthetic import make_cell

DIGEST = "d"


def ceilings(product: float, copy: float) -> dict[str, Any]:
    return {
        "device": "cpu",
        "threads": 2,
        "cache_bytes": 1 << 25,
        "matmul": {"float32": {"torch": {"flops_per_s": product, "spread": 0.1}}},
        "copy": {"memory": {"bytes_per_s": copy, "spread": 0.2}},
    }


def test_of_each_rate_the_faster_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first ones were taken while something else ran: 0.4 GFLOP/s was seen once."""
    asked = []

    def again(*question: Any, **more: Any) -> dict[str, Any]:
        asked.append(question[1:])
        return {"status": "ok", "ceilings": ceilings(2e11, 1e10), "faster": {}}

    monkeypatch.setattr(calibration, "ask_ceilings", again)
    info = {"ceilings": {DIGEST: {**ceilings(4e8, 3e10), "others": []}}, "faster": {}}
    plan = SimpleNamespace(cells=[make_cell(threads=2), make_cell(threads=2, seq=64)])
    calibration.raise_ceilings(info, plan, SimpleNamespace(environment=DIGEST))
    assert asked == [("cpu", 2, ["float32"])]
    assert info["ceilings"][DIGEST] == {**ceilings(2e11, 3e10), "others": []}


def test_what_was_measured_only_once_stays() -> None:
    one, other = ceilings(1e9, 1e9), ceilings(2e9, 2e9)
    one["matmul"]["bfloat16"] = {"torch": {"flops_per_s": 5.0}}
    other["exp"] = {"elements_per_s": 7.0}
    found = calibration.faster_of(one, other)
    assert found["matmul"]["bfloat16"] == {"torch": {"flops_per_s": 5.0}}
    assert found["matmul"]["float32"] == other["matmul"]["float32"]
    assert found["exp"] == {"elements_per_s": 7.0}


def test_the_faster_of_two_is_in_doubt_only_where_both_are() -> None:
    def rate(product: float, disturbed: bool) -> dict[str, Any]:
        return {
            "matmul": {"float32": {"torch": {"flops_per_s": product, "spread": 0.1, "disturbed": disturbed}}}
        }

    assert calibration.faster_of(rate(1.0, True), rate(2.0, True)) == rate(2.0, True)
    assert calibration.faster_of(rate(1.0, False), rate(2.0, True)) == rate(2.0, False), (
        "clean is a lower bound"
    )
    assert calibration.faster_of(rate(1.0, True), rate(2.0, False)) == rate(2.0, False)


@pytest.mark.parametrize(
    ("seconds", "beaten", "busy", "again"),
    [(1, False, False, False), (600, False, False, True), (1, True, False, True), (20, False, True, True)],
)
def test_ceilings_are_taken_again_where_they_are_in_doubt(
    seconds: float, beaten: bool, busy: bool, again: bool
) -> None:
    known = {**ceilings(1e9, 1e9), "others": [{"copy": {"cache": {"bytes_per_s": 1.0, "disturbed": busy}}}]}
    info, visitor = {"ceilings": {DIGEST: known}}, SimpleNamespace(environment=DIGEST)
    assert calibration.doubtful(info, visitor, seconds=seconds, beaten=beaten) is again  # type: ignore[arg-type]


@pytest.mark.skipif(
    not products._available(torch.float32), reason="this build of torch has no oneDNN product"
)
@pytest.mark.parametrize(
    ("gemm", "faster", "ran"),
    [
        ("auto", {"float32": "onednn", "heads": "torch"}, "torch"),
        ("auto", {"float32": "onednn", "heads": "onednn"}, "onednn"),
        ("auto", {"float32": "onednn"}, "onednn"),  # a run of an early version
        ("auto", {"float32": "torch", "heads": "onednn"}, "torch"),
        ("auto", {}, "torch"),
        ("onednn", {"float32": "torch", "heads": "torch"}, "onednn"),
    ],
)
def test_children_multiply_as_the_run_decided(
    gemm: str, faster: dict[str, str], ran: str, tmp_path: Path
) -> None:
    cell = make_cell(mechanism="mha-tiled", level="op", seq=600, dim=128, heads=2, threads=2, gemm=gemm)
    servers = Servers()
    visitor = Visitor(
        servers=servers, budget=Budget(memory_limit=2**32), logs=tmp_path, seed=0, faster=faster
    )
    try:
        more = {"spec": "mha-tiled", "single": False, "min_samples": 1, "min_time": 0.01}
        outcome = visitor.ask("time", cell, "time", **more)
    finally:
        servers.stop()
    assert outcome.answer.get("path", {}).get("gemm") == ran, outcome


def test_a_run_decides_once_what_auto_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the first rates, those of the most threads; later ones and another dtype's change nothing of it."""
    answers = [
        {"status": "ok", "ceilings": {**ceilings(1.0, 1.0), "threads": threads}, "faster": faster}
        for threads, faster in (
            (2, {"float32": "onednn", "heads": "torch"}),
            (1, {"float32": "torch", "bfloat16": "torch", "heads": "onednn"}),
        )
    ]
    monkeypatch.setattr(calibration, "ask_ceilings", lambda *_, **__: answers.pop(0))
    info: dict[str, Any] = {"ceilings": {}, "faster": {}}
    plan = SimpleNamespace(cells=[make_cell(threads=1), make_cell(threads=2)])
    calibration.keep_ceilings(info, plan, SimpleNamespace(environment=DIGEST))
    assert info["faster"] == {DIGEST: {"float32": "onednn", "bfloat16": "torch", "heads": "torch"}}
    assert not answers
