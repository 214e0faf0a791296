"""Doubts that need several cells, or the ceilings, on runs whose numbers are made up."""

from pathlib import Path

import pytest

from effbench.frame import load_run
from effbench.growth import factors
from effbench.record import FlopsBlock, Memory, Time
from effbench.roofline import bound
from tests.synthetic import describe, make_cell, measured, write_run

LENGTHS = (1024, 2048, 4096, 8192, 16384)
MIB = 1 << 20


def flags_by_length(folder: Path, seconds, *, time="n^2 d + n d^2", memory="n d", asked=None, **axes):
    """The flags of a line of one mechanism: ``seconds(n)`` a pass, ``asked(n)`` bytes (else its output)."""
    cells = [make_cell(seq=n, **axes) for n in LENGTHS]
    records = [
        measured(
            cell,
            [seconds(cell.seq)] * 3,
            flops=None,
            memory=Memory(alloc_bytes=asked(cell.seq) if asked else 4 * cell.seq * cell.dim),
        )
        for cell in cells
    ]
    about = describe("toy") | {"complexity": {"time": time, "memory": memory}}
    run = load_run(write_run(folder, cells, records, mechanisms={"toy": about}))
    return dict(zip(run.frame["seq"], run.frame["flags"], strict=True))


@pytest.mark.parametrize("power", [1.0, 1.7, 2.0])
def test_honest_growth_raises_no_doubt(tmp_path, power):
    declared = "n d^2" if power == 1 else "n^2 d + n d^2"
    found = flags_by_length(tmp_path, lambda n: 1e-2 * (n / 1024) ** power, time=declared)
    assert set(found.values()) == {""}


def test_time_that_does_not_grow_is_flagged_from_eight_times_the_length(tmp_path):
    found = flags_by_length(tmp_path, lambda n: 1e-4)
    assert found == {1024: "", 2048: "", 4096: "", 8192: "flat", 16384: "flat"}


def test_a_flat_trifle_and_a_flat_decode_step_are_not_flagged(tmp_path):
    assert set(flags_by_length(tmp_path / "a", lambda n: 1e-4, dim=8).values()) == {""}
    assert set(flags_by_length(tmp_path / "b", lambda n: 1e-4, mode="decode").values()) == {""}


@pytest.mark.parametrize(
    ("declared", "power", "doubted"),
    [("n d^2", 2.0, True), ("n^2 d", 1.0, True), ("n s d + n d^2", 2.0, True), ("n d log n", 1.1, False)],
)
def test_an_exponent_far_from_the_declared_one(tmp_path, declared, power, doubted):
    found = flags_by_length(tmp_path, lambda n: 1e-2 * (n / 1024) ** power, time=declared)
    assert found[16384] == ("off-declared" if doubted else "")
    assert found[2048] == ""


def test_of_a_block_what_grows_as_the_length_may_be_all_that_is_seen(tmp_path):
    found = flags_by_length(tmp_path / "a", lambda n: 1e-2 * n / 1024, time="n^2 d", level="block")
    assert set(found.values()) == {""}
    found = flags_by_length(tmp_path / "b", lambda n: 1e-2 * (n / 1024) ** 2, time="n d^2", level="block")
    assert found[16384] == "off-declared"


def test_memory_that_outgrows_its_declaration(tmp_path):
    found = flags_by_length(tmp_path, lambda n: 1e-2 * (n / 1024) ** 2, asked=lambda n: 4 * n * n)
    assert [found[n] for n in LENGTHS] == ["", "", *["memory-off-declared"] * 3]


def test_a_declaration_that_nobody_can_read_raises_no_doubt(tmp_path):
    found = flags_by_length(tmp_path, lambda n: 1e-2 * (n / 1024) ** 2, time="linear", memory="O(n)")
    assert set(found.values()) == {""}


