"""Asks what the machine of a run can do: its ceilings, once for every device and number of threads."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from effbench.calm import is_calm
from effbench.plan import Plan
from effbench.visit import Visitor

_CEILINGS_S = 30.0  # for the rates of one dtype on a loaded machine
_PACE_S = 10.0  # for a look at the cores
_LATER_S = 10.0  # after so long what disturbed a ceiling may be gone
_LONG_S = 60.0  # a run in which the machine drifts, and in which some seconds more do not matter


def keep_ceilings(info: dict[str, Any], plan: Plan, visitor: Visitor) -> None:
    """Measure what this machine can do, once for an environment; a resumed run keeps what was not disturbed.

    The first rates are those of the most threads, which ``gemm = auto`` goes by; other devices and numbers
    of threads of the plan stand in ``others``.
    """
    digest = visitor.environment
    found = _known(info, digest)
    for (device, threads), dtypes in _settings(plan).items():
        known = found.get((device, threads), {})
        if set(dtypes) <= set(known.get("matmul", ())) and not disturbed(known):
            continue
        answer = ask_ceilings(visitor, device, threads, dtypes, precision=_precision(plan))
        if answer.get("status") == "ok":
            found[device, threads] = faster_of(known or answer["ceilings"], answer["ceilings"])
            faster = info["faster"].setdefault(digest, {})
            info["faster"][digest] = {**answer["faster"], **faster}
    _keep(info, digest, found)


def doubtful(info: Mapping[str, Any], visitor: Visitor, *, seconds: float, beaten: bool) -> bool:
    """Whether the ceilings of a run that took so long shall be measured again at its end.

    So where it was long, where cells beat them, and where something else ran when they were taken.
    """
    known = info["ceilings"].get(visitor.environment) or {}
    return seconds > _LONG_S or beaten or (seconds > _LATER_S and disturbed(known))


def raise_ceilings(info: dict[str, Any], plan: Plan, visitor: Visitor) -> None:
    """Measure again at another time, and keep the faster of each rate."""
    found = _known(info, visitor.environment)
    for (device, threads), dtypes in _settings(plan).items():
        answer = ask_ceilings(visitor, device, threads, dtypes, precision=_precision(plan))
        if answer.get("status") == "ok":
            again = answer["ceilings"]
            found[device, threads] = faster_of(found.get((device, threads), again), again)
    _keep(info, visitor.environment, found)


def faster_of(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Of each rate, with its spread, the faster: as good as undisturbed where the slower was undisturbed."""
    rate = next((name for name in one if name.endswith("_per_s")), None)
    if rate is not None:
        found = dict(max(one, other, key=lambda each: float(each[rate])))
        both = all(each.get("disturbed", False) for each in (one, other))
        return found | ({"disturbed": both} if "disturbed" in found else {})
    return {
        **other,
        **{k: faster_of(v, other[k]) if isinstance(v, Mapping) and k in other else v for k, v in one.items()},
    }


def disturbed(ceilings: Mapping[str, Any]) -> bool:
    """Whether a rate among these was taken only while something else had the cores."""
    others = [*ceilings.values(), *ceilings.get("others", ())]
    return bool(ceilings.get("disturbed")) or any(
        disturbed(branch) for branch in others if isinstance(branch, Mapping)
    )


def at_their_best(visitor: Visitor, threads: int) -> bool:
    """Whether so many cores work now as fast as they do at best."""
    best_s = visitor.paces.best(threads)
    server = visitor.servers.get("time", threads=threads, allocator="warm")
    request = {"question": "pace", "threads": threads, "best_s": best_s, "allow": _PACE_S}
    answer = server.ask(request, log=visitor.log("pace"), allow=_PACE_S).answer
    usual = [statistics.median(work) for work in zip(*answer.get("pace_s", ()), strict=True)]
    return answer.get("status") == "ok" and is_calm(usual, None, best_s)


def _known(info: Mapping[str, Any], digest: str) -> dict[tuple[str, int], dict[str, Any]]:
    known = info["ceilings"].get(digest) or {}
    return {
        (one["device"], one["threads"]): {k: v for k, v in one.items() if k != "others"}
        for one in (known, *known.get("others", ()))
        if "device" in one  # those of early versions do not say what they are the rates of
    }


def _keep(info: dict[str, Any], digest: str, found: Mapping[tuple[str, int], dict[str, Any]]) -> None:
    if found:
        first, *others = found.values()
        info["ceilings"][digest] = {**first, "others": others}


def _settings(plan: Plan) -> dict[tuple[str, int], list[str]]:
    """The dtypes asked for each device and number of threads, most threads first."""
    settings = sorted({(cell.device, cell.threads) for cell in plan.cells}, key=_most_threads)
    return {
        (device, threads): list(dict.fromkeys(cell.dtype for cell in plan.cells if cell.device == device))
        for device, threads in settings
    }


def _most_threads(setting: tuple[str, int]) -> tuple[int, str]:
    device, threads = setting
    return -threads, device


def _precision(plan: Plan) -> str:
    """The precision of float32 products that reaches the highest rate among those asked."""
    return "high" if any(cell.precision == "high" for cell in plan.cells) else "highest"


def ask_ceilings(
    visitor: Visitor, device: str, threads: int, dtypes: Sequence[str], *, precision: str = "highest"
) -> dict[str, Any]:
    """The worker's answer where its status is ok: ``ceilings``, and ``faster`` ones by dtype and of heads."""
    server = visitor.servers.get("time", threads=threads, allocator="warm")
    allow = _CEILINGS_S * len(dtypes)
    request = {
        "question": "ceilings",
        "threads": threads,
        "dtypes": dtypes,
        "device": device,
        "precision": precision,
        "best_s": visitor.paces.best(threads),
        "allow": allow,
        "path": sys.path,
    }
    return dict(server.ask(request, log=visitor.log("ceilings"), allow=allow).answer)
