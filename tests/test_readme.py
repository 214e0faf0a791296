"""The README says what is true: commands, mechanisms and pictures exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from effbench.cli import app
from effbench.grammar import parse_axis
from effbench.registry import MECHANISMS, Registry, load_mechanism
from effbench.suite import built_in

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_table_of_commands_is_complete() -> None:
    shown = set(re.findall(r"^\| `effbench (\w+)", README, re.M))
    assert shown == {command.name or command.callback.__name__ for command in app.registered_commands}


def test_the_table_of_mechanisms_is_the_registry() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (.+) \|$", README, re.M))
    registry = Registry.installed(MECHANISMS)
    ours = [n for n, claims in registry.claims.items() if claims[0].target.startswith("effbench.")]
    assert set(rows) == set(ours)
    for name in ours:
        mechanism, _ = load_mechanism(registry, name)
        assert mechanism.complexity
        causal = "yes" if set(mechanism.causal) == {False, True} else "no"
        cells = [
            mechanism.title,
            mechanism.paper,
            mechanism.complexity.time,
            mechanism.complexity.memory,
            causal,
        ]
        assert [cell.strip() for cell in rows[name].split("|")] == cells


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
