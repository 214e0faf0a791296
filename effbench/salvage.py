"""What can still be read of a run whose files are damaged, and what is missing.

Only a report reads a run this way, and says so. Whatever compares or judges refuses damaged files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from effbench.errors import BadInput
from effbench.frame import Run, build_run
from effbench.record import SCHEMA, Record
from effbench.store import INFO, RECORDS, parse, read_info


def salvage(folder: Path | str) -> Run:
    """A run as far as its files can be read; ``info["damage"]`` lists what could not.

    Without a readable ``run.json`` the plan is what the records answer, and nothing is known of the machine
    and of what the mechanisms declare.

    Raises:
        BadInput: there is no run, or nothing of it can be read.
    """
    folder = Path(folder)
    records, damage = _records(folder / RECORDS)
    try:
        info = read_info(folder)
    except BadInput as error:
        if not records:
            raise
        info = _info_of(records)
        damage.insert(0, f"{error}; the plan is what the records answer, the machine is not known")
    return build_run(folder, {**info, "damage": damage}, records)


def _records(path: Path) -> tuple[list[Record], list[str]]:
    """Every record that can be read, and what is wrong with each other line."""
    found: list[Record] = []
    damage: list[str] = []
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                found.append(parse(line, f"{path.name}:{number}"))
            except BadInput as error:
                damage.append(str(error).split("; ")[0])
    return found, damage


def _info_of(records: list[Record]) -> dict[str, Any]:
    """What ``run.json`` would have to say for these records to count."""
    latest = records[-1].environment
    here = [record for record in records if record.environment == latest]
    sources = {record.cell["mechanism"]: {"source": record.source} for record in here}
    return {
        "schema": SCHEMA,
        "title": f"What can be read of a run without {INFO}",
        "plan": [{"id": i, "cell": c} for i, c in {record.id: record.cell for record in here}.items()],
        "mechanisms": sources,
        "environment": latest,
        "environments": {},
        "ceilings": {},
        "state": "damaged",
    }
