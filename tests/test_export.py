"""A run in other tools' forms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from effbench.errors import BadInput
from effbench.export import export
from effbench.frame import Run, load_run, write_table
from tests.synthetic import write_example


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_example(tmp_path_factory.mktemp("example")))


def test_csv_is_the_table(example: Run, tmp_path: Path) -> None:
    write_table(example, tmp_path / "table.csv")
    assert export(example, "csv") == (tmp_path / "table.csv").read_text()


def test_json_holds_every_row_and_no_nan(example: Run) -> None:
    rows = json.loads(export(example, "json"), parse_constant=pytest.fail)
    assert len(rows) == 110
    failed = next(row for row in rows if row["status"] == "timeout")
    assert (failed["time_s"], failed["options"]) == (None, {})
    assert next(row for row in rows if "unverified" in row["flags"])["mechanism"] == "aft-simple"


def test_github_action_benchmark_gets_name_unit_value(example: Run) -> None:
    entries = json.loads(export(example, "gha"), parse_constant=pytest.fail)
    assert len(entries) == 99 * 4
    assert entries[0]["name"] == "mha seq=1K dim=256 time_s"
    assert (entries[0]["unit"], entries[0]["value"]) == ("s", example.frame["time_s"][0])
    assert len({entry["name"] for entry in entries}) == len(entries)


def test_bencher_gets_value_and_bounds(example: Run) -> None:
    found = json.loads(export(example, "bencher"), parse_constant=pytest.fail)
    time = found["mha seq=1K dim=256"]["time_s"]
    assert time["lower_value"] < time["value"] < time["upper_value"]
    assert "mha seq=64K dim=256" not in found


def test_an_unknown_form_is_bad_input(example: Run) -> None:
    with pytest.raises(BadInput, match="'xml' is none of csv, json"):
        export(example, "xml")
