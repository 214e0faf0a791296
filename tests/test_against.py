"""Comparisons with the baseline: which rows may enter, and who multiplied the matrices."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from effbench.against import about, brief, default_baseline, product_of, rivalries, same_function, verdict
from effbench.crossover import Overtaking
from effbench.frame import Run, load_run
from effbench.record import FlopsBlock, Memory
from tests.synthetic import WIDTHS, describe, make_cell, measured, write_run

LENGTHS = [1024 * 2**power for power in range(7)]
Seconds = dict[str, Callable[[int], float]]


def a_run(
    folder: Path, seconds: Seconds, *, gemm=lambda name, n: "torch", flags=lambda name, n: [], **info
) -> Run:
    """Mechanisms whose passes take ``seconds[name](n)``; three processes of little spread each."""
    cells = [make_cell(name, seq=n) for name in seconds for n in LENGTHS]
    records = [
        measured(
            cell,
            [seconds[cell.mechanism](cell.seq) * (1 + 0.004 * (round_ - 1))] * 3,
            round=round_,
            process=f"p{round_}",
            path={"gemm": gemm(cell.mechanism, cell.seq)},
            flags=flags(cell.mechanism, cell.seq),
            flops=FlopsBlock(counted={"matmul": 4e6 if gemm(cell.mechanism, cell.seq) else 0.0}),
            memory=Memory(
                peak_bytes=int(4e9 * seconds[cell.mechanism](cell.seq)),
                alloc_bytes=int(4e9 * seconds[cell.mechanism](cell.seq)),
                live_bytes=2**20,
            ),
        )
        for cell in cells
        for round_ in range(3)
    ]
    mechanisms = {name: describe(name) | {"complexity": None} for name in seconds}
    return load_run(write_run(folder, cells, records, mechanisms=mechanisms, **info))


def square(n: int) -> float:
    return 1e-2 * (n / 5000) ** 2


def line(n: int) -> float:
    return 1e-2 * n / 5000


def said(run: Run) -> dict[tuple[str, str], str]:
    words = {"time_s": "faster", "total_bytes": "smaller"}
    return {(r.line.series, r.metric): verdict(r.found, words[r.metric]) for r in rivalries(run)}


def test_where_a_line_overtakes_a_square(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"mha-sdpa": square, "linear": line, "fnet": lambda n: 3 * square(n)})
    found = said(run)
    assert found["linear", "time_s"].startswith("faster from ≈ 4.8")
    assert found["linear", "time_s"].endswith(", measured")
    assert found["linear", "total_bytes"].startswith("smaller from ≈ 4.")
    assert found["fnet", "time_s"] == "not faster: none up to 64K"
    assert ("mha-sdpa", "time_s") not in found


def test_a_chosen_baseline_and_none(tmp_path: Path) -> None:
    seconds: Seconds = {"mha-sdpa": square, "mha": lambda n: 2 * square(n)}
    run = a_run(tmp_path / "a", seconds, baseline="mha")
    assert said(run)["mha-sdpa", "time_s"] == "faster at every length measured (1K to 64K)"
    for number, name in enumerate(["none", "", "fnet"]):
        run = a_run(tmp_path / str(number), seconds, baseline=name)
        assert (default_baseline(run), rivalries(run)) == ("", [])


def test_rows_in_doubt_are_no_part_of_it(tmp_path: Path) -> None:
    def flags(name: str, n: int) -> list[str]:
        return ["unsteady"] if name == "linear" and n >= 4096 else []

    run = a_run(tmp_path, {"mha-sdpa": square, "linear": line}, flags=flags)
    assert said(run)["linear", "time_s"] == "not faster: none up to 2K"
    assert said(run)["linear", "total_bytes"].startswith("smaller from ≈ 4.")


def test_a_finding_by_a_single_pass_says_so(tmp_path: Path) -> None:
    def flags(name: str, n: int) -> list[str]:
        return ["few-samples"] if name == "mha-sdpa" and n >= 32768 else []

    run = a_run(tmp_path, {"mha-sdpa": square, "linear": line}, flags=flags)
    caveats = {r.metric: r.caveat for r in rivalries(run)}
    assert caveats == {"time_s": "one pass only at 32K and 64K", "total_bytes": ""}


def test_a_width_is_a_size_too(tmp_path: Path) -> None:
    cells = [make_cell(name, seq=4096, dim=dim) for name in ("mha-sdpa", "toy") for dim in WIDTHS]
    records = [
        measured(
            cell,
            [(0.3 if cell.mechanism == "mha-sdpa" else cell.dim * 1e-3) * part],
            process=f"p{part}",
            round=n,
        )
        for cell in cells
        for n, part in enumerate((0.998, 1.0, 1.002))
    ]
    (time, _) = rivalries(load_run(write_run(tmp_path, cells, records)))
    assert verdict(time.found, "faster", "dim").startswith("no longer faster from ≈ 300 (")


def test_another_provider_is_never_a_finding(tmp_path: Path) -> None:
    def gemm(name: str, n: int) -> str:
        return {"mha-sdpa": "torch+onednn", "fnet": ""}.get(name, "onednn")

    seconds: Seconds = {
        "mha-sdpa": lambda n: 2 * square(n),
        "mha-tiled": square,
        "linear": line,
        "fnet": line,
    }
    found = {r.line.series: r for r in rivalries(a_run(tmp_path, seconds, gemm=gemm)) if r.metric == "time_s"}
    linear = found["linear"]
    assert not linear.is_finding
    assert linear.other_product is not None
    assert linear.tiled is not None
    assert verdict(linear.other_product, "faster").startswith("faster from ≈ 2.4")
    assert verdict(linear.tiled, "faster").startswith("faster from ≈ 4.8")
    assert verdict(linear.found, "faster") == "no length with sound numbers on both sides"
    assert found["fnet"].is_finding
    assert found["fnet"].other_product is None


@pytest.mark.parametrize(
    ("path", "matmul", "product"),
    [
        ({"gemm": "onednn"}, 4e6, "onednn"),
        ({"gemm": "onednn", "attention": "flash"}, 4e6, "torch+onednn"),
        ({"gemm": "", "attention": "flash"}, 4e6, "torch"),
        ({"gemm": ""}, 4e6, "torch"),  # a stranger's, that multiplies by itself
        ({}, 4e6, "torch"),
        ({"gemm": ""}, 0, ""),
    ],
)
def test_what_nobody_else_multiplied_torch_did(
    path: dict[str, str], matmul: float, product: str, tmp_path: Path
) -> None:
    cell, work = make_cell("mine"), {"matmul": matmul, "elementwise": 1.0}
    records = [measured(cell, [0.1], path=path, flops=FlopsBlock(counted=work))]
    assert product_of(load_run(write_run(tmp_path, [cell], records)), cell.id) == product


def test_lengths_of_one_provider_are_a_finding_and_the_others_stand_apart(tmp_path: Path) -> None:
    def gemm(name: str, n: int) -> str:
        return "onednn" if name == "linear" and n > 8192 else "torch"

    (rivalry,) = [
        r
        for r in rivalries(a_run(tmp_path, {"mha-sdpa": square, "linear": line}, gemm=gemm))
        if r.metric == "time_s"
    ]
    assert rivalry.found.sizes == (1024, 2048, 4096, 8192)
    assert rivalry.other_product is not None
    assert rivalry.other_product.sizes == (16384, 32768, 65536)
    assert rivalry.tiled is None


@pytest.mark.parametrize(
    ("signs", "said", "briefly"),
    [
        ((-1, -1, 0), "faster at 1K to 2K; no difference seen at 4K", "up to 2K only"),
        ((-1, 0, -1), "faster at 1K; no difference seen at 2K; faster at 4K", "4K"),
        ((0, -1, -1), "faster from 2K on; no difference seen below", "2K"),
        ((0, 1, 1), "not faster: none up to 4K", "none up to 4K"),
        ((-1, -1, -1), "faster at every length measured (1K to 4K)", "1K, the shortest"),
        ((0, 0, 0), "no difference seen (1K to 4K)", "none up to 4K"),
    ],
)
def test_what_is_said_where_nothing_crosses(signs: tuple[int, ...], said: str, briefly: str) -> None:
    found = Overtaking((1024.0, 2048.0, 4096.0), signs, ())
    assert (verdict(found, "faster"), brief(found)) == (said, briefly)


def test_a_single_size_is_no_range() -> None:
    assert verdict(Overtaking((1024.0,), (-1,), ()), "faster") == "faster at 1K"


def test_what_computes_the_same(tmp_path: Path) -> None:
    run = a_run(tmp_path, {"mha-sdpa": square, "mha": square, "linear": line})
    assert same_function(run, "mha-sdpa", "mha")
    assert not same_function(run, "mha-sdpa", "linear")


def test_lengths_as_people_say_them() -> None:
    assert [about(n) for n in (107.2, 5331, 81920, 3 * 2**20)] == ["107", "5.21K", "80K", "3M"]


def test_a_finding_on_slowed_cores_says_so(tmp_path: Path) -> None:
    def flags(name: str, n: int) -> list[str]:
        return ["slowed", *(["few-samples"] if n == 65536 else [])]

    run = a_run(tmp_path, {"mha-sdpa": square, "linear": line}, flags=flags)
    caveats = {r.metric: r.caveat for r in rivalries(run)}
    assert caveats == {"time_s": "one pass only at 64K; cores slowed at every size", "total_bytes": ""}
