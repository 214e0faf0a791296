"""Exponents of a run: which rows they rest on, and what was declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from effbench.frame import load_run
from effbench.record import FlopsBlock, Memory
from effbench.scaling import Growth, growths
from tests.synthetic import describe, failed, make_cell, measured, write_example, write_run

LENGTHS = [1024 * 2**power for power in range(7)]


def grown(
    folder: Path, seconds, *, declared="n d^2", flags=lambda n: [], lengths=LENGTHS, mode="forward", **info
):
    """Growths by metric of a mechanism whose time, FLOPs and bytes follow ``seconds(n)``."""
    cells = [make_cell(seq=n, mode=mode, causal=True) for n in lengths]
    records = [
        measured(
            cell,
            [seconds(cell.seq)] * 3,
            round=round_,
            process=f"p{round_}",
            flags=flags(cell.seq),
            flops=FlopsBlock(counted={"matmul": 1e9 * seconds(cell.seq)}),
            memory=Memory(
                alloc_bytes=2000 * cell.seq, peak_bytes=2000 * cell.seq, live_bytes=4 * cell.seq * cell.dim
            ),
        )
        for cell in cells
        for round_ in range(2)
    ]
    about = describe("toy") | {"complexity": {"time": declared, "memory": "n d"}}
    run = load_run(write_run(folder, cells, records, mechanisms={"toy": about}, **info))
    return {growth.metric: growth for growth in growths(run)}


def test_the_example_has_exponents_of_every_mechanism_along_both_axes(tmp_path: Path) -> None:
    found = growths(load_run(write_example(tmp_path)))
    assert {(g.line.along, g.metric) for g in found} == {
        (along, metric) for along in ("seq", "dim") for metric in ("time_s", "flops", "alloc_bytes")
    }
    assert len(found) == 2 * 3 * 10
    by_name = {(g.line.series, g.line.along, g.metric): g for g in found}
    assert str(by_name["fnet", "seq", "flops"].exponent) == "1.00"
    assert by_name["aft-full", "seq", "flops"].exponent.trend == "rising"
    assert str(by_name["mha", "seq", "alloc_bytes"].exponent).startswith("still rising: 1.9")
    assert by_name["linear", "dim", "time_s"].exponent.trend != "settled"


def test_what_was_declared_stands_beside_it(tmp_path: Path) -> None:
    as_declared = grown(tmp_path / "a", lambda n: 1e-6 * n)
    assert not any(growth.mismatch for growth in as_declared.values())
    assert as_declared["flops"].declared == "n d^2"
    assert as_declared["flops"].allowed == (1, 1)
    other = grown(tmp_path / "b", lambda n: 1e-9 * n**2)
    assert {metric for metric, growth in other.items() if growth.mismatch} == {"time_s", "flops"}
    assert str(other["flops"]) == "2.00 (not as declared)"


def test_a_token_is_not_held_against_what_is_declared_of_a_sequence(tmp_path: Path) -> None:
    one_token = grown(tmp_path, lambda n: 1e-8 * n, declared="n^2 d", mode="decode")["flops"]
    assert (str(one_token), one_token.declared) == ("1.00", "")


@pytest.mark.parametrize("declared", ["", "linear"])
def test_nothing_is_held_against_a_declaration_that_says_nothing(tmp_path: Path, declared: str) -> None:
    assert not any(g.mismatch for g in grown(tmp_path, lambda n: 1e-9 * n**2, declared=declared).values())


def test_rows_in_doubt_are_left_out_and_counted(tmp_path: Path) -> None:
    found = grown(tmp_path, lambda n: 1e-6 * n, flags=lambda n: ["unsteady"] if n > 8192 else [])
    assert (found["time_s"].left_out, found["time_s"].exponent.sizes) == (3, (1024, 8192))
    assert (found["flops"].left_out, found["flops"].exponent.sizes) == (0, (1024, 65536))


def test_a_doubt_about_growth_does_not_hide_the_growth(tmp_path: Path) -> None:
    found = grown(tmp_path, lambda n: 1e-8 * n**2, declared="n d^2")
    assert (found["time_s"].left_out, found["time_s"].mismatch) == (0, True)


def test_too_few_sizes_are_said_to_be(tmp_path: Path) -> None:
    found = grown(tmp_path, lambda n: 1e-6 * n, lengths=LENGTHS[:3])
    assert {str(growth) for growth in found.values()} == {"no fit: 3 of at least 4 sizes"}


def test_a_cache_of_known_size_parts_the_line(tmp_path: Path) -> None:
    def seconds(n: int) -> float:
        return 1e-6 * n * (1 if n <= 4096 else 1.8)

    ceilings = {"5e17be71c001": {"cache_bytes": (2000 + 1024) * 4096}}
    found = grown(tmp_path, seconds, ceilings=ceilings)["time_s"]
    assert (found.exponent.trend, found.exponent.sizes) == ("settled", (8192, 65536))


def test_a_mechanism_without_numbers_has_no_exponent(tmp_path: Path) -> None:
    cells = [make_cell(seq=n) for n in LENGTHS]
    records = [failed(cell, "error", "ValueError") for cell in cells]
    found: list[Growth] = growths(load_run(write_run(tmp_path, cells, records)))
    assert found == []
