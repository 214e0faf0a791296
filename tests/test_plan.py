"""Plans: every cell once, lines from small to large, orders that a seed repeats."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from effbench.cell import Cell, default_heads
from effbench.errors import BadInput
from effbench.plan import Description, make_plan
from effbench.suite import load_suite, parse_suite


def described(name: str, **options: object) -> Description:
    return Description(spec=name, name=name, origin=f"{name} of a test", options=options)


def test_scaling_is_a_cross_whose_centre_is_asked_once() -> None:
    _, suite = load_suite("scaling")
    plan = make_plan(suite, [described("a"), described("b")])
    assert len(plan.cells) == 2 * (7 + 5 - 1)
    assert len({cell.id for cell in plan.cells}) == len(plan.cells)
    lengths = {(c.seq, c.dim) for c in plan.cells}
    assert {n for n, d in lengths if d == 256} == {1024, 2048, 4096, 8192, 16384, 32768, 65536}
    assert {d for n, d in lengths if n == 4096} == {64, 128, 256, 512, 1024}


def test_the_first_round_holds_every_cell_once_and_small_before_large() -> None:
    _, suite = load_suite("scaling")
    plan = make_plan(suite, [described(name) for name in "abcd"])
    order = list(plan.first_round())
    assert sorted(c.id for c in order) == sorted(c.id for c in plan.cells)
    place = {cell.id: index for index, cell in enumerate(order)}
    for line in plan.lines:
        for small, large in itertools.pairwise(line):
            assert place[small.id] < place[large.id]
    assert [c.mechanism for c in order] != sorted(c.mechanism for c in order), "lines are interleaved"
    assert [c.id for c in order] == [c.id for c in plan.first_round()], "a seed repeats it"


def test_later_rounds_are_shuffled_each_its_own_way() -> None:
    _, suite = load_suite("scaling")
    plan = make_plan(suite, [described(name) for name in "ab"])
    one, two = (plan.later_round(n, plan.cells) for n in (1, 2))
    assert sorted(c.id for c in one) == sorted(c.id for c in two) == sorted(c.id for c in plan.cells)
    assert [c.id for c in one] != [c.id for c in two]


def test_options_are_a_product_over_the_defaults() -> None:
    suite = parse_suite("[axes]\nseq = 4\ndim = 8\n[options.a]\nwindow = '1..4'\nrank = [2, 3]", "x")
    plan = make_plan(suite, [described("a", window=9, rank=9, other="z"), described("b", k=1)])
    of_a = [c.options for c in plan.cells if c.mechanism == "a"]
    assert of_a == [{"window": w, "rank": r, "other": "z"} for w in (1, 2, 4) for r in (2, 3)]
    assert [c.options for c in plan.cells if c.mechanism == "b"] == [{"k": 1}]


def test_options_of_a_sweep_are_its_own() -> None:
    suite = parse_suite(
        "[axes]\ndim = 8\n[options.a]\nwindow = 2\n[[sweep]]\nseq = [4, 8]\n"
        "[[sweep]]\nseq = 4\noptions.a.window = [1, 2]",
        "x",
    )
    cells = make_plan(suite, [described("a", window=9)]).cells
    assert [(c.seq, c.options["window"]) for c in cells] == [(4, 2), (8, 2), (4, 1)]
    suite = parse_suite("[[sweep]]\noptions.c.window = 1", "x")
    with pytest.raises(BadInput, match=r"options\.c: no such mechanism in this run; there are a"):
        make_plan(suite, [described("a")])


def test_unknown_options_are_refused_with_what_there_is() -> None:
    suite = parse_suite("[options.a]\nwindo = 3", "x")
    with pytest.raises(BadInput, match=r"options\.a\.windo: no such option; a has window"):
        make_plan(suite, [described("a", window=1)])
    with pytest.raises(BadInput, match=r"options\.a: no such mechanism in this run; there are b"):
        make_plan(suite, [described("b")])


def test_two_mechanisms_of_one_name_are_refused_naming_both() -> None:
    first = Description(spec="a", name="a", origin="here")
    second = Description(spec="x.py", name="a", origin="there")
    with pytest.raises(BadInput, match=r"two mechanisms are called 'a': here and there"):
        make_plan(parse_suite("", "x"), [first, second])


def test_the_id_depends_on_every_axis_and_on_nothing_else() -> None:
    base = {"mechanism": "a", "seq": 4, "dim": 8, "heads": 1, "threads": 2}
    changed = [
        {"mechanism": "b"},
        {"options": {"x": 1}},
        {"level": "op"},
        {"mode": "train"},
        {"causal": True},
        {"batch": 2},
        {"seq": 5},
        {"dim": 9},
        {"heads": 2},
        {"dtype": "float64"},
        {"device": "cuda"},
        {"threads": 1},
        {"compile": True},
        {"gemm": "auto"},
        {"precision": "high"},
        {"allocator": "default"},
        {"stack": {"depth": 2}},
    ]
    ids = [Cell(**{**base, **change}).id for change in ({}, *changed)]
    assert len(set(ids)) == len(ids)
    assert (
        Cell(**{**base, "options": {"a": 1, "b": 2}}).id == Cell(**{**base, "options": {"b": 2, "a": 1}}).id
    )
    assert all(len(i) == 12 for i in ids)


def test_exceeds_is_larger_along_some_axis_and_smaller_along_none() -> None:
    cell = Cell(mechanism="a", seq=4, dim=8, heads=2, threads=2)

    def other(**change: object) -> Cell:
        return replace(cell, **change)

    assert other(seq=8).exceeds(cell)
    assert other(seq=8, dim=16, heads=4).exceeds(cell)
    assert not other(seq=8, dim=4).exceeds(cell)
    assert not other(seq=8, mechanism="b").exceeds(cell)
    assert not other(seq=8, causal=True).exceeds(cell)
    assert not cell.exceeds(cell)


@given(st.integers(1, 4096))
def test_default_heads_divide_the_width(dim: int) -> None:
    heads = default_heads(dim)
    assert dim % heads == 0
    assert 1 <= heads <= max(1, dim // 64)
    assert dim % 64 or heads == max(1, dim // 64)


def test_a_stack_is_part_of_blocks_and_models_alone() -> None:
    text = "[axes]\nseq = 4\ndim = 8\nlevel = 'layer,block,model'\nstack = { depth = '2,4', norm = 'post' }"
    cells = make_plan(parse_suite(text, "x"), [described("a")]).cells
    assert [(c.level, c.stack.get("depth"), c.stack.get("norm")) for c in cells] == [
        ("layer", None, None),
        ("block", None, "post"),
        ("model", 2, "post"),
        ("model", 4, "post"),
    ]
    assert cells[2].stack["vocabulary"] == 256
    assert "patch" not in cells[2].stack
