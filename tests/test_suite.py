"""Suites: what is accepted, what is refused and how, and what the command line changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from effbench.axes import make_axes
from effbench.errors import BadInput
from effbench.suite import built_in, load_suite, only, parse_suite, replace_axes, replace_options
from effbench.suite_schema import schema


@pytest.mark.parametrize("name", sorted(built_in()))
def test_built_in_suites_load(name: str) -> None:
    label, suite = load_suite(name)
    assert label == name
    assert suite.title
    assert suite.mechanisms


def test_the_required_suites_are_there() -> None:
    assert {"quick", "scaling", "training"} <= set(built_in())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sequence = 3", "s.toml: unknown key sequence; expected one of axes, baseline,"),
        ("[axes]\nseqlen = 3", "s.toml: unknown key axes.seqlen; expected one of allocator, batch, causal,"),
        ('[[sweep]]\nseq = "8..4"', "s.toml: sweep[0].seq: '8..4' runs backwards"),
        ('[[sweep]]\nseq = "8,8"', "s.toml: sweep[0].seq: 8 is asked twice"),
        ('mechanisms = ["a", "a"]', "s.toml: mechanisms: a is asked twice"),
        ('[axes]\nmode = ["train", "train"]', "s.toml: axes.mode: train is asked twice"),
        ("[axes]\nseq = 1\n[[sweep]]\nseq = 2", "s.toml: sweep[0] and axes both give seq"),
        ('[axes]\nmode = "fwd"', "s.toml: axes.mode: 'fwd' is none of forward, train, decode, generate"),
        ('[axes]\ndevice = "tpu"', "s.toml: axes.device: 'tpu' is none of cpu, cuda, cuda:N"),
        ('[options.a]\nwindow = "1..0"', "s.toml: options: a.window: '1..0' runs backwards"),
        ("[options.a]\nwindow = [1, 1]", "s.toml: options: 1 is asked twice"),
        ("[[sweep]]\nseq = [1, 2]\n[[sweep]]\nseq = 1", "s.toml: sweep[1] asks cells twice"),
        (
            '[[sweep]]\nseq = 1\nmechanisms = ["a", "b"]\n[[sweep]]\nseq = 1\nmechanisms = ["b"]',
            "s.toml: sweep[1] asks cells twice",
        ),
        (
            'mechanisms = ["a"]\n[[sweep]]\nmechanisms = ["b"]',
            "s.toml: sweep[0]: b is none of the suite's mechanisms",
        ),
        (
            "[axes]\nlevel = 'block'\nstack = 3",
            "s.toml: axes.stack: 3 is no table; expected some of classes, depth,",
        ),
        (
            "[axes.stack]\nnorm = 'pre'",
            "s.toml: axes.stack: norm is a matter of level block or model, and this asks",
        ),
        (
            "[[sweep]]\nlevel = 'block'\nstack = { depth = 2 }",
            "s.toml: sweep[0].stack: depth is a matter of level model, and this asks block",
        ),
        (
            "[axes]\nlevel = 'model'\n[axes.stack]\nmemory = 'plain, plain'",
            "s.toml: axes.stack: memory: plain is asked twice",
        ),
        (
            "[axes]\nlevel = 'model'\nstack.depth = 2\n[[sweep]]\nstack.depth = 4",
            "s.toml: sweep[0] and axes both give stack.depth",
        ),
        ("[[sweep]]\noptions.a.window = '2..1'", "s.toml: sweep[0].options: a.window: '2..1' runs backwards"),
        ("[[sweep]]\nsize = 1", "s.toml: unknown key sweep[0].size; expected one of allocator, "),
        ("a =", "s.toml: not TOML: "),
        ("sweep = []", "s.toml: sweep: "),
    ],
)
def test_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse_suite(text, "s.toml")
    assert str(caught.value).startswith(message)


def test_unknown_suite_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'quick'"):
        load_suite("quik")
    with pytest.raises(BadInput, match="no file nowhere/x.toml"):
        load_suite("nowhere/x.toml")


def test_a_plugin_file_is_found_beside_the_suite(tmp_path: Path) -> None:
    (tmp_path / "own.toml").write_text('mechanisms = ["mine.py:M", "mha"]')
    name, suite = load_suite(str(tmp_path / "own.toml"))
    assert (name, suite.mechanisms) == ("own", [f"{tmp_path}/mine.py:M", "mha"])


CROSS = parse_suite('[[sweep]]\nseq = "1..4"\ndim = 8\n[[sweep]]\nseq = 2\ndim = "8..32"', "cross")


@pytest.mark.parametrize(
    ("axes", "sweeps"),
    [
        ({"seq": "5,6"}, [{"seq": [5, 6], "dim": [8]}, {"seq": [2], "dim": [8, 16, 32]}]),
        ({"dim": "5,6"}, [{"seq": [1, 2, 4], "dim": [8]}, {"seq": [2], "dim": [5, 6]}]),
        ({"seq": 5}, [{"seq": [5], "dim": [8]}, {"seq": [5], "dim": [8, 16, 32]}]),
        ({"dim": 5}, [{"seq": [1, 2, 4], "dim": [5]}, {"seq": [2], "dim": [5]}]),
        ({"seq": "5,6", "dim": "7,9"}, [{"seq": [5, 6], "dim": [7, 9]}]),
        (
            {"causal": True},
            [
                {"seq": [1, 2, 4], "dim": [8], "causal": [True]},
                {"seq": [2], "dim": [8, 16, 32], "causal": [True]},
            ],
        ),
    ],
)
def test_axes_of_the_command_line(axes: dict[str, object], sweeps: list[dict[str, object]]) -> None:
    assert replace_axes(CROSS, make_axes(axes, "--")).sweeps() == sweeps


SOME = parse_suite(
    'mechanisms = ["a", "b"]\n[[sweep]]\nseq = 1\n[[sweep]]\nseq = 2\nmechanisms = ["b"]', "some"
)


def test_a_sweep_may_ask_some_of_the_mechanisms() -> None:
    assert SOME.sweeps("a") == [{"seq": [1]}]
    assert SOME.sweeps("b") == [{"seq": [1]}, {"seq": [2]}]
    train = replace_axes(SOME, make_axes({"mode": "train"}, "--"))
    assert train.sweeps("a") == [{"seq": [1], "mode": ["train"]}]
    both = replace_axes(SOME, make_axes({"seq": 3, "dim": 4}, "--"))
    assert both.sweeps("a") == both.sweeps("b") == [{"seq": [3], "dim": [4]}]


WINDOWS = parse_suite(
    'mechanisms = ["a", "b"]\n[options.a]\nwindow = 8\nrank = 2\n'
    "[[sweep]]\nseq = 4\n[[sweep]]\nseq = 4\noptions.a.window = '1..4'",
    "windows",
)


def test_a_sweep_may_ask_other_options() -> None:
    assert [WINDOWS.options_in(sweep, "a") for sweep in WINDOWS.sweep] == [
        {"window": [8], "rank": [2]},
        {"window": [1, 2, 4], "rank": [2]},
    ]
    train = replace_axes(WINDOWS, make_axes({"mode": "train"}, "--"))
    assert [sweep.options for sweep in train.sweep] == [sweep.options for sweep in WINDOWS.sweep]
    asked = replace_options(WINDOWS, {"a": {"window": [16]}})
    assert [asked.options_in(sweep, "a") for sweep in asked.sweep] == [{"window": [16], "rank": [2]}] * 2


def test_options_go_with_their_mechanism() -> None:
    assert only(WINDOWS, ["b"]).options == {}
    assert all(sweep.options == {} for sweep in only(WINDOWS, ["b"]).sweep)
    assert only(WINDOWS, ["a", "c"]).options == WINDOWS.options


def test_axes_errors_name_the_option() -> None:
    with pytest.raises(BadInput, match=r"^--seq: '8\.\.1' runs backwards"):
        make_axes({"seq": "8..1"}, "--")


def test_the_schema_for_editors_is_up_to_date() -> None:
    path = Path(__file__).parents[1] / "suites" / "suite.schema.json"
    assert path.read_text() == schema(), "run `make schema`"


def test_the_command_line_changes_a_stack_key_by_key() -> None:
    suite = parse_suite("[axes]\nlevel = 'model'\nstack = { depth = '2..8', memory = 'reversible' }", "deep")
    asked = replace_axes(suite, make_axes({"stack": {"depth": 3}}, "--"))
    assert asked.sweeps() == [{"level": ["model"], "stack.depth": [3], "stack.memory": ["reversible"]}]
    with pytest.raises(BadInput, match=r"^--stack: depth is a matter of level model, and this asks layer"):
        replace_axes(suite, make_axes({"level": "layer", "stack": {"depth": 3}}, "--"))