@pytest.mark.parametrize(
    ("mode", "level", "asked", "resident", "doubted"),
    [
        ("forward", "layer", MIB, None, False),
        ("forward", "layer", MIB // 2, MIB, True),
        ("forward", "op", MIB // 2, None, False),
        ("train", "layer", MIB, None, True),
        ("train", "layer", 2 * MIB, None, False),
        ("forward", "layer", None, MIB // 4, True),
        ("forward", "layer", None, MIB, False),
        ("forward", "layer", None, None, False),
    ],
)
def test_a_peak_below_the_output_that_must_be_held(tmp_path, mode, level, asked, resident, doubted):
    cell = make_cell(mode=mode, level=level)  # an output of 1024 x 256 x 4 bytes: 1 MiB
    record = measured(cell, [1.0], memory=Memory(alloc_bytes=asked, peak_bytes=resident))
    (flags,) = load_run(write_run(tmp_path, [cell], [record])).frame["flags"]
    assert flags == ("peak-too-low" if doubted else "")


def test_parameters_are_compared_with_the_baselines_at_the_level_of_blocks_and_models(tmp_path):
    params = {"mha-sdpa": 1000, "same": 1099, "more": 1101, "fewer": 899}
    cells = [make_cell(name, level=level) for level in ("layer", "block") for name in params]
    records = [measured(cell, [1.0], params=params[cell.mechanism]) for cell in cells]
    frame = load_run(write_run(tmp_path, cells, records)).frame
    assert list(frame["flags"]) == ["", "", "", "", "", "", "params-differ", "params-differ"]


@pytest.mark.parametrize(("seconds", "doubted"), [(0.91, False), (0.88, True)])  # 1.3e11 FLOP/s, spread 1 %
def test_faster_than_the_machine_beyond_the_spread_of_its_ceiling(tmp_path, seconds, doubted):
    cell = make_cell()
    record = measured(cell, [seconds], flops=FlopsBlock(counted={"matmul": 1.3e11}))
    (flags,) = load_run(write_run(tmp_path, [cell], [record])).frame["flags"]
    assert flags == ("above-ceiling" if doubted else "")


def test_work_that_a_causal_kernel_may_leave_out_is_not_held_against_it(tmp_path):
    cell = make_cell(causal=True)
    block = FlopsBlock(counted={"matmul": 1.3e11}, needed={"matmul": 0.65e11})
    row = load_run(write_run(tmp_path, [cell], [measured(cell, [0.6], flops=block)])).frame.iloc[0]
    assert (row["flags"], row["ceiling_fraction"]) == ("", pytest.approx(0.5 / 0.6))


CEILINGS = {
    "device": "cpu",
    "threads": 2,
    "cache_bytes": 32 * MIB,
    "matmul": {"float32": {"torch": {"flops_per_s": 1e11}, "onednn": {"flops_per_s": 2e11}}},
    "copy": {"memory": {"bytes_per_s": 5e10}, "cache": {"bytes_per_s": 2e11}},
    "others": [
        {"device": "cpu", "threads": 1, "matmul": {"float32": {"torch": {"flops_per_s": 4e10}}}},
    ],
}


@pytest.mark.parametrize(
    ("changes", "seconds"),
    [
        ({"flops": 1e11}, 1.0),
        ({"flops": 1e11, "providers": ["onednn"]}, 0.5),
        ({"flops": 1e11, "providers": ["torch", "onednn"]}, 0.5),
        ({"flops": 1e11, "providers": [""]}, 0.5),  # no product that we know of: the fastest
        ({"flops": 1e11, "threads": 1}, 2.5),
        ({"bytes_moved": 1e11, "held_bytes": 64 * MIB}, 2.0),
        ({"bytes_moved": 1e11, "held_bytes": 16 * MIB}, 0.5),  # fits the caches
        ({"bytes_moved": 1e11, "held_bytes": 64 * MIB, "time_s": 1.0}, 0.5),  # faster than memory: tiles
        ({"bytes_moved": 1e11, "held_bytes": 64 * MIB, "flops": 3e11}, 3.0),
        ({"flops": 1e11, "dtype": "float64"}, None),
        ({"flops": 1e11, "device": "cuda"}, None),
        ({}, None),
    ],
)
def test_the_least_time_is_that_of_the_scarcer_of_products_and_bytes(changes, seconds):
    question = {"dtype": "float32", "device": "cpu", "threads": 2, "providers": ["torch"], "time_s": 4.0}
    work = {"flops": None, "bytes_moved": None, "held_bytes": None}
    found = bound(CEILINGS, **(question | work | changes))
    assert (None if found is None else found.seconds) == (None if seconds is None else pytest.approx(seconds))


def test_a_declared_sum_grows_between_its_slowest_and_its_fastest_term():
    small, large = {"n": 1024, "d": 256}, {"n": 4096, "d": 256}
    assert factors("n d^2", small, large) == (4, 4)
    least, most = factors("n^2 d + n d^2", small, large)
    assert 4 < least < 8 < 14 < most < 16


def test_flags_of_scrutiny_follow_those_of_the_record(tmp_path):
    cells = [make_cell(seq=n) for n in (1024, 8192)]
    records = [measured(cell, [1e-4], time=Time(samples_s=[1e-4]), flags=["unverified"]) for cell in cells]
    assert list(load_run(write_run(tmp_path, cells, records)).frame["flags"])[1].startswith("unverified;")
