"""Runs joined into one."""

from __future__ import annotations

from pathlib import Path

import pytest

from effbench.errors import BadInput
from effbench.frame import load_run
from effbench.merge import merge
from tests.synthetic import ENVIRONMENT, failed, make_cell, measured, write_run

ONE, TWO = make_cell(), make_cell(seq=2048)


def test_visits_of_both_count_and_cells_are_all_there(tmp_path: Path) -> None:
    first = write_run(
        tmp_path / "a", [ONE], [measured(ONE, [1.0, 1.0]), measured(ONE, [1.2], round=1, process="x")]
    )
    second = write_run(tmp_path / "b", [ONE, TWO], [measured(ONE, [1.4]), measured(TWO, [2.0])])
    assert merge([first, second], tmp_path / "c") == {tmp_path / "c": [first, second]}
    joint = load_run(tmp_path / "c")
    assert list(joint.frame["time_s"]) == [1.2, 2.0]
    assert joint.samples(ONE.id) == [[1.0, 1.0], [1.2], [1.4]], "one name in two runs is two processes"


def test_the_first_answer_decides(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", [ONE], [failed(ONE, "oom", "too large")])
    second = write_run(tmp_path / "b", [ONE], [measured(ONE, [1.4])])
    merge([first, second], tmp_path / "c")
    assert list(load_run(tmp_path / "c").frame["status"]) == ["oom"]


def test_machines_are_kept_apart_or_refused(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", [ONE], [measured(ONE, [1.0])])
    second = write_run(
        tmp_path / "b",
        [ONE],
        [measured(ONE, [3.0], environment="elsewhere")],
        environment="elsewhere",
        environments={"elsewhere": {}},
    )
    with pytest.raises(BadInput, match="--apart"):
        merge([first, second], tmp_path / "c")
    written = merge([first, second], tmp_path / "c", apart=True)
    assert [folder.name for folder in written] == [ENVIRONMENT, "elsewhere"]
    assert [load_run(folder).frame["time_s"][0] for folder in written] == [1.0, 3.0]


def test_what_cannot_be_joined_is_said(tmp_path: Path) -> None:
    first = write_run(tmp_path / "a", [ONE], [measured(ONE, [1.0])])
    mechanisms = {"toy": {"source": "toy@sha256:other"}}
    other = write_run(tmp_path / "b", [ONE], [measured(ONE, [1.0])], mechanisms=mechanisms)
    with pytest.raises(BadInput, match="toy is not the same in"):
        merge([first, other], tmp_path / "c")
    with pytest.raises(BadInput, match="two runs"):
        merge([first], tmp_path / "c")
    with pytest.raises(BadInput, match="holds a run already"):
        merge([first, first], first)
