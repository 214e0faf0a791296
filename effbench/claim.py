"""What a paper printed, as data: where it stands, the cells that would show it, and when it holds.

The kinds: a ``Ratio`` of two cells, a ``Growth`` along lengths, an ``Order`` of cells, a ``Reach`` until
memory runs out, a ``Sooner`` of two crossovers, and a ``Statement`` of what is not measured here.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

KINDS = ("ratio", "exponent", "order", "reach", "sooner", "statement")
#: What a ratio may be of; ``speed`` is samples a second.
METRIC = Literal["speed", "tokens_per_s", "time_s", "peak_bytes", "total_bytes", "params", "flops"]
#: What depends on the clock, and so on the kind of processor.
TIMED = ("speed", "tokens_per_s", "time_s")
#: What makes cells of different shapes.
SHAPE = ("level", "mode", "batch", "seq", "dim")


class Strict(BaseModel):
    """Data that refuses what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(Strict):
    """Where something was printed, and on what it had been measured."""

    paper: str = Field(min_length=1)
    hardware: str = Field(min_length=1)
    device: Literal["cpu", "gpu", "tpu"]


class Where(Strict):
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


class _Claim(Strict):
    name: str = Field(min_length=1, description="what is claimed, as a reader should see it")
    source: str = Field(description="a key of sources")
    table: str = Field(min_length=1, description="the table, figure or section that prints it")
    numbers: list[int] = Field([], description="of the list in docs/reproductions that it is part of")
    where: Where = Where()
    note: str = Field("", description="what of the paper's setting is not as here")
    not_comparable: str = Field("", description="why it is not to be judged, whatever is measured")


class _OfOne(_Claim):
    of: Where

    @property
    def of_cell(self) -> Where:
        return self.where.and_(self.of)


class _OfTwo(_OfOne):
    to: Where

    @property
    def to_cell(self) -> Where:
        return self.where.and_(self.to)


class Beside(Strict):
    """The same numerator over another cell: shown, not judged."""

    says: str = Field(min_length=1)
    to: Where
    of: Where = Where()
    printed: float | None = Field(None, gt=0)


class Ratio(_OfTwo):
    """One number of a cell over that of another."""

    kind: Literal["ratio"]
    metric: METRIC
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
        if not self.across_shapes:
            return self
        if not any(self.cells_of(one)[0].shape == self.cells_of(one)[1].shape for one in self.also):
            raise ValueError("of and to differ in shape; give the ratio at the same shape in also")
        return self

    def cells_of(self, beside: Beside) -> tuple[Where, Where]:
        """The two cells of a ratio that is shown beside this one."""
        return self.of_cell.and_(beside.of), self.to_cell.and_(beside.to)

    @property
    def across_shapes(self) -> bool:
        """Whether two mechanisms are compared at different shapes; of one, the shapes are the point."""
        of, to = self.of_cell, self.to_cell
        return of.shape != to.shape and of.mechanism != to.mechanism

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


class Growth(_OfOne):
    """The exponent of one number along lengths or widths, per sample."""

    kind: Literal["exponent"]
    metric: Literal["time_s", "alloc_bytes", "flops"]
    along: Literal["seq", "dim"] = "seq"
    printed: float = Field(ge=0)
    tolerance: float = Field(0.3, gt=0, description="how far off the printed exponent still counts as it")

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


class Reach(_OfTwo):
    """How many times as long a mechanism goes as another before a pass does not fit the memory."""

    kind: Literal["reach"]
    printed: float = Field(gt=1)
    factor: float = Field(1.5, ge=1, description="how far below the printed ratio still counts as it")

    @property
    def least(self) -> float:
        """The least ratio of lengths with which the claim holds."""
        return self.printed / self.factor


class Crossover(Strict):
    """The length from which on one mechanism costs less than another."""

    says: str = Field(min_length=1)
    metric: Literal["time_s", "peak_bytes", "total_bytes"]
    of: Where
    to: Where


class Sooner(_Claim):
    """One crossover at a shorter length than another."""

    kind: Literal["sooner"]
    first: Crossover
    second: Crossover
    printed: str = Field(min_length=1, description="the lengths in the paper's own numbers")

    def rivals(self, one: Crossover) -> tuple[Where, Where]:
        """The cells, at any length, of both sides of a crossover."""
        return self.where.and_(one.of), self.where.and_(one.to)


class Statement(_Claim):
    """What is not measured here; ``not_comparable`` says why."""

    kind: Literal["statement"]
    printed: str = Field(min_length=1)

    @model_validator(mode="after")
    def _says_why(self) -> Self:
        if not self.not_comparable:
            raise ValueError("a statement is not measured: say why in not_comparable")
        return self


Claim = Annotated[Ratio | Growth | Order | Reach | Sooner | Statement, Field(discriminator="kind")]
