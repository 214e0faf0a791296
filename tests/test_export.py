"""A run in other tools' forms."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
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


#: https://bencher.dev/bmf.json, and nothing beside what it names.
BMF = {
    "type": "object",
    "additionalProperties": {
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
            "required": ["value"],
            "additionalProperties": False,
        },
    },
}
#: ``BenchmarkResult`` of github-action-benchmark's src/extract.ts.
RESULTS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "value": {"type": "number"},
            "unit": {"type": "string"},
            "range": {"type": "string"},
            "extra": {"type": "string"},
        },
        "required": ["name", "value", "unit"],
        "additionalProperties": False,
    },
}


@pytest.mark.parametrize(("form", "schema"), [("bencher", BMF), ("github-action-benchmark", RESULTS)])
def test_forms_follow_their_published_shape(example: Run, form: str, schema: dict[str, Any]) -> None:
    jsonschema.validate(json.loads(export(example, form)), schema)


def test_pytest_benchmark_reads_its_form(example: Run, tmp_path: Path) -> None:
    """By its own command, as a user compares two runs with it."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.json").write_text(export(example, "pytest-benchmark"))
    command = [sys.executable, "-m", "pytest_benchmark", "compare", "a.json", "b.json", "--csv", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mha seq=1K dim=256" in done.stdout
    rows = (tmp_path / "out.csv").read_text().splitlines()
    timed = int(example.frame["time_s"].notna().sum())
    assert len(rows) == 1 + 2 * timed
    first = json.loads((tmp_path / "a.json").read_text())["benchmarks"][0]
    assert first["stats"]["rounds"] == int(example.frame["samples"][0])
    assert first["extra_info"]["flops"] == example.frame["flops"][0]


def test_an_unknown_form_is_bad_input(example: Run) -> None:
    with pytest.raises(BadInput, match="'xml' is none of csv, json"):
        export(example, "xml")
