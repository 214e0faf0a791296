"""The import directions of effbench/DESIGN.md, held against the code; small files; no dropped comparisons."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

#: module -> what of ours it may import, beside errors. Anything not named here may not exist.
MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "stats": set(),
    "metrics": set(),
    "environment": {"nvml"},
    "nvml": set(),
    "grammar": set(),
    "quantity": set(),
    "plugin": set(),
    "products": set(),
    "attention": set(),
    "source": set(),
    "plausibility": set(),
    "growth": set(),
    "limits": set(),
    "perf": set(),
    "effort": {"cell"},
    "roofline": set(),
    "scrutiny": {"cell", "growth", "plausibility"},
    "scaffold": set(),
    "registry": {"plugin"},
    "pickled": {"plugin", "registry"},
    "overlay": set(),
    "revision": set(),
    "pairs": set(),
    "cell": {"grammar"},
    "stack": {"grammar"},
    "axes": {"cell", "grammar", "stack"},
    "suite": {"axes", "grammar", "stack"},
    "suite_schema": {"suite"},
    "plan": {"cell", "stack", "suite", "registry", "plugin"},
    "record": {"cell"},
    "calm": set(),
    "paces": {"calm"},
    "groups": {"calm", "record"},
    "meters": {"calm", "cell", "nvml", "perf"},
    "prediction": {"cell", "meters", "plugin", "subject"},
    "ceilings": {"calm", "meters", "products"},
    "reversible": set(),
    "model": {"products", "reversible", "stack"},
    "stack_flops": {"plugin", "stack"},
    "subject": {"cell", "model", "plugin", "stack"},
    "check": {"cell", "plugin", "subject"},
    "conformance": {"cell", "check", "growth", "meters", "plugin", "subject"},
    "abilities": {"ceilings", "dialogue", "meters"},
    "worker": {
        *("abilities", "cell", "record", "loading", "plugin", "products", "meters", "environment"),
        *("declaration", "subject", "check", "attention", "conformance", "limits", "dialogue"),
        *("nvml", "perf", "prediction"),
    },
    "bytecode": set(),
    "loading": {"bytecode", "dialogue", "plugin", "registry"},
    "dialogue": {"subject"},
    "declaration": {
        *("cell", "model", "plugin", "registry", "source", "stack", "stack_flops", "subject"),
    },
    "hugepages": set(),
    "first_operations": set(),
    "preheat": {"first_operations", "hugepages", "meters", "nvml", "prediction", "registry"},
    "forkserver": {"preheat", "worker"},
    "outcome": set(),
    "processes": {"outcome"},
    "nursery": {"processes"},
    "servers": {"cell", "environment", "nursery", "perf", "processes"},
    "status": {"outcome", "record"},
    "answers": {"cell", "record"},
    "foresight": {"cell", "effort", "outcome", "processes"},
    "visit": {
        *("answers", "cell", "effort", "foresight", "outcome", "paces", "plan", "record", "processes"),
        *("servers", "status"),
    },
    "estimate": {"cell", "record"},
    "runner": {
        "calibration",
        "cell",
        "effort",
        "estimate",
        "foresight",
        "groups",
        "plan",
        "record",
        "stats",
        "visit",
    },
    "store": {"record"},
    "rows": {"cell", "groups", "record", "roofline", "stats"},
    "frame": {"calm", "cell", "groups", "record", "rows", "scrutiny", "stats", "store"},
    "fit": set(),
    "crossover": set(),
    "lines": {"frame"},
    "words": {"metrics"},
    "bars": set(),
    "plain": set(),
    "salvage": {"frame", "record", "store"},
    "reading": {"frame", "quantity", "ranking", "salvage"},
    "against": {"crossover", "frame", "lines", "metrics", "plausibility", "stats", "words"},
    "ranking": {"against", "frame", "grammar", "lines", "metrics", "plausibility", "words"},
    "scaling": {"cell", "fit", "frame", "growth", "lines", "plausibility"},
    "claim": set(),
    "claims": {"claim", "suite"},
    "evidence": {"against", "claim", "frame", "lines", "metrics", "plausibility"},
    "reproduction": {"claim", "claims", "evidence", "fit", "frame", "lines", "metrics", "ranking", "scaling"},
    "retelling": {"claim", "claims", "frame", "reproduction", "summary"},
    "terminal": {"frame", "progress", "runner", "session", "summary"},
    "judgement": {"metrics"},
    "paired": {"frame", "judgement", "pairs"},
    "verdict": {"frame", "judgement", "metrics", "paired", "stats"},
    "announce": {"judgement", "metrics"},
    "settings": {"judgement", "metrics"},
    "noise": {"frame", "judgement", "paired", "pairs", "record", "verdict"},
    "merge": {"record", "store"},
    "export": {"frame", "metrics"},
    "render": {"frame", "registry"},
    "calibration": {"calm", "plan", "visit"},
    "doctor": {
        *("calibration", "calm", "cell", "environment", "meters", "nvml", "paces", "perf", "servers"),
        *("stats", "suite", "visit"),
    },
    "session": {
        *(
            "calibration",
            "cell",
            "environment",
            "foresight",
            "frame",
            "paces",
            "pickled",
            "plan",
            "registry",
            "render",
            "rows",
            "runner",
            "store",
        ),
        *("servers", "suite", "visit"),
    },
    "api": {"axes", "cell", "environment", "frame", "grammar", "quantity", "session", "suite"},
    "verification": {"cell", "environment", "plan", "registry", "servers", "status", "visit"},
    "pairing": {"processes", "record", "visit"},
    "side": {"cell", "overlay", "plan", "processes", "registry", "servers", "visit"},
    "sweeps": {
        *("cell", "environment", "paired", "pairing", "plan", "record", "runner", "servers", "session"),
        *("side", "store", "suite", "visit"),
    },
    "gate": {
        *("cell", "frame", "judgement", "overlay", "paired", "revision", "session", "side", "store"),
        *("runner", "sweeps", "verdict"),
    },
    "options": {"api", "axes", "session", "suite"},
    "ci": {
        *("announce", "gate", "merge", "noise", "options", "session", "settings", "terminal"),
    },
    "pytest_plugin": {"api"},
    "listing": {"metrics", "plan", "registry", "session"},
    "progress": {"cell", "metrics", "record", "runner", "words"},
    "summary": {
        *("against", "bars", "frame", "lines", "metrics", "plausibility", "ranking", "scaling", "words"),
    },
    "__init__": {"api", "frame"},
    "__main__": {"cli"},
}
#: Nouns that are folders.
PACKAGES = ("meters", "conformance", "doctor")
#: The run, what is known of numbers and flags, and the answers that are worked out from them.
REPORT_MAY = {
    f"effbench.{noun}"
    for noun in (
        "frame",
        "fit",
        "metrics",
        "plausibility",
        "stats",
        "lines",
        "scaling",
        "against",
        "ranking",
        "roofline",
        "bars",
        "words",
    )
}


def _imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _ours(path: Path, package: str) -> set[str]:
    return {name for name in _imported(path) if name.startswith(package)}


def _core() -> list[Path]:
    folders = ("", *PACKAGES)
    return [path for folder in folders for path in sorted((ROOT / "effbench" / folder).glob("*.py"))]


@pytest.mark.parametrize("path", _core(), ids=lambda p: p.stem)
def test_the_core_imports_in_one_direction(path: Path) -> None:
    noun = path.parent.name if path.parent.name in PACKAGES else path.stem
    if noun == "cli":
        return
    assert noun in MAY_IMPORT, f"{noun} has no line in the table of imports"
    stems = {p.stem for p in (ROOT / "effbench").glob("*.py")} | set(PACKAGES)
    used = {name.split(".")[1] for name in _ours(path, "effbench.")} & stems
    assert used - MAY_IMPORT[noun] - {"errors", noun} == set()


def test_nobody_imports_the_command_line_but_the_program() -> None:
    users = [p.stem for p in _core() if "effbench.cli" in _ours(p, "effbench.cli")]
    assert users == ["__main__"]


@pytest.mark.parametrize("path", _core(), ids=lambda p: p.stem)
def test_the_core_names_no_mechanism_suite_or_report(path: Path) -> None:
    for package in ("effbench.mechanisms", "effbench.suites", "effbench.reports"):
        assert not _ours(path, package)


@pytest.mark.parametrize("path", sorted((ROOT / "mechanisms").glob("*.py")), ids=lambda p: p.stem)
def test_mechanisms_stand_alone(path: Path) -> None:
    """They use what declares them, the products, and private pieces of mathematics that several share."""
    family = path.stem.split("_")[0]
    beginnings = (
        "effbench.plugin",
        "effbench.products",
        "effbench.mechanisms._",
        f"effbench.mechanisms.{family}",
    )
    others = {name for name in _ours(path, "effbench.") if not name.startswith(beginnings)}
    assert others <= {"effbench.mechanisms"}


@pytest.mark.parametrize("path", sorted((ROOT / "reports").glob("*.py")), ids=lambda p: p.stem)
def test_reports_know_the_frame_only(path: Path) -> None:
    private = set(_ours(path, "effbench.reports._"))
    modules = _ours(path, "effbench.") - private - {"effbench.errors", "effbench.errors.BadInput"}
    outside = {
        name for name in modules if not any(name == may or name.startswith(may + ".") for may in REPORT_MAY)
    }
    assert outside <= {"effbench.reports"}
    assert "torch" not in set(_imported(path))


SOURCES = [*_core(), *sorted((ROOT / "mechanisms").glob("*.py")), *sorted((ROOT / "reports").glob("*.py"))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_a_file_holds_one_idea(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 320, "two ideas share this file; look for the seam"


@pytest.mark.parametrize("path", sorted(Path(__file__).parent.rglob("test_*.py")), ids=lambda p: p.stem)
def test_no_comparison_is_computed_and_dropped(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Expr):
            call = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
            assert call.rpartition(".")[2] not in ("allclose", "array_equal", "equal", "isclose"), node.lineno
            assert not isinstance(node.value, ast.Compare), node.lineno
