"""Joins the folders of several runs into one that reports and exports read like any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from effbench.errors import BadInput
from effbench.record import Record
from effbench.store import Store, read_info, read_records

_Runs = Sequence[tuple[Path, dict[str, Any], list[Record]]]


def merge(folders: Sequence[Path], out: Path, *, apart: bool = False) -> dict[Path, list[Path]]:
    """Write the joint run, or one for each environment inside ``out``; the folders written and their sources.

    Of a cell that several runs visited all visits count, and the first folder's answer decides its status.

    Raises:
        BadInput: fewer than two runs, different environments that are not kept apart, one mechanism from two
            sources, or a folder that is written already.
    """
    if len(folders) < 2:
        raise BadInput("merge needs the folders of two runs or more")
    runs = [(folder, read_info(folder), read_records(folder)) for folder in folders]
    by_environment: dict[str, list[tuple[Path, dict[str, Any], list[Record]]]] = {}
    for run in runs:
        by_environment.setdefault(str(run[1].get("environment", "")), []).append(run)
    if len(by_environment) > 1 and not apart:
        found = "; ".join(
            f"{name}: {', '.join(str(folder) for folder, _, _ in some)}"
            for name, some in by_environment.items()
        )
        raise BadInput(
            f"runs of different environments ({found}) cannot be one; --apart writes a folder for each"
        )
    groups = {out / name if apart else out: some for name, some in by_environment.items()}
    for folder, some in groups.items():
        if (folder / "run.json").exists():
            raise BadInput(f"{folder} holds a run already; give another folder with --out")
        _check_sources(some)
    for folder, some in groups.items():
        with Store(folder) as store:
            for record in _records(some):
                store.append(record)
            store.write_info(_info(some))
    return {folder: [source for source, _, _ in some] for folder, some in groups.items()}


def _check_sources(runs: _Runs) -> None:
    seen: dict[str, tuple[str, Path]] = {}
    for folder, info, _ in runs:
        for name, about in info.get("mechanisms", {}).items():
            source = str(about.get("source", ""))
            other, where = seen.setdefault(name, (source, folder))
            if other != source:
                raise BadInput(f"{name} is not the same in {where} ({other}) and {folder} ({source})")


def _records(runs: _Runs) -> list[Record]:
    """All records; rounds of later runs go on from those of earlier ones, and processes stay distinct."""
    joint: list[Record] = []
    following: dict[str, int] = {}
    for number, (_, _, records) in enumerate(runs):
        first = dict(following)
        for record in records:
            round_ = record.round + first.get(record.id, 0)
            following[record.id] = max(following.get(record.id, 0), round_ + 1)
            process = f"{record.process}@{number}" if record.process else ""
            joint.append(record.model_copy(update={"round": round_, "process": process}))
    return joint


def _info(runs: _Runs) -> dict[str, Any]:
    infos = [info for _, info, _ in runs]
    plan = {entry["id"]: entry for info in infos for entry in info.get("plan", [])}
    return {
        **infos[0],
        **{name: _joined(infos, name) for name in ("mechanisms", "environments", "ceilings", "faster")},
        "suite": "+".join(dict.fromkeys(str(info.get("suite", "")) for info in infos)),
        "title": " + ".join(dict.fromkeys(str(info.get("title", "")) for info in infos)),
        "plan": list(plan.values()),
        "circumstances": [one for info in infos for one in info.get("circumstances", [])],
        "state": "merged",
    }


def _joined(infos: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """The first run that says something of a thing has it."""
    return {key: value for info in reversed(infos) for key, value in info.get(name, {}).items()}
