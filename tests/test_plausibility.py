"""Flags: each that the code sets has a meaning; doubts keep a row out of findings, remarks do not."""

import ast
from pathlib import Path

import pytest

from effbench.answers import faults_weigh
from effbench.plausibility import FLAGS, legend, sound

ROOT = Path(__file__).parents[1]


def row(*flags: str, status: str = "ok") -> dict[str, str]:
    return {"status": status, "flags": ";".join(flags)}


@pytest.mark.parametrize(
    ("flags", "metric", "expected"),
    [
        ((), "", True),
        (("borrowed", "unverified", "no-counts"), "", True),
        (("few-samples", "borrowed"), "time_s", True),
        (("slowed",), "", True),
        (("slowed",), "time_s", True),
        (("slowed",), "ceiling_fraction", False),
        (("slowed",), "flops_per_s", False),
        (("unsteady",), "", False),
        (("unsteady",), "time_s", False),
        (("unsteady",), "peak_bytes", True),
        (("peak-too-low",), "tokens_per_s", True),
        (("borrowed", "peak-too-low"), "total_bytes", False),
        (("disturbed-ceiling",), "ceiling_fraction", False),
        (("disturbed-ceiling",), "time_s", True),
        (("disturbed-ceiling",), "", True),
        (("above-ceiling",), "ceiling_fraction", False),
        (("not-finite",), "alloc_bytes", False),
        (("of-a-later-version",), "time_s", False),
    ],
)
def test_a_row_supports_a_finding_unless_a_flag_doubts_its_metric(flags, metric, expected):
    assert sound(row(*flags), metric) is expected


def test_a_row_without_numbers_supports_none():
    assert not sound(row(status="oom"))


def test_every_flag_that_is_set_is_in_the_table():
    found = set().union(*(_flags_set(path) for path in sorted((ROOT / "effbench").rglob("*.py"))))
    assert {"few-samples", "page-faults", "unverified", "borrowed"} <= found, "the search has gone blind"
    assert found <= set(FLAGS)


@pytest.mark.parametrize(
    ("faults", "samples", "expected"),
    [(500, [0.001], False), (5000, [0.1, 0.2], True), (5000, [0.8], False), (50_000, [0.8], True)],
)
def test_page_faults_are_flagged_where_they_may_cost_a_part_of_the_pass(faults, samples, expected):
    assert faults_weigh(faults, samples) is expected


def _flags_set(path: Path) -> set[str]:
    """The literals in ``flags.append("x")``, ``flags += ["x"]`` and ``flags = ["x"]``."""
    found: list[ast.AST] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("flags.append"):
            found += node.args
        if isinstance(node, ast.Assign | ast.AugAssign):
            target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
            if ast.unparse(target).endswith("flags"):
                found += [part for part in ast.walk(node.value) if isinstance(part, ast.List)]
    literals = {part.value for node in found for part in ast.walk(node) if isinstance(part, ast.Constant)}
    return {text for text in literals if isinstance(text, str)}


def test_a_legend_is_in_the_order_of_the_table():
    assert list(legend(["unsteady", "borrowed", "new"])) == ["borrowed", "unsteady", "new"]
