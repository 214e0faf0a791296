"""What papers printed, as data: each claim names its source and its table, and the cells that would show it.

``suites/claims/NAME.toml`` holds the claims that belong to suite NAME; beside a suite of one's own, in
``claims/NAME.toml``, the same is looked for.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from effbench.errors import BadInput
from effbench.suite import built_in

#: What a ratio may be of; ``speed`` is samples a second.
METRIC = Literal["speed", "tokens_per_s", "time_s", "peak_bytes", "total_bytes", "params", "flops"]
#: What depends on the clock, and so on the kind of processor.
TIMED = ("speed", "tokens_per_s", "time_s")
#: What makes cells of different shapes.
SHAPE = ("level", "mode", "batch", "seq", "dim")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Strict):
    """Where something was printed, and on what it had been measured."""

    paper: str = Field(min_length=1)
    hardware: str = Field(min_length=1)
    device: Literal["cpu", "gpu", "tpu"]


class Where(_Strict):
    """Some axes of a cell with their values; what is left out may have any."""

    mechanism: str | None = None
    options: dict[str, Any] = Field({}, description="none is a word here, as on the command line")
    level: str | None = None
    mode: str | None = None
    causal: bool | None = None
    batch: int | None = None
    seq: int | None = None
    dim: int | None = None
    heads: int | None = None
    dtype: str | None = None
    stack: dict[str, Any] = {}

    @field_validator("options")
    @classmethod
    def _none_is_a_word(cls, value: dict[str, Any]) -> dict[str, Any]:
        return {name: None if given == "none" else given for name, given in value.items()}

    def and_(self, other: Where) -> Where:
        """These axes, and over them those of the other one."""
        axes = {**self.model_dump(exclude_none=True), **other.model_dump(exclude_none=True)}
        inner = {"options": {**self.options, **other.options}, "stack": {**self.stack, **other.stack}}
        return Where(**{**axes, **inner})

    @property
    def given(self) -> dict[str, Any]:
        """The axes that are given, each option and each part of the stack as one of its own."""
        plain = self.model_dump(exclude_none=True, exclude={"options", "stack"})
        inner = {"options": self.options, "stack": self.stack}
        return plain | {f"{axis}.{key}": v for axis, table in inner.items() for key, v in table.items()}

    @property
    def shape(self) -> dict[str, Any]:
        """What must be equal for two cells to be of one shape."""
        return {axis: v for axis, v in self.given.items() if axis in (*SHAPE, "stack.depth")}

    def __str__(self) -> str:
        rest = {axis.removeprefix("options."): v for axis, v in self.given.items() if axis != "mechanism"}
        words = " ".join(f"{axis.removeprefix('stack.')}={v}" for axis, v in rest.items())
        return f"{self.mechanism or 'any'} {words}".rstrip()


class _Claim(_Strict):
    name: str = Field(min_length=1, description="what is claimed, as a reader should see it")
    source: str = Field(description="a key of sources")
    table: str = Field(min_length=1, description="the table, figure or section that prints it")
    where: Where = Where()
    note: str = Field("", description="what of the paper's setting is not as here")
    not_comparable: str = Field("", description="why it is not to be judged, whatever is measured")


class Beside(_Strict):
    """The same numerator over another cell: shown, not judged."""

    says: str = Field(min_length=1)
    to: Where
    of: Where = Where()
    printed: float | None = Field(None, gt=0)


class Ratio(_Claim):
    """One number of a cell over that of another."""

    kind: Literal["ratio"]
    metric: METRIC
    of: Where
    to: Where
    printed: float = Field(gt=0)
    factor: float = Field(1.5, ge=1, description="how far off the printed ratio still counts as it")
    at_least: float | None = Field(None, gt=0)
    at_most: float | None = Field(None, gt=0)
    also: list[Beside] = []

    @model_validator(mode="after")
    def _is_judged_by_one_rule(self) -> Self:
        bounds = (self.at_least, self.at_most)
        if bounds != (None, None) and "factor" in self.model_fields_set:
            raise ValueError("give a factor, or at_least and at_most")
        if bounds == (None, None) and self.printed == 1:
            raise ValueError("a printed ratio of 1 has no direction; give at_least and at_most")
        low, high = self.allowed
        if not low < high:
            raise ValueError(f"no ratio is at least {low:g} and at most {high:g}")
        return self

    @model_validator(mode="after")
    def _shapes_are_said_to_differ(self) -> Self:
        if self.of_cell.shape == self.to_cell.shape:
            return self
        if not any(self.cells_of(one)[0].shape == self.cells_of(one)[1].shape for one in self.also):
            raise ValueError("of and to differ in shape; give the ratio at the same shape in also")
        return self

    @property
    def of_cell(self) -> Where:
        return self.where.and_(self.of)

    @property
    def to_cell(self) -> Where:
        return self.where.and_(self.to)

    def cells_of(self, beside: Beside) -> tuple[Where, Where]:
        """The two cells of a ratio that is shown beside this one."""
        return self.of_cell.and_(beside.of), self.to_cell.and_(beside.to)

    @property
    def same_shape(self) -> bool:
        return self.of_cell.shape == self.to_cell.shape

    @property
    def allowed(self) -> tuple[float, float]:
        """The ratios with which the claim holds: on the printed side of 1, and off by ``factor`` at most."""
        if self.at_least is not None or self.at_most is not None:
            return self.at_least or 0.0, self.at_most or float("inf")
        low, high = self.printed / self.factor, self.printed * self.factor
        return (max(1.0, low), high) if self.printed > 1 else (low, min(1.0, high))

    @property
    def cells(self) -> list[Where]:
        """Every cell that the claim speaks of."""
        return [self.of_cell, self.to_cell, *(cell for one in self.also for cell in self.cells_of(one))]


class Growth(_Claim):
    """The exponent of one number along lengths or widths, per sample."""

    kind: Literal["exponent"]
    metric: Literal["time_s", "alloc_bytes", "flops"]
    along: Literal["seq", "dim"] = "seq"
    of: Where
    printed: float = Field(ge=0)
    tolerance: float = Field(0.3, gt=0, description="how far off the printed exponent still counts as it")

    @property
    def of_cell(self) -> Where:
        return self.where.and_(self.of)

    @property
    def allowed(self) -> tuple[float, float]:
        return self.printed - self.tolerance, self.printed + self.tolerance


class Order(_Claim):
    """Groups of cells, those with the least first; within a group nothing is claimed."""

    kind: Literal["order"]
    metric: Literal["time_s", "peak_bytes", "total_bytes"]
    groups: list[list[Where]] = Field(min_length=2)
    printed: str = Field(min_length=1, description="the order in the paper's own numbers")

    @model_validator(mode="after")
    def _groups_hold_cells(self) -> Self:
        if not all(self.groups):
            raise ValueError("a group is empty")
        return self

    @property
    def group_cells(self) -> list[list[Where]]:
        return [[self.where.and_(cell) for cell in group] for group in self.groups]

    @property
    def cells(self) -> list[Where]:
        """Every cell that the claim speaks of."""
        return [cell for group in self.group_cells for cell in group]


Claim = Annotated[Ratio | Growth | Order, Field(discriminator="kind")]


class Claims(_Strict):
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
    steps = [step for step in first["loc"] if step not in ("ratio", "exponent", "order")]
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
