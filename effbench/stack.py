"""What surrounds the mechanism in a block or a model, as plain data: the ``stack`` of a cell."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from effbench.errors import BadInput
from effbench.grammar import parse_axis

_OF_BLOCKS = ("feed_forward", "norm", "memory", "match")
_OF_MODELS = (*_OF_BLOCKS, "depth", "position", "embedding")
_OF_EMBEDDING = {"tokens": ("vocabulary",), "patches": ("patch", "classes")}


class Stack(BaseModel):
    """One block or model; a feed-forward of ratio r has a hidden width of r times the model's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    depth: int = Field(4, ge=1, description="blocks of a model")
    feed_forward: int = Field(4, ge=1, description="hidden width of the feed-forward over the model's width")
    norm: Literal["pre", "post"] = Field("pre", description="pre: x + f(norm(x)); post: norm(x + f(x))")
    memory: Literal["plain", "checkpoint", "reversible"] = Field(
        "plain", description="what training keeps: everything, the inputs of blocks, the last two streams"
    )
    match: Literal["shape", "params"] = Field(
        "shape", description="shape: one feed-forward for all; params: a Transformer's number of parameters"
    )
    embedding: Literal["tokens", "patches"] = Field("tokens", description="what a model reads")
    position: Literal["auto", "learned", "none"] = Field(
        "auto", description="position embedding; auto: where the mechanism knows no positions by itself"
    )
    vocabulary: int = Field(256, ge=1, description="kinds of tokens, in the embedding and in the head")
    patch: int = Field(768, ge=1, description="numbers in a patch, such as 16 x 16 x 3")
    classes: int = Field(1000, ge=1, description="classes of the head that reads patches")


def parse_stack(given: Any) -> dict[str, list[Any]]:
    """The values of each key: numbers by the grammar of axes, words by commas or as a list.

    Raises:
        BadInput: an unknown key or value.
    """
    if not isinstance(given, Mapping):
        raise BadInput(f"{given!r} is no table; expected some of {', '.join(sorted(Stack.model_fields))}")
    values: dict[str, list[Any]] = {}
    for key, value in given.items():
        if key not in Stack.model_fields:
            accepted = ", ".join(sorted(Stack.model_fields))
            raise BadInput(f"unknown key {key}; expected one of {accepted}")
        is_number = Stack.model_fields[key].annotation is int
        values[key] = parse_axis(value, where=key) if is_number else _words(key, value)
    return values


def complete(level: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Every key that says something at this level with its value; the rest of what was given is left out."""
    if level not in ("block", "model"):
        return {}
    whole = Stack(**given).model_dump()
    kept = _OF_BLOCKS if level == "block" else (*_OF_MODELS, *_OF_EMBEDDING[whole["embedding"]])
    return {key: value for key, value in whole.items() if key in kept}


def misplaced(keys: Collection[str], levels: Collection[str]) -> str:
    """Why some key says nothing at any of these levels; "" where all of them do."""
    for key in keys:
        of = ("block", "model") if key in _OF_BLOCKS else ("model",)
        if not set(of) & set(levels):
            return f"{key} is a matter of level {' or '.join(of)}, and this asks {', '.join(levels)}"
    return ""


def schema() -> dict[str, Any]:
    """What an editor is told of a suite's stack: a value, an expression or a list for each key."""
    properties = {}
    for key, field in Stack.model_fields.items():
        single = "integer" if field.annotation is int else "string"
        each = {"type": list(dict.fromkeys((single, "string")))}
        types = [*each["type"], "array"]
        properties[key] = {"description": _about(key), "type": types, "items": each}
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _about(key: str) -> str:
    field = Stack.model_fields[key]
    words = f" ({', '.join(get_args(field.annotation))})" if field.annotation is not int else ""
    return f"{field.description}{words}; {field.default}"


def _words(key: str, value: Any) -> list[Any]:
    values = [word.strip() for word in value.split(",")] if isinstance(value, str) else value
    if not isinstance(values, list) or not values:
        raise BadInput(f"{key}: {value!r} is no word and no list of words")
    for place, word in enumerate(values):
        if word in values[:place]:
            raise BadInput(f"{key}: {word} is asked twice")
        accepted = get_args(Stack.model_fields[key].annotation)
        if word not in accepted:
            raise BadInput(f"{key}: {word!r} is none of {', '.join(accepted)}")
    return values
