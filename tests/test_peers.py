"""docs/peers, a package from outside: well formed, on the public contract only, and equal to our operators.

What wraps a package that is not installed here is not imported: docs/peers/README.md says how to run it.
"""

from __future__ import annotations

import ast
import importlib
import json
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from effbench import products
from effbench.plugin import Mechanism, Shape
from effbench.registry import MECHANISMS, Registry
from effbench.suite import load_suite

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "docs" / "peers"
PROJECT = tomllib.loads((PEERS / "pyproject.toml").read_text())["project"]
POINTS: dict[str, str] = PROJECT["entry-points"]["effbench.mechanisms"]
SOURCES = sorted((PEERS / "effbench_peers").glob("*.py"))
PLAIN = sorted(name for name in POINTS if name.startswith("plain-"))

#: Options that take another path, and lengths for those that need a square.
OPTIONS = {
    "plain-aft-full": [{}, {"rank": None}],
    "plain-aft-local": [{"window": 5}, {"window": 0}],
    "plain-aft-conv": [{}, {"dims": 2, "kernel": 3}],
    "plain-depthwise": [{}, {"dims": 2, "kernel": 3}],
}


@pytest.fixture(scope="module")
def load() -> Iterator[Callable[[str], Mechanism]]:
    """A mechanism of the package, which is on the path for this module only."""

    def mechanism(name: str) -> Mechanism:
        module, _, attribute = POINTS[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    sys.path.insert(0, str(PEERS))
    products.use("torch")
    yield mechanism
    products.use("auto")
    sys.path.remove(str(PEERS))


def test_it_depends_on_effbench_and_not_the_other_way() -> None:
    assert "effbench" in PROJECT["dependencies"]
    public = {line.split(">=")[0] for line in PROJECT["optional-dependencies"]["public"]}
    ours = (ROOT / "pyproject.toml").read_text()
    assert not [name for name in public - {"setuptools"} if name in ours]
    pinned = dict(line.split("==") for line in (PEERS / "constraints.txt").read_text().splitlines()[1:])
    assert public - {"setuptools"} <= set(pinned)


@pytest.mark.parametrize("name", sorted(POINTS))
def test_an_entry_point_leads_to_an_object(name: str) -> None:
    assert name.startswith(("plain-", "peer-"))
    module, _, attribute = POINTS[name].partition(":")
    tree = ast.parse((PEERS / f"{module.replace('.', '/')}.py").read_text())
    assigned = [target.id for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    assert attribute in assigned


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_it_uses_the_public_contract_only(path: Path) -> None:
    used = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            used.add(node.module or "")
    ours = {name for name in used if name.split(".")[0] == "effbench"}
    assert ours <= {"effbench.plugin"}


def test_the_suite_runs_all_of_it_and_says_how_to_install_it() -> None:
    _, suite = load_suite("peers")
    assert set(POINTS) == {name for name in suite.mechanisms if name.startswith(("plain-", "peer-"))}
    assert "docs/peers[public]" in suite.install
    assert "docs/peers/constraints.txt" in suite.install


def test_a_suite_whose_mechanisms_are_missing_says_what_it_needs(effbench, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text('mechanisms = ["nobodys"]\ninstall = "pip install it"')
    done = effbench("run", "s.toml", "--dry-run", cwd=tmp_path)
    assert done.returncode == 2
    assert "'nobodys'" in done.stderr
    assert "This suite needs: pip install it" in done.stderr


def test_as_a_distribution_it_comes_in_by_name(effbench, tmp_path: Path) -> None:
    """As the installed package would: a plain one is listed whole, one whose package is missing is a row."""
    (tmp_path / "effbench_peers").symlink_to(PEERS / "effbench_peers")
    info = tmp_path / "effbench_peers-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: effbench-peers\nVersion: 0.1.0\n")
    lines = ["[effbench.mechanisms]", *(f"{name} = {target}" for name, target in POINTS.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    done = effbench("list", "--json", cwd=tmp_path, path=tmp_path)
    found = {entry["name"]: entry for entry in json.loads(done.stdout)}
    assert set(POINTS) <= set(found)
    assert found["plain-aft-full"]["same_as"] == "aft-full"
    assert not [name for name in PLAIN if "error" in found[name]]


CASES = [(name, options) for name in PLAIN for options in OPTIONS.get(name, [{}])]


@pytest.mark.parametrize(("name", "options"), CASES)
def test_a_plain_formula_is_its_reference_and_our_operator(load, name: str, options: dict) -> None:
    """On the same weights, forward and backward; at the operator's level its parts make the whole."""
    mechanism = load(name)
    causal_forms = (False,) if options.get("dims") == 2 else mechanism.causal
    for causal in causal_forms:
        for n, heads, width in ((1, 1, 3), (9, 2, 5), (81, 2, 4)):
            torch.manual_seed(0)
            shape = Shape(batch=2, seq=n, dim=heads * width, heads=heads)
            module = mechanism.build(shape, causal=causal, **options).double()
            for parameter in module.parameters():
                torch.nn.init.normal_(parameter, std=0.5)
            x = torch.randn(2, n, shape.dim, dtype=torch.float64, requires_grad=True)
            y, expected = module(x), mechanism.reference(module, x)
            torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-10)
            torch.testing.assert_close(module.combine(module.mix(*module.project(x))), y)
            if mechanism.same_as:
                ours = Registry.installed(MECHANISMS).load(mechanism.same_as)
                other = ours.build(shape, causal=causal, **options).double()
                # A Synthesizer of ours keeps what its scores are made of in a part of its own.
                given, names = module.state_dict(), other.state_dict()
                other.load_state_dict({k if k in names else f"scores.{k}": v for k, v in given.items()})
                torch.testing.assert_close(other(x), y, rtol=1e-9, atol=1e-10)
                (got,), (wanted,) = (torch.autograd.grad(z.square().sum(), x) for z in (y, other(x)))
                torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-9)
