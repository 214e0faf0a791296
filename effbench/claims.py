"""What papers printed, as data: each claim names its source and its table, and the cells that would show it.

``suites/claims/NAME.toml`` holds the claims that belong to suite NAME; beside a suite of one's own, in
``claims/NAME.toml``, the same is looked for.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from effbench.claim import KINDS, Claim, Source, Strict
from effbench.errors import BadInput
from effbench.suite import built_in


class Claims(Strict):
    """All that is claimed of one suite."""

    sources: dict[str, Source] = Field(min_length=1)
    claim: list[Claim] = Field(min_length=1)

    @model_validator(mode="after")
    def _sources_are_there(self) -> Self:
        for index, one in enumerate(self.claim):
            if one.source not in self.sources:
                raise ValueError(
                    f"claim[{index}].source: {one.source!r} is none of {', '.join(self.sources)}"
                )
        names = [one.name for one in self.claim]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two claims are called {twice[0]!r}")
        return self


def load_claims(suite: str) -> Claims:
    """The claims of a built-in suite, or of a TOML file where a path is given.

    Raises:
        BadInput: there are none, not TOML, or something in them is not accepted.
    """
    if suite.endswith(".toml"):
        path = Path(suite).parent / "claims" / Path(suite).name
        if not path.is_file():
            raise BadInput(f"there are no claims of {suite}: there is no file {path}")
        return parse_claims(path.read_text(), str(path))
    known = with_claims()
    if suite not in known:
        raise BadInput(f"nothing is claimed of suite {suite!r}; there are claims of {', '.join(known)}")
    return parse_claims(_folder().joinpath(f"{suite}.toml").read_text(), f"suites/claims/{suite}.toml")


def with_claims() -> list[str]:
    """The built-in suites that have claims."""
    return [name for name in built_in() if _folder().joinpath(f"{name}.toml").is_file()]


def _folder() -> Any:
    return resources.files("effbench.suites").joinpath("claims")


def parse_claims(text: str, where: str) -> Claims:
    """Claims from the text of a TOML file; ``where`` stands in front of every error.

    Raises:
        BadInput: the first thing that is not accepted, with its place.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{where}: not TOML: {error}") from None
    try:
        return Claims.model_validate(data)
    except ValidationError as error:
        raise BadInput(f"{where}: {_explain(error, data)}") from None


def _explain(error: ValidationError, data: Mapping[str, Any]) -> str:
    """The first fault with its place, and the name of its claim."""
    first = error.errors()[0]
    # A claim's kind stands in the place as if it were a key.
    steps = [step for step in first["loc"] if step not in KINDS]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    name = ""
    if steps[:1] == ["claim"] and len(steps) > 1 and isinstance(steps[1], int):
        name = (
            str(data["claim"][steps[1]].get("name", "")) if isinstance(data["claim"][steps[1]], dict) else ""
        )
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "unknown key"
    called = f" ({name})" if name else ""
    return f"{place}{called}: {message}" if place else message
