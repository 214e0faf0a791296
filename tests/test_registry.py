"""Every way of naming a mechanism, lazily; a foreign package found for real; broken plugins stop nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from effbench.errors import BadInput
from effbench.plugin import Mechanism, mechanism_from
from effbench.registry import MECHANISMS, RENDERERS, Claim, Registry, load_mechanism
from effbench.scaffold import write

REQUIRED = {
    *("mha", "mha-sdpa", "aft-full", "aft-local", "aft-simple", "aft-conv"),
    *("linear", "synthesizer-dense", "synthesizer-random", "fnet"),
}


def test_built_ins_come_in_by_entry_points() -> None:
    assert set(Registry.installed(MECHANISMS).claims) >= REQUIRED
    assert set(Registry.installed(RENDERERS).claims) >= {"csv", "markdown", "png", "html", "latex"}


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_file_entry_point_and_declared_name_agree(name: str) -> None:
    mechanism, module = load_mechanism(Registry.installed(MECHANISMS), name)
    assert mechanism.name == name
    assert module is not None
    assert Path(module.__file__ or "").stem == name.replace("-", "_")
    assert mechanism.title
    assert mechanism.complexity
    assert mechanism.reference


def test_making_a_registry_imports_no_plugin() -> None:
    code = (
        "import sys; from effbench.registry import *; Registry.installed(MECHANISMS).check('mha'); "
        "print('torch' in sys.modules, any(m.startswith('effbench.mechanisms') for m in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="'aft-ful'; did you mean 'aft-full'"):
        Registry.installed(MECHANISMS).check("aft-ful")


def test_two_claims_on_a_name_are_an_error_that_names_both() -> None:
    claims = (Claim("x", "a:M", "one 1.0"), Claim("x", "b:M", "two 2.0"))
    with pytest.raises(BadInput, match=r"a:M \(one 1\.0\) and b:M \(two 2\.0\)"):
        Registry(MECHANISMS, {"x": claims}).load("x")


def test_a_module_and_object(tmp_path: Path) -> None:
    mechanism, _ = load_mechanism(Registry.of(MECHANISMS, {}), "effbench.mechanisms.fnet:MECHANISM")
    assert mechanism.name == "fnet"
    with pytest.raises(BadInput, match="effbench.mechanisms.fnet has no 'NOPE'"):
        load_mechanism(Registry.of(MECHANISMS, {}), "effbench.mechanisms.fnet:NOPE")


def test_a_file_with_one_mechanism_and_with_several(tmp_path: Path) -> None:
    path = write("lone-mixer", tmp_path)
    registry = Registry.of(MECHANISMS, {})
    assert load_mechanism(registry, str(path))[0].name == "lone-mixer"
    assert load_mechanism(registry, f"{path}:MECHANISM")[0].name == "lone-mixer"
    assert load_mechanism(registry, f"{path}:build")[0].options == {"decay": 0.9}
    path.write_text(path.read_text() + "\nOTHER = Mechanism(name='other', build=build)\n")
    with pytest.raises(BadInput, match="holds 2 Mechanisms; say which: .*:MECHANISM, .*:OTHER"):
        load_mechanism(registry, str(path))
    empty = tmp_path / "nothing_here.py"
    empty.write_text("x = 1\n")
    with pytest.raises(BadInput, match="holds no Mechanism"):
        load_mechanism(registry, str(empty))
    with pytest.raises(BadInput, match="there is no file"):
        registry.check(str(tmp_path / "missing.py"))


def test_a_class_or_function_is_filled_in_by_name() -> None:
    def mixer(dim: int, causal: bool, *, gain: float = 2.0) -> tuple[int, bool, float]:
        return dim, causal, gain

    from effbench.plugin import Shape

    mechanism = mechanism_from(mixer)
    shape = Shape(batch=1, seq=2, dim=3, heads=1)
    assert mechanism.name == "mixer"
    assert mechanism.options == {"gain": 2.0}
    assert mechanism.causal == (False, True)
    assert mechanism.build(shape, causal=True, gain=5.0) == (3, True, 5.0)

    class PlainMixer:
        def __init__(self, seq: int) -> None:
            self.seq = seq

    plain = mechanism_from(PlainMixer)
    assert (plain.name, plain.causal) == ("plain-mixer", (False,))
    assert plain.build(shape, causal=False).seq == 2


def test_what_is_no_mechanism_is_refused() -> None:
    with pytest.raises(BadInput, match="is no mechanism"):
        mechanism_from(3)
    with pytest.raises(BadInput, match="argument 'width' has no default"):
        mechanism_from(lambda width: None)
    with pytest.raises(BadInput, match="mechanism name 'a b'"):
        Mechanism(name="a b", build=print)


def test_a_foreign_package_is_listed_and_its_broken_plugins_stop_nothing(
    effbench: Callable[..., subprocess.CompletedProcess[str]], third_party: Path, tmp_path: Path
) -> None:
    done = effbench("list", "--json", cwd=tmp_path, path=third_party)
    assert done.returncode == 0, done.stderr
    listed = {one["name"]: one for one in json.loads(done.stdout)}
    assert set(listed) >= REQUIRED | {"decay", "decay-broken", "decay-aborts", "decay-missing"}
    assert listed["decay"]["title"] == "Running mean"
    assert listed["decay"]["origin"] == "effbench_decay.mixer:MECHANISM of effbench-decay 1.2.0"
    assert listed["decay"]["reference"] is True
    assert "this plugin is broken on import" in listed["decay-broken"]["error"]
    assert "SIGABRT" in listed["decay-aborts"]["error"]
    assert "NO_SUCH_OBJECT" in listed["decay-missing"]["error"]
    devices = set(Path("/dev").glob("*.log"))
    table = effbench("list", cwd=tmp_path, path=third_party)
    assert table.returncode == 0
    assert "decay-broken" in table.stdout
    assert not list(tmp_path.iterdir()), "a listing leaves no log behind"
    assert set(Path("/dev").glob("*.log")) == devices, (
        "not among the devices either, where only root may write"
    )


def test_a_foreign_mechanism_runs_beside_ours(
    effbench: Callable[..., subprocess.CompletedProcess[str]], third_party: Path, tmp_path: Path
) -> None:
    words = [
        "run",
        "--mechanism",
        "decay,decay-broken,aft-simple",
        "--seq",
        "16,32",
        "--dim",
        "8",
        "--causal",
    ]
    done = effbench(*words, "--out", "r", cwd=tmp_path, path=third_party)
    assert done.returncode == 0, done.stderr
    rows = (tmp_path / "r" / "table.csv").read_text().splitlines()
    assert sum(row.startswith("decay,") and ",ok," in row for row in rows) == 2
    assert sum(row.startswith("aft-simple,") and ",ok," in row for row in rows) == 2
    assert sum(row.startswith("decay-broken,") and ",error," in row for row in rows) == 2
