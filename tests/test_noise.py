"""Floors of noise: from pairs of equal sides into a file, and from there to the gate of the same machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from effbench.errors import BadInput
from effbench.frame import load_run
from effbench.judgement import Rules
from effbench.noise import floors_of, read_floors, write_floors
from tests.synthetic import make_cell, measured, write_run

QUIET, NOISY, ONCE = make_cell(), make_cell(seq=2048), make_cell(seq=4096)


def side(folder: Path, name: str, quiet: float, noisy: float):
    levels = [
        (QUIET, [1 + quiet * (n % 2) for n in range(6)]),
        (NOISY, [1 + noisy * (n % 2) for n in range(6)]),
        (ONCE, [1.0]),
    ]
    records = [
        measured(cell, [level] * 4, round=n, pair=n, side=name, process=f"{name}{n}")
        for cell, found in levels
        for n, level in enumerate(found)
    ]
    return load_run(write_run(folder / name, [cell for cell, _ in levels], records))


def test_what_cannot_be_gated_is_known(tmp_path: Path) -> None:
    floors = floors_of(side(tmp_path, "base", 0.0, 0.0), side(tmp_path, "head", 0.005, 0.3), Rules())
    assert [one.id for one in floors] == [NOISY.id, QUIET.id], "the noisiest first; one pair has no floor"
    assert [one.gateable for one in floors] == [False, True]
    assert floors[0].value > 0.2
    write_floors(tmp_path / "deep" / "noise.json", "here", floors)
    write_floors(tmp_path / "deep" / "noise.json", "there", floors[:1])
    found = read_floors(tmp_path / "deep" / "noise.json")
    assert found["here"] == {one.id: one.value for one in floors}
    assert list(found["there"]) == [NOISY.id]


def test_a_file_of_something_else_is_bad_input(tmp_path: Path) -> None:
    assert read_floors(tmp_path / "none.json") == {}
    (tmp_path / "noise.json").write_text('{"floors": 3}')
    with pytest.raises(BadInput, match="noise.json holds no noise floors"):
        read_floors(tmp_path / "noise.json")
