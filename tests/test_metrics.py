"""The table of metrics, and how numbers of a column are written."""

from __future__ import annotations

import math

import pytest

from effbench.frame import NUMBERS
from effbench.metrics import METRICS, size_label


def test_every_metric_is_a_column_of_the_frame_or_derived() -> None:
    assert set(METRICS) - set(NUMBERS) == {"total_bytes", "state_bytes", "flops_needed"}
    assert all(metric.title for metric in METRICS.values())


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        ("time_s", 0.0123, "12.3 ms"),
        ("time_s", 2e-7, "200 ns"),
        ("time_s", 75.0, "75.0 s"),
        ("peak_bytes", 0, "0 B"),
        ("peak_bytes", 1536, "1.50 KiB"),
        ("peak_bytes", 6 * 2**30, "6.00 GiB"),
        ("flops", 1.5e9, "1.50 GFLOP"),
        ("tokens_per_s", 2.5e6, "2.50 Mtokens/s"),
        ("ceiling_fraction", 0.5, "50.0%"),
        ("params", 262144, "262 k"),
    ],
)
def test_one_value_gets_the_scale_that_suits_it(metric: str, value: float, text: str) -> None:
    assert METRICS[metric].text(value) == text


def test_a_column_has_one_scale() -> None:
    scale = METRICS["time_s"].format([0.002, 0.02, 1.5])
    assert [scale(value) for value in (0.002, 0.02, 1.5)] == ["2.00 ms", "20.0 ms", "1500 ms"]


def test_a_column_never_needs_five_digits() -> None:
    scale = METRICS["time_s"].format([1e-6, 2e-6, 5.0])
    assert scale.unit == "ms"


def test_values_that_are_missing_do_not_choose_the_scale() -> None:
    assert METRICS["time_s"].format([math.nan, 0.5]).unit == "ms"
    assert METRICS["peak_bytes"].format([math.nan]).unit == "B"


@pytest.mark.parametrize(
    ("size", "text"), [(1024, "1K"), (65536, "64K"), (1000, "1000"), (2**20, "1M"), (96, "96")]
)
def test_sizes_are_written_as_people_say_them(size: int, text: str) -> None:
    assert size_label(size) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(1.99, 2.01, "±0.5 %"), (1.8, 2.2, "±10 %"), (1.0, 3.0, "[1.00, 3.00]"), (0.02, 2.1, "±?")],
)
def test_an_interval_is_said_as_shortly_as_it_may_be(low: float, high: float, text: str) -> None:
    assert METRICS["time_s"].format([2.0]).interval(low, 2.0, high) == text
