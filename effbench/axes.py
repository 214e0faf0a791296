"""The axes of a sweep: what is accepted for each of them, and how a refusal is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from effbench.cell import ALLOCATORS, DTYPES, GEMMS, LEVELS, MODES, PRECISIONS
from effbench.errors import BadInput
from effbench.grammar import parse_axis
from effbench.stack import parse_stack, schema

NUMBERS = ("batch", "seq", "dim", "heads", "threads")
CHOICES: Mapping[str, tuple[str, ...]] = {
    "mode": MODES,
    "level": LEVELS,
    "dtype": DTYPES,
    "gemm": GEMMS,
    "precision": PRECISIONS,
    "allocator": ALLOCATORS,
}
FLAGS = ("causal", "compile")

#: One value, an expression or a list: the schema for editors says so, validation makes a list of it.
Numbers = Annotated[
    list[int],
    WithJsonSchema({"type": ["integer", "string", "array"], "items": {"type": ["integer", "string"]}}),
]
Words = Annotated[list[str], WithJsonSchema({"type": ["string", "array"], "items": {"type": "string"}})]
Flags = Annotated[list[bool], WithJsonSchema({"type": ["boolean", "array"], "items": {"type": "boolean"}})]
#: By key, for levels block and model.
StackTable = Annotated[dict[str, list[Any]], WithJsonSchema(schema())]


class Axes(BaseModel):
    """The values of some axes; what is not given takes its default. Numbers follow the axis grammar."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: Numbers | None = Field(None, description="samples at once, such as 8 or '1..32'")
    seq: Numbers | None = Field(None, description="sequence lengths, such as '1024..65536'")
    dim: Numbers | None = Field(None, description="widths, such as '64..1024'")
    heads: Numbers | None = Field(None, description="heads; left out: one for every 64 of the width")
    threads: Numbers | None = Field(None, description="threads; left out: the usable cores")
    mode: Words | None = Field(None, description=", ".join(MODES))
    level: Words | None = Field(None, description=", ".join(LEVELS))
    dtype: Words | None = Field(None, description=", ".join(DTYPES))
    device: Words | None = Field(None, description="cpu, cuda or cuda:1")
    gemm: Words | None = Field(None, description=", ".join(GEMMS))
    precision: Words | None = Field(None, description=", ".join(PRECISIONS))
    allocator: Words | None = Field(None, description=", ".join(ALLOCATORS))
    causal: Flags | None = Field(None, description="true or false")
    compile: Flags | None = Field(None, description="true or false")
    stack: StackTable | None = Field(
        None, description="what surrounds the mechanism at levels block and model"
    )

    @model_validator(mode="before")
    @classmethod
    def _stack_as_a_table(cls, data: Any) -> Any:
        """``stack.depth`` and its like, as sweeps write them, put into the table again."""
        if not isinstance(data, Mapping):
            return data
        inner = {key: value for key, value in data.items() if key.startswith("stack.")}
        if not inner:
            return data
        rest = {key: value for key, value in data.items() if key not in inner}
        return rest | {"stack": {key.removeprefix("stack."): value for key, value in inner.items()}}

    @field_validator("stack", mode="before")
    @classmethod
    def _stack(cls, value: Any) -> Any:
        return None if value is None else or_value_error(parse_stack, value)

    @field_validator(*NUMBERS, mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return None if value is None else or_value_error(parse_axis, value, where="value")

    @field_validator(*CHOICES, "device", mode="before")
    @classmethod
    def _words(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [word.strip() for word in value.split(",")]
        return once(value)

    @field_validator(*CHOICES)
    @classmethod
    def _known(cls, value: list[str] | None, info: Any) -> list[str] | None:
        accepted = CHOICES[info.field_name]
        for word in value or ():
            if word not in accepted:
                raise ValueError(f"{word!r} is none of {', '.join(accepted)}")
        return value

    @field_validator("device")
    @classmethod
    def _device(cls, value: list[str] | None) -> list[str] | None:
        for word in value or ():
            if not re.fullmatch(r"cpu|cuda(:\d+)?", word):
                raise ValueError(f"{word!r} is none of cpu, cuda, cuda:N")
        return value

    @field_validator(*FLAGS, mode="before")
    @classmethod
    def _flags(cls, value: Any) -> Any:
        return once([value] if isinstance(value, bool) else value)

    @property
    def given(self) -> dict[str, list[Any]]:
        """The axes that were given, with their values; ``stack.depth`` and its like are axes of their own."""
        plain = {name: value for name, value in self if value is not None and name != "stack"}
        return plain | {f"stack.{key}": values for key, values in (self.stack or {}).items()}


def make_axes(given: Mapping[str, Any], where: str) -> Axes:
    """Axes from plain data; ``where`` stands directly in front of the axis in an error: ``--`` for ``--seq``.

    Raises:
        BadInput: the first value that is not accepted.
    """
    try:
        return Axes.model_validate(given)
    except ValidationError as error:
        raise BadInput(f"{where}{explain(error, Axes)}") from None


def explain(error: ValidationError, root: type[BaseModel], **tables: type[BaseModel]) -> str:
    """The first fault with its place; ``tables`` are the models of the root's own tables, by key."""
    first = error.errors()[0]
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in first["loc"]).lstrip(".")
    if first["type"] == "extra_forbidden":
        inside = len(first["loc"]) > 1
        accepted = (tables[str(first["loc"][0])] if inside else root).model_fields
        return f"unknown key {place}; expected one of {', '.join(sorted(accepted))}"
    message = first["msg"].removeprefix("Value error, ").removeprefix("value: ")
    return f"{place}: {message}" if place else message


def or_value_error(parse: Any, value: Any, **place: str) -> Any:
    """What a parser returns; its refusal as the error that pydantic turns into one with a place."""
    try:
        return parse(value, **place)
    except BadInput as error:
        raise ValueError(str(error)) from None


def once(values: Any) -> Any:
    """The values, unless a list holds one of them twice."""
    if isinstance(values, list):
        if not values:
            raise ValueError("the list is empty")
        twice = [value for index, value in enumerate(values) if value in values[:index]]
        if twice:
            raise ValueError(f"{', '.join(map(str, twice))} is asked twice")
    return values
