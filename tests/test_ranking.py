"""The answer at a point: ranks, ties, groups and memory limits."""

from __future__ import annotations

from pathlib import Path

import pytest

from effbench.errors import BadInput
from effbench.frame import Run, load_run
from effbench.ranking import Ranking, parse_point, rankings
from effbench.record import FlopsBlock, Memory
from tests.synthetic import describe, failed, make_cell, measured, write_example, write_run

MIB = 2**20
#: name -> (seconds, MiB, spread of processes, provider, flags)
POINT = {
    "mha-sdpa": (0.100, 300, 0.01, "torch", []),
    "mha": (0.140, 900, 0.01, "torch", []),
    "linear": (0.0300, 200, 0.01, "torch", []),
    "aft-simple": (0.0303, 100, 0.03, "torch", []),
    "fnet": (0.0100, 400, 0.01, "", []),
    "synthesizer-dense": (0.005, 50, 0.01, "onednn", []),
    "aft-conv": (0.006, 60, 0.01, "torch", ["unsteady"]),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    cells = [make_cell(name, seq=8192, dim=512) for name in [*POINT, "aft-full"]]
    records = [failed(cells[-1], "oom", "out of memory")]
    for cell in cells[:-1]:
        seconds, mib, spread, gemm, flags = POINT[cell.mechanism]
        records += [
            measured(
                cell,
                [seconds * (1 + spread * (number - 2) / 2)] * 3,
                round=number,
                process=f"p{number}",
                path={"gemm": gemm},
                flags=flags,
                memory=Memory(peak_bytes=(mib - 20) * MIB, alloc_bytes=20 * MIB, live_bytes=20 * MIB),
            )
            for number in range(5)
        ]
    mechanisms = {cell.mechanism: describe(cell.mechanism) | {"complexity": None} for cell in cells}
    return load_run(write_run(tmp_path_factory.mktemp("point"), cells, records, mechanisms=mechanisms))


@pytest.fixture
def ranking(run: Run) -> Ranking:
    (found,) = rankings(run, {"seq": 8192, "dim": 512})
    return found


def test_fastest_first_and_what_cannot_be_told_apart_shares_a_rank(ranking: Ranking) -> None:
    ranks = {place.row["series"]: place.rank for place in ranking.places}
    assert ranks == {
        "fnet": 1,
        "linear": 2,
        "aft-simple": 2,
        "mha-sdpa": 4,
        "mha": 5,
        "synthesizer-dense": None,
        "aft-conv": None,
        "aft-full": None,
    }
    assert list(ranks)[:5] == ["fnet", "linear", "aft-simple", "mha-sdpa", "mha"]
    texts = [place.rank_text for place in ranking.places]
    assert texts == ["1", "2=", "2=", "4", "5", "–", "–", ""]


def test_groups_hold_everyone_once_in_the_order_of_the_ranking(ranking: Ranking) -> None:
    (same, exact), (other, others) = ranking.groups
    assert (same, other) == ("the same function as mha-sdpa", "other functions, which need training")
    assert [place.row["series"] for place in exact] == ["mha-sdpa", "mha"]
    assert [place.rank for place in others][:3] == [1, 2, 2]
    assert len(exact) + len(others) == len(ranking.places)


def test_who_has_no_rank_says_why(ranking: Ranking) -> None:
    notes = {place.row["series"]: place.note for place in ranking.places}
    assert notes["synthesizer-dense"] == "other matrix product (onednn)"
    assert notes["aft-conv"] == "not ranked: unsteady"
    assert notes["linear"] == ""


@pytest.mark.parametrize(
    ("products", "ranked"),
    [
        ({"mha-sdpa": "torch", "linear": "onednn", "aft-full": "onednn", "fnet": ""}, "fnet aft-full linear"),
        ({"mha-sdpa": "torch", "linear": "torch", "aft-full": "onednn", "mha": "onednn"}, "linear mha-sdpa"),
        ({"linear": "torch", "aft-full": "onednn", "mha": "onednn"}, "aft-full mha"),
        ({"mha-sdpa": "torch", "fnet": "", "aft-simple": ""}, "fnet aft-simple mha-sdpa"),
    ],
)
def test_those_of_the_usual_product_are_ranked(products: dict[str, str], ranked: str, tmp_path: Path) -> None:
    seconds = dict(
        zip(["fnet", "aft-simple", "aft-full", "linear", "mha-sdpa", "mha"], range(1, 7), strict=True)
    )
    cells = [make_cell(name) for name in products]
    records = [
        measured(
            cell,
            [seconds[cell.mechanism] * (1 + number / 100)] * 3,
            round=number,
            process=f"p{number}",
            path={"gemm": products[cell.mechanism]},
            flops=FlopsBlock(counted={"matmul": 4e6 if products[cell.mechanism] else 0.0}),
        )
        for cell in cells
        for number in range(5)
    ]
    (ranking,) = rankings(load_run(write_run(tmp_path, cells, records)), {"seq": 1024})
    assert " ".join(place.row["series"] for place in ranking.places if place.rank) == ranked
    assert all("other matrix product" in place.note for place in ranking.places if not place.rank)


def test_a_time_without_an_interval_has_no_rank(tmp_path: Path) -> None:
    """One process in the whole run: nothing says how processes differ, so a tenth is no difference either."""
    cells = [make_cell("mha-sdpa"), make_cell("linear")]
    run = load_run(write_run(tmp_path, cells, [measured(cells[0], [0.1]), measured(cells[1], [0.01])]))
    (ranking,) = rankings(run, {"seq": 1024})
    assert [place.rank for place in ranking.places] == [None, None]
    assert {place.note for place in ranking.places} == {"not ranked: its time has no interval"}


def test_who_computes_the_same_as_the_baseline(ranking: Ranking) -> None:
    assert {place.row["series"] for place in ranking.places if place.same_function} == {"mha", "mha-sdpa"}
    ratio = {place.row["series"]: (place.ratio, place.interval) for place in ranking.places}
    assert ratio["linear"][0] == pytest.approx(0.3)
    assert ratio["linear"][1][0] < 0.3 < ratio["linear"][1][1]


def test_the_fastest_within_a_memory_limit(ranking: Ranking) -> None:
    assert [place.row["series"] for place in ranking.cheapest_within(350 * MIB)] == ["linear", "aft-simple"]
    assert [place.row["series"] for place in ranking.cheapest_within(150 * MIB)] == ["aft-simple"]
    assert ranking.cheapest_within(80 * MIB) == ()
    assert [place.row["series"] for place in ranking.frontier] == ["aft-simple", "fnet"]


def test_axes_that_are_left_out_give_a_ranking_each(tmp_path: Path) -> None:
    run = load_run(write_example(tmp_path))
    found = rankings(run, {"seq": 4096})
    assert [ranking.setting["dim"] for ranking in found] == [64, 128, 256, 512, 1024]
    assert len(rankings(run, {"seq": 4096, "dim": 512, "mode": "forward"})) == 1


def test_a_point_that_the_run_has_not(run: Run) -> None:
    with pytest.raises(BadInput, match="--at: no cell with dim=64 at seq=8192; there are 512"):
        rankings(run, {"seq": 8192, "dim": 64})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("8192", "'8192' is not of the form axis=value"),
        ("seq=", "not of the form axis=value"),
        ("length=4", "no axis 'length'; expected one of"),
        ("seq=1024..4096", "seq=1024..4096 is 3 values; a point has one"),
        ("seq=x", "seq"),
        ("causal=maybe", "neither true nor false"),
    ],
)
def test_points_that_are_none(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        parse_point(text)


def test_a_point() -> None:
    assert parse_point("seq=8K, dim=512,causal=true,mode=train") == {
        "seq": 8192,
        "dim": 512,
        "causal": True,
        "mode": "train",
    }
