"""Bars of text: their lengths and intervals, in terminals of every width and of every encoding."""

from __future__ import annotations

import math
import sys
from io import BytesIO, StringIO, TextIOWrapper

import pytest
from rich.console import Console

from effbench.bars import FULL, SHADED, Bar, begin_of, drawn, show_bars
from effbench.plain import allow_plain_terminals

GROUPS = [
    ("the same function", [Bar("mha-sdpa 2", "100 ms", 95.0, 105.0), Bar("mha", "OOM")]),
    ("others", [Bar("fnet 1", "50 ms", 50.0, 50.0)]),
]


def printed(width: int) -> list[str]:
    console = Console(file=StringIO(), width=width)
    show_bars(console, "At length 8K", GROUPS)
    return str(console.file.getvalue()).splitlines()  # type: ignore[attr-defined]


def test_twice_the_cost_is_twice_the_length() -> None:
    full, half = (drawn(Bar("", "", value, value), 0.0, 80.0, 40) for value in (80.0, 40.0))
    assert (len(full), len(half)) == (40, 20)
    assert set(full + half) == {FULL}


def test_the_interval_is_shaded_from_end_to_end() -> None:
    bar = drawn(Bar("", "", 40.0, 80.0), 0.0, 80.0, 40)
    assert (bar.count(FULL), bar.count(SHADED), len(bar)) == (20, 20, 40)


def test_the_smallest_leaves_a_trace_and_no_number_leaves_none() -> None:
    assert len(drawn(Bar("", "", 1.0, 1.0), 0.0, 19_999.0, 40)) == 1
    assert drawn(Bar("", "OOM"), 0.0, 80.0, 40) == ""


def test_a_wide_range_has_a_logarithmic_scale_that_begins_below_the_smallest() -> None:
    assert begin_of([1.0, 20.0]) == 0.0
    begin = begin_of([1.0, 10_000.0])
    assert 0.3 < begin < 1.0
    lengths = [len(drawn(Bar("", "", v, v), begin, 10_000.0, 40)) for v in (1.0, 100.0, 10_000.0)]
    assert lengths[2] - lengths[1] == pytest.approx(lengths[1] - lengths[0], abs=1)


@pytest.mark.parametrize("width", [200, 60])
def test_names_bars_and_numbers_stand_in_one_line(width: int) -> None:
    lines = printed(width)
    assert lines[0] == "At length 8K"
    assert [line for line in lines if "mha-sdpa" in line and FULL in line and line.endswith("100 ms")]
    assert any(line.split() == ["mha", "OOM"] for line in lines)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("width", [12, 24, 28])
def test_a_narrow_terminal_has_the_bar_below_the_name(width: int) -> None:
    lines = printed(width)
    named = next(number for number, line in enumerate(lines) if "mha-sdpa" in line)
    assert FULL not in lines[named]
    assert any(FULL in line for line in lines[named + 1 : named + 3])
    assert max(map(len, lines)) <= width


def test_what_has_no_number_at_all_is_no_chart() -> None:
    console = Console(file=StringIO())
    show_bars(console, "At length 8K", [("", [Bar("mha", "OOM", math.nan, math.nan)])])
    assert console.file.getvalue() == ""  # type: ignore[attr-defined]


def test_a_terminal_of_ascii_gets_bars_of_its_own_signs(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(raw, encoding="ascii", write_through=True))
    allow_plain_terminals()
    show_bars(Console(width=80), "≈ 8K", [("", [Bar("a", "10 ms ±3 %", 5.0, 10.0), Bar("b 漢", "OOM")])])
    lines = raw.getvalue().decode("ascii").splitlines()
    assert lines[0] == "~ 8K"
    assert any("a" in line and "#" * 15 + "-" * 15 in line and line.endswith("10 ms +-3 %") for line in lines)
    assert any(line.split() == ["b", "?", "OOM"] for line in lines)
