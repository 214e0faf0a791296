"""The files of a run: nothing that was written whole is lost, and damage is said with file and line."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from effbench.errors import BadInput
from effbench.store import Store, read_info, read_records
from tests.synthetic import make_cell, make_info, measured

CELL = make_cell()


def record(round: int = 0):
    return measured(CELL, [0.25, 0.5], round=round)


def filled(folder: Path, rounds: int = 2) -> Path:
    with Store(folder) as store:
        for number in range(rounds):
            store.append(record(number))
    return folder / "records.jsonl"


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    filled(tmp_path / "a" / "b")
    assert read_records(tmp_path / "a" / "b") == [record(0), record(1)]


def test_a_line_is_on_disk_when_append_returns(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        store.append(record())
        line = json.loads((tmp_path / "records.jsonl").read_text())
        assert store.records() == [record()]
    assert (line["schema"], line["id"], line["cell"]["mechanism"]) == (1, CELL.id, "toy")


@pytest.mark.parametrize("kept", [1, 10, 200])
def test_a_partial_last_line_is_passed_over_and_cut_off(tmp_path: Path, kept: int) -> None:
    path = filled(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[0][:kept])
    assert read_records(tmp_path) == [record(0), record(1)]
    with Store(tmp_path) as store:
        store.append(record(2))
    assert [found.round for found in read_records(tmp_path)] == [0, 1, 2]


def test_every_cut_keeps_every_whole_line(tmp_path: Path) -> None:
    path = filled(tmp_path)
    whole = path.read_bytes()
    first = whole.index(b"\n")
    for cut in range(0, len(whole), 7):
        path.write_bytes(whole[:cut])
        with Store(tmp_path) as store:
            store.append(record(5))
        rounds = [found.round for found in read_records(tmp_path)]
        assert rounds == ([0, 5] if cut >= first else [5])


def test_a_whole_last_line_without_its_newline_is_kept(tmp_path: Path) -> None:
    path = filled(tmp_path)
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(read_records(tmp_path)) == 2
    with Store(tmp_path) as store:
        store.append(record(2))
    assert len(read_records(tmp_path)) == 3


def test_a_damaged_line_in_the_middle_names_file_and_line(tmp_path: Path) -> None:
    path = filled(tmp_path, 3)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + lines[1][:50] + "\n" + lines[2])
    with pytest.raises(BadInput, match=r"records\.jsonl:2 is damaged"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "records.jsonl:1 has schema 2, newer"),
        ({"status": "fine"}, "records.jsonl:1 is no record: status"),
    ],
)
def test_a_line_that_cannot_be_understood_is_named(tmp_path: Path, changes: dict, message: str) -> None:
    (tmp_path / "records.jsonl").write_text(json.dumps(json.loads(record().line()) | changes) + "\n")
    with pytest.raises(BadInput, match=message.replace(".", r"\.")):
        read_records(tmp_path)


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Store(tmp_path), pytest.raises(BadInput, match=r"another run .* is writing to"):
        Store(tmp_path)
    Store(tmp_path).close()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = "import os, sys; from effbench.store import Store; Store(sys.argv[1]); os._exit(0)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    Store(tmp_path).close()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file"):
        Store(tmp_path / "file")


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """What a full disk is to a file that grows: its last write is cut short."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_said_with_the_file_and_loses_nothing(tmp_path: Path) -> None:
    path, info = filled(tmp_path), make_info([CELL])
    with Store(tmp_path) as store:
        store.write_info(info)
        with files_of_at_most(path.stat().st_size + 10):
            with pytest.raises(BadInput, match=r"records\.jsonl cannot be written: No space left .* is kept"):
                store.append(record(2))
            with pytest.raises(BadInput, match=r"run\.json cannot be written: "):
                store.write_info({**info, "title": "x" * path.stat().st_size * 2})
    assert read_records(tmp_path) == [record(0), record(1)]
    assert read_info(tmp_path) == info
    assert sorted(os.listdir(tmp_path)) == [".lock", "records.jsonl", "run.json"]


def test_a_folder_that_may_not_be_written_to_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # root may write anywhere
    with pytest.raises(BadInput, match=r"nosuch cannot be written: Permission denied.*--out"):
        Store(tmp_path / "nosuch")


def test_run_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        assert store.info() is None
        store.write_info(make_info([CELL]))
        store.write_info(make_info([CELL], state="running"))
        assert store.info() == read_info(tmp_path)
    assert read_info(tmp_path)["state"] == "running"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "records.jsonl", "run.json"]


def test_starting_over_forgets_everything(tmp_path: Path) -> None:
    filled(tmp_path)
    with Store(tmp_path) as store:
        store.clear()
        store.append(record(7))
    assert [found.round for found in read_records(tmp_path)] == [7]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no effbench run in"),
        ('{"schema": 1', "run.json is damaged"),
        ("[]", "run.json is damaged"),
        ('{"schema": 99}', "run.json has schema 99"),
        ("{}", "run.json has no schema"),
    ],
)
def test_a_folder_without_a_readable_run_says_so(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "run.json").write_text(text)
    with pytest.raises(BadInput, match=message):
        read_info(tmp_path)
