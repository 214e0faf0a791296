"""The README says what is true: commands, mechanisms and pictures exist."""

from __future__ import annotations

import csv
import re
import runpy
import tomllib
from pathlib import Path

import pytest

from effbench.cli import app
from effbench.grammar import parse_axis
from effbench.metrics import METRICS
from effbench.suite import built_in

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_commands_is_complete() -> None:
    shown = set(re.findall(r"^\| `effbench (\w+)", README, re.M))
    assert shown == {command.name or command.callback.__name__ for command in app.registered_commands}


def test_the_table_of_mechanisms_is_the_registry_with_what_was_measured() -> None:
    """Written by a script, which is run again; the names stand in pyproject too."""
    script = runpy.run_path(str(ROOT / "docs" / "gallery" / "mechanism_table.py"))
    assert (
        script["table"]() == README.split("<!-- written by make gallery -->\n")[2].split("\n<!-- end -->")[0]
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    shown = re.findall(r"^\| `([a-z-]+)` ", README.partition("\n## Mechanisms\n")[2], re.M)
    assert sorted(shown) == sorted(project["entry-points"]["effbench.mechanisms"])


def test_the_suites_that_it_names_exist() -> None:
    assert all(f"`{name}`" in README for name in built_in())


PICTURES = re.findall(r'(?:src|srcset)="([^"]+)"', README)


def test_every_picture_has_one_for_dark_pages() -> None:
    light, dark = sorted(p for p in PICTURES if "-dark" not in p), sorted(p for p in PICTURES if "-dark" in p)
    assert [picture.replace(".png", "-dark.png") for picture in light] == dark
    assert len(light) > 1


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_are_there(picture: str) -> None:
    assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")


def test_its_times_are_those_of_the_gallery() -> None:
    """Each number of the table is one of docs/gallery/table.csv, written out by its metric."""
    with (ROOT / "docs/gallery/table.csv").open(newline="") as file:
        measured = {(r["mechanism"], int(r["seq"])): r for r in csv.DictReader(file) if r["dim"] == "256"}
    written = README.split("<!-- written by make gallery -->")[1].split("<!-- end -->")[0]
    rows = [line.replace(" †", "").split("|")[1:-1] for line in written.splitlines() if "| `" in line]
    assert len(rows) == len({name for name, _ in measured})
    for name, *cells in rows:
        found = [measured[name.strip(" `"), length] for length in (1024, 4096, 16384, 65536)]
        held = as_said(found[-1], "total_bytes", ("live_bytes", "peak_bytes"))
        expected = [*(as_said(row, "time_s", ("time_s",)) for row in found), held]
        assert [cell.strip() for cell in cells] == expected


def as_said(row: dict[str, str], metric: str, columns: tuple[str, ...]) -> str:
    if row["status"] != "ok":
        return {"oom-predicted": "OOM (predicted)"}.get(row["status"], row["status"].upper())
    return METRICS[metric].text(sum(float(row[column]) for column in columns))


@pytest.mark.parametrize("link", re.findall(r"[^!]\[[^]]*\]\(([^)h][^)]*)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_the_axis_forms_are_accepted() -> None:
    (line,) = [line for line in README.splitlines() if line.startswith("Axes take")]
    forms = re.findall(r"`([^`]+)`", line)
    assert len(forms) == 5
    assert all(parse_axis(form, where="README") for form in forms)


@pytest.mark.parametrize("option", sorted(set(re.findall(r"--[a-z][a-z-]+", README))))
def test_options_exist(option: str) -> None:
    commands = [command.callback.__annotations__ for command in app.registered_commands]
    names = {f"--{name.strip('_').replace('_', '-')}" for command in commands for name in command}
    known = " ".join(str(kind) for command in commands for kind in command.values())
    assert option in names | {"--no-causal"} or option in known
