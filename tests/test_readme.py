"""The README says what is true: commands, mechanisms and pictures exist."""

from __future__ import annotations

import re
import runpy
import tomllib
from pathlib import Path

import pytest

from effbench.cli import app
from effbench.grammar import parse_axis
from effbench.suite import built_in

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_commands_is_complete() -> None:
    shown = set(re.findall(r"^\| `effbench (\w+)", README, re.M))
    assert shown == {command.name or command.callback.__name__ for command in app.registered_commands}


def test_the_table_of_mechanisms_is_the_registry_with_what_was_measured() -> None:
    """Written by a script, which is run again; the names stand in pyproject too."""
    script = runpy.run_path(str(ROOT / "docs" / "scaling" / "make_table.py"))
    assert f"\n\n{script['table']()}\n\n" in README
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    shown = re.findall(r"^\| `([a-z-]+)` ", README.partition("\n## Mechanisms\n")[2], re.M)
    assert sorted(shown) == sorted(project["entry-points"]["effbench.mechanisms"])


def test_the_suites_that_it_names_exist() -> None:
    assert all(f"`{name}`" in README for name in built_in())


@pytest.mark.parametrize("picture", re.findall(r"!\[[^]]*\]\(([^)]+)\)", README))
def test_pictures_are_there(picture: str) -> None:
    assert (ROOT / picture).read_bytes().startswith(b"\x89PNG")


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
