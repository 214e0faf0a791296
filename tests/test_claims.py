"""Claims as data: what is accepted, what is refused and how."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from effbench.claim import Claim, Growth, Order, Ratio, Reach, Sooner, Where
from effbench.claims import load_claims, parse_claims, with_claims
from effbench.declaration import describe, unsupported
from effbench.errors import BadInput
from effbench.evidence import matching
from effbench.frame import build_run
from effbench.plan import Description, make_plan
from effbench.registry import MECHANISMS, Registry, load_mechanism
from effbench.suite import built_in, load_suite
from tests.synthetic import make_info

SOURCE = "[sources.a]\npaper = 'Someone 2020'\nhardware = 'one GPU'\ndevice = 'gpu'\n"
BEGIN = SOURCE + "[[claim]]\nname = 'it is faster'\nsource = 'a'\ntable = 'Table 1'\n"
RATIO = BEGIN + "kind = 'ratio'\nmetric = 'speed'\nof.mechanism = 'x'\nto.mechanism = 'y'\n"


def the_only(text: str) -> Any:
    (claim,) = parse_claims(text, "c.toml").claim
    return claim


def test_a_ratio_is_allowed_on_its_side_of_one() -> None:
    assert the_only(RATIO + "printed = 1.3").allowed == (1.0, pytest.approx(1.95))
    assert the_only(RATIO + "printed = 0.8\nfactor = 2").allowed == (0.4, 1.0)
    assert the_only(RATIO + "printed = 3\nfactor = 1.5").allowed == (2.0, 4.5)
    assert the_only(RATIO + "printed = 12\nat_least = 10").allowed == (10.0, float("inf"))
    assert the_only(RATIO + "printed = 1\nat_most = 1.1\nat_least = 0.9").allowed == (0.9, 1.1)


def test_where_is_shared_and_what_is_nearer_counts() -> None:
    text = RATIO + "printed = 2\nwhere = { seq = 8, options.k = 1 }\nof.options = { r = 2 }\nto.options.k = 3"
    claim = the_only(text)
    assert isinstance(claim, Ratio)
    assert claim.of_cell == Where(mechanism="x", seq=8, options={"k": 1, "r": 2})
    assert str(claim.to_cell) == "y seq=8 k=3"
    assert the_only(RATIO + "printed = 2\nof.options.r = 'none'").of_cell.given["options.r"] is None


def test_the_other_kinds() -> None:
    growth = the_only(BEGIN + "kind = 'exponent'\nmetric = 'time_s'\nof.mechanism = 'x'\nprinted = 2")
    assert isinstance(growth, Growth)
    assert growth.allowed == (1.7, 2.3)
    order = "kind = 'order'\nmetric = 'time_s'\nprinted = '1 < 2'\ngroups = [[{mechanism = 'x'}], "
    claim = the_only(BEGIN + "where.seq = 8\n" + order + "[{mechanism = 'y'}]]")
    assert isinstance(claim, Order)
    assert [str(cell) for cell in claim.cells] == ["x seq=8", "y seq=8"]


def test_one_mechanism_at_two_lengths_is_no_comparison_of_shapes() -> None:
    claim = the_only(RATIO.replace("'y'", "'x'") + "printed = 2\nof.seq = 8\nto.seq = 4")
    assert not claim.across_shapes


SHAPES = "printed = 2\nof.dim = 256\nof.stack.depth = 24\nto.dim = 512\nto.stack.depth = 12\n"


def test_a_ratio_between_shapes_needs_one_at_the_same_shape() -> None:
    with pytest.raises(BadInput, match="of and to differ in shape; give the ratio at the same shape in also"):
        the_only(RATIO + SHAPES)
    same = "also = [{ says = 'at 24 x 256', to = { dim = 256, stack.depth = 24 }, printed = 1.3 }]"
    claim = the_only(RATIO + SHAPES + same)
    assert claim.across_shapes
    of, to = claim.cells_of(claim.also[0])
    assert of.shape == to.shape == {"dim": 256, "stack.depth": 24}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a =", "c.toml: not TOML: "),
        (SOURCE, "c.toml: claim: Field required"),
        (
            RATIO.replace("source = 'a'", "source = 'b'") + "printed = 2",
            "c.toml: claim[0].source: 'b' is",
        ),
        (RATIO + "printed = 2\nprinted_on = 3", "c.toml: claim[0].printed_on (it is faster): unknown key"),
        (RATIO + "printed = 0", "c.toml: claim[0].printed (it is faster): Input should be greater than 0"),
        (RATIO + "printed = 1", "c.toml: claim[0] (it is faster): a printed ratio of 1 has no direction"),
        (
            RATIO + "printed = 2\nat_least = 1\nfactor = 2",
            "c.toml: claim[0] (it is faster): give a factor, or at_least and at_most",
        ),
        (
            RATIO + "printed = 2\nat_least = 3\nat_most = 2",
            "c.toml: claim[0] (it is faster): no ratio is at least 3 and at most 2",
        ),
        (
            RATIO.replace("speed", "pace") + "printed = 2",
            "c.toml: claim[0].metric (it is faster): Input",
        ),
        (RATIO + "printed = 2\nto.sequence = 3", "c.toml: claim[0].to.sequence (it is faster): unknown key"),
        (RATIO.replace("'ratio'", "'hunch'"), "c.toml: claim[0] (it is faster): Input tag 'hunch' found"),
        (
            BEGIN + "kind = 'statement'\nprinted = 'x'",
            "c.toml: claim[0] (it is faster): a statement is not measured: say why in not_comparable",
        ),
        (
            BEGIN + "kind = 'reach'\nof.mechanism = 'x'\nto.mechanism = 'y'\nprinted = 1",
            "c.toml: claim[0].printed (it is faster): Input should be greater than 1",
        ),
        (
            RATIO + "printed = 2\n" + RATIO.removeprefix(SOURCE) + "printed = 3",
            "c.toml: two claims are called 'it is faster'",
        ),
    ],
)
def test_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_claims(text, "c.toml")
    assert str(caught.value).startswith(message)


def test_claims_stand_beside_a_suite(tmp_path: Path) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "own.toml").write_text(RATIO + "printed = 2")
    assert len(load_claims(str(tmp_path / "own.toml")).claim) == 1
    with pytest.raises(BadInput, match="there are no claims of .*other.toml: there is no file .*claims"):
        load_claims(str(tmp_path / "other.toml"))
    with pytest.raises(BadInput, match="nothing is claimed of suite 'quick'; there are claims of"):
        load_claims("quick")


@cache
def described(name: str) -> Description:
    found = describe(name, "")
    return Description(**{**found, "causal": tuple(found["causal"]), "dtypes": tuple(found["dtypes"])})


SUITES = with_claims()
PAPERS = [name for name in built_in() if name.startswith("paper-") or name == "lra-efficiency"]


def test_every_suite_of_a_paper_has_claims() -> None:
    assert set(PAPERS) <= set(SUITES)


def lines_of(claim: Claim) -> list[tuple[Where, str, int]]:
    """The lines that a claim is about, what they run along, and how many sizes it needs at the least."""
    match claim:
        case Growth():
            return [(claim.of_cell, claim.along, 4)]
        case Reach():
            return [(cell, "seq", 2) for cell in (claim.of_cell, claim.to_cell)]
        case Sooner():
            return [(cell, "seq", 4) for one in (claim.first, claim.second) for cell in claim.rivals(one)]
        case _:
            return []


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_plans_every_cell_that_its_claims_speak_of(name: str) -> None:
    suite = load_suite(name)[1]
    plan = make_plan(suite, [described(mechanism) for mechanism in suite.mechanisms])
    run = build_run(Path(), make_info(plan.cells), [])
    for claim in load_claims(name).claim:
        if not isinstance(claim, Ratio | Order):
            for line, along, least in lines_of(claim):
                found = [row[along] for row in matching(run, line)]
                assert len(set(found)) == len(found) >= least, (claim.name, found)
        else:
            counts = {str(cell): len(matching(run, cell)) for cell in claim.cells}
            assert set(counts.values()) == {1}, (claim.name, counts)


LIST = re.compile(r"^\| (\d+) \| .* \| (.*) \|$", re.M)


def test_every_claim_of_the_list_is_held_somewhere() -> None:
    """The list of docs/reproductions names the suites; each of their claims says of which it is a part."""
    page = (Path(__file__).parents[1] / "docs" / "reproductions" / "README.md").read_text()
    listed = {int(number): set(re.findall(r"`(.*?)`", suites)) for number, suites in LIST.findall(page)}
    held: dict[int, set[str]] = {}
    for name in SUITES:
        for number in (number for claim in load_claims(name).claim for number in claim.numbers):
            held.setdefault(number, set()).add(name)
    assert sorted(listed) == list(range(1, 26))
    assert held == listed


@pytest.mark.parametrize("name", PAPERS)
def test_a_suite_of_a_paper_plans_nothing_that_its_mechanisms_refuse(name: str) -> None:
    suite = load_suite(name)[1]
    plan = make_plan(suite, [described(mechanism) for mechanism in suite.mechanisms])
    registry = Registry.installed(MECHANISMS)
    loaded = {mechanism: load_mechanism(registry, mechanism)[0] for mechanism in suite.mechanisms}
    assert {cell.id: why for cell in plan.cells if (why := unsupported(loaded[cell.mechanism], cell))} == {}
