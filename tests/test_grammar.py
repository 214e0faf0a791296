"""Axis expressions: every accepted form, and a clear error for everything else."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effbench.errors import BadInput
from effbench.grammar import parse_axis, parse_option

NUMBERS = st.integers(min_value=1, max_value=10**6)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1024", [1024]),
        (1024, [1024]),
        ("64,128,512", [64, 128, 512]),
        ([64, "128..256"], [64, 128, 256]),
        ("1024..65536", [1024, 2048, 4096, 8192, 16384, 32768, 65536]),
        ("1024..5000", [1024, 2048, 4096, 5000]),
        ("1024..1024", [1024]),
        ("1024..4096:+1024", [1024, 2048, 3072, 4096]),
        ("1..6:+2", [1, 3, 5]),
        ("256..65536:5", [256, 1024, 4096, 16384, 65536]),
        ("1K..4K", [1024, 2048, 4096]),
        ("1k, 1M", [1024, 1048576]),
        (" 7 .. 14 ", [7, 14]),
    ],
)
def test_accepted(text: object, values: list[int]) -> None:
    assert parse_axis(text, where="--seq") == values


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "8..4",
        "-1",
        "-4..8",
        "a",
        "1..",
        "..4",
        "1...4",
        "1..2..3",
        "1.5",
        "1e3",
        "0",
        "0..8",
        "4G",
        "1..4:",
        "1..4:0",
        "1..4:1",
        "1..4:9",
        "1..4:+0",
        "1..4:+",
        "1..4:-1",
        "1..1000M:+1",
        "1,1",
        "1K,1024",
        [],
        [[1]],
        True,
        1.5,
        None,
        {},
        "1 2",
    ],
)
def test_refused_with_the_place_and_the_reason(text: object) -> None:
    with pytest.raises(BadInput, match=r"^--seq: "):
        parse_axis(text, where="--seq")


@given(NUMBERS, NUMBERS)
def test_doubling_holds_both_ends_and_doubles(a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    values = parse_axis(f"{low}..{high}", where="x")
    assert values[0] == low
    assert values[-1] == high
    assert all(later == 2 * earlier for earlier, later in itertools.pairwise(values[:-1]))
    assert all(earlier < later <= 2 * earlier for earlier, later in itertools.pairwise(values))


@given(NUMBERS, st.integers(0, 500), st.integers(1, 100))
def test_steps_are_the_range(low: int, more: int, step: int) -> None:
    assert parse_axis(f"{low}..{low + more}:+{step}", where="x") == list(range(low, low + more + 1, step))


@given(NUMBERS, st.integers(2, 9), st.integers(3, 64))
def test_geometric_holds_both_ends_and_grows_evenly(low: int, count: int, factor: int) -> None:
    high = low * factor ** (count - 1)
    values = parse_axis(f"{low}..{high}:{count}", where="x")
    assert values == pytest.approx([low * factor**i for i in range(count)], abs=1, rel=1e-9)


@given(st.lists(NUMBERS, min_size=1, unique=True))
def test_a_list_means_the_same_however_it_is_written(values: list[int]) -> None:
    assert parse_axis(",".join(map(str, values)), where="x") == values
    assert parse_axis(values, where="x") == values
    assert parse_axis([str(value) for value in values], where="x") == values


@given(st.text(max_size=12))
def test_any_text_is_numbers_or_a_clear_error(text: str) -> None:
    try:
        values = parse_axis(text, where="x")
    except BadInput as error:
        assert str(error).startswith("x: ")  # noqa: PT017 - either outcome is right
    else:
        assert values
        assert min(values) >= 1
        assert len(set(values)) == len(values)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0,32..128", [0, 32, 64, 128]),
        ("matrix", ["matrix"]),
        ("fft,matrix", ["fft", "matrix"]),
        ("true", [True]),
        ("none", [None]),
        ("0.5", [0.5]),
        ("0.5,0.25", [0.5, 0.25]),
        (3, [3]),
        ([1, "2..4"], [1, 2, 4]),
        (False, [False]),
    ],
)
def test_options(text: object, values: list[object]) -> None:
    assert parse_option(text, where="x") == values


@pytest.mark.parametrize("text", ["8..4", "-3", "1..x", []])
def test_options_refuse_broken_numbers(text: object) -> None:
    with pytest.raises(BadInput, match=r"^x"):
        parse_option(text, where="x")
