"""The files of a run: ``records.jsonl`` (one record a line, appended) and ``run.json`` (what is shared).

Whatever kills a run, every line that was written whole stays: a line is written at once and flushed,
and what a kill left of a last line is cut off before the next one is appended. ``run.json`` is replaced
as a whole. One run at a time writes to a folder; readers need no lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from effbench.errors import BadInput
from effbench.record import SCHEMA, Record

RECORDS, INFO, LOCK = "records.jsonl", "run.json", ".lock"


class Store:
    """The folder of one run, locked for writing until ``close`` (or the end of the ``with`` block)."""

    def __init__(self, folder: Path | str) -> None:
        """Creates and locks the folder.

        Raises:
            BadInput: another run is writing there, the path is no folder, or nothing can be written there.
        """
        self.folder = Path(folder)
        try:
            with _written(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock = _locked(self.folder)
        except (FileExistsError, NotADirectoryError) as error:
            raise BadInput(f"{self.folder} is a file; --out needs a folder") from error
        try:
            with _written(self.folder / RECORDS):
                _repair(self.folder / RECORDS)
                self._records = (self.folder / RECORDS).open("ab", buffering=0)
        except BaseException:
            os.close(self._lock)
            raise

    def append(self, record: Record) -> None:
        """Writes one record; when this returns, the operating system has all of it.

        Raises:
            BadInput: the system does not take it (a full disk); the records before it are as they were.
        """
        line = record.line().encode() + b"\n"
        start = os.fstat(self._records.fileno()).st_size
        try:
            with _written(self.folder / RECORDS):
                if self._records.write(line) != len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except BadInput:
            with contextlib.suppress(OSError):
                self._records.truncate(start)
            raise

    def records(self) -> list[Record]:
        """Every record so far, in the order in which they were written."""
        return read_records(self.folder)

    def info(self) -> dict[str, Any] | None:
        """What ``run.json`` holds; None where there is none yet."""
        return read_info(self.folder) if (self.folder / INFO).exists() else None

    def write_info(self, info: dict[str, Any]) -> None:
        """Replaces ``run.json`` as a whole: a reader sees the old one or the new one, also after BadInput."""
        draft = self.folder / f"{INFO}.tmp"
        try:
            with _written(self.folder / INFO):
                with draft.open("w", encoding="utf-8") as file:
                    json.dump(info, file, indent=1, ensure_ascii=False)
                    file.write("\n")
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(draft, self.folder / INFO)
        except BadInput:
            with contextlib.suppress(OSError):  # a full disk has room for something better
                draft.unlink(missing_ok=True)
            raise

    def clear(self) -> None:
        """Starts over: forgets every record and ``run.json``."""
        self._records.truncate(0)
        (self.folder / INFO).unlink(missing_ok=True)

    def close(self) -> None:
        """Gives the folder free."""
        if not self._records.closed:
            self._records.close()
            os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """What keeps a file or folder from being written is told with the remedy; a file in its place is not."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise
    except OSError as error:
        raise BadInput(
            f"{path} cannot be written: {error.strerror or error}; "
            "what it holds is kept: go on when it can be, or give another folder with --out"
        ) from error


def read_records(folder: Path | str) -> list[Record]:
    """Every whole record of a folder; a last line that a kill cut short is passed over.

    Raises:
        BadInput: a damaged line, or one of a newer effbench; the message names file and line.
    """
    path = Path(folder) / RECORDS
    if not path.exists():
        return []
    *lines, tail = path.read_bytes().split(b"\n")
    found = [parse(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if _is_whole(tail):
        found.append(parse(tail, f"{path}:{len(lines) + 1}"))
    return found


def read_info(folder: Path | str) -> dict[str, Any]:
    """What ``run.json`` of a folder holds.

    Raises:
        BadInput: no run there, a damaged file, or one of a newer effbench.
    """
    path = Path(folder) / INFO
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadInput(
            f"no effbench run in {folder}: {INFO} is missing; give the folder that `effbench run --out` wrote"
        ) from error
    except ValueError as error:
        raise BadInput(f"{path} is damaged: {error}; `effbench run --fresh` starts over") from error
    if not isinstance(info, dict):
        raise BadInput(f"{path} is damaged: it holds no object; `effbench run --fresh` starts over")
    _check_schema(info, str(path))
    return info


def parse(line: bytes, where: str) -> Record:
    """One line of ``records.jsonl``.

    Raises:
        BadInput: it is damaged, or of a newer effbench; the message begins with ``where``.
    """
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise BadInput(f"{where} is damaged: {error}; delete that line to go on without it") from error
    if not isinstance(raw, dict):
        raise BadInput(f"{where} is damaged: it holds no object; delete that line to go on without it")
    _check_schema(raw, where)
    try:
        return Record.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise BadInput(f"{where} is no record: {place} {first['msg']}; delete that line to go on") from error


def _check_schema(raw: dict[str, Any], where: str) -> None:
    schema = raw.get("schema")
    if not isinstance(schema, int):
        raise BadInput(f"{where} has no schema number; expected {SCHEMA}")
    if schema > SCHEMA:
        raise BadInput(
            f"{where} has schema {schema}, newer than {SCHEMA}, which this effbench reads; upgrade it"
        )


def _is_whole(tail: bytes) -> bool:
    """Whether a line without its newline is a whole JSON object all the same."""
    try:
        return isinstance(json.loads(tail), dict)
    except ValueError:
        return False


def _repair(path: Path) -> None:
    """Makes the file end with a newline: a whole last line gets one, a partial one is cut off."""
    if not path.exists():
        return
    content = path.read_bytes()
    if not content or content.endswith(b"\n"):
        return
    start = content.rfind(b"\n") + 1
    if _is_whole(content[start:]):
        with path.open("ab") as file:
            file.write(b"\n")
    else:
        os.truncate(path, start)


def _locked(folder: Path) -> int:
    """An open descriptor that holds the folder's lock; the system gives it free however this process ends."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip()
        os.close(descriptor)
        raise BadInput(
            f"another run{f' (process {holder})' if holder else ''} is writing to {folder}; "
            "wait for it, or give another folder with --out"
        ) from error
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
