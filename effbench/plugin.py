"""All that a mechanism declares with.

One alphabet for the whole project: ``b`` batch, ``n`` sequence length, ``d`` width, ``h`` heads,
``e = d / h`` width of a head, ``s`` window or kernel, ``r`` rank. Times are in seconds, memory in
bytes, and a multiply-add counts as 2 FLOPs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from effbench.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

#: What ``build`` and a module's constructor may ask for by name.
SHAPE_ARGUMENTS = ("batch", "seq", "dim", "heads")


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The sizes that a module is built for: inputs are ``[batch, seq, dim]``."""

    batch: int
    seq: int
    dim: int
    heads: int


@dataclass(frozen=True, kw_only=True)
class Flops:
    """Work of one call, never one sum: a multiply-add is 2 ``matmul`` FLOPs.

    ``elementwise`` counts additions, multiplications and comparisons; ``transcendental`` counts
    exponentials, logarithms and their like, one an element; ``fft`` follows 5 N log2 N for complex
    data and half of it for real data.
    """

    matmul: float = 0
    elementwise: float = 0
    transcendental: float = 0
    fft: float = 0


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Declared growth: sums of products of n, d, s, h, r and log n, such as ``n^2 d + n d``."""

    time: str
    memory: str


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """A sequence mixer and what is known of it. Only name and build are required."""

    name: str
    build: Callable[..., nn.Module]
    title: str = ""
    paper: str = ""
    reference: Callable[..., Any] | None = None
    causal: tuple[bool, ...] = (False, True)
    dtypes: tuple[str, ...] = ("float32", "bfloat16", "float16", "float64")
    complexity: Complexity | None = None
    flops: Callable[..., Flops] | None = None
    needed: Callable[..., Flops] | None = None  # likewise, without the dead parts of tiles
    step_flops: Callable[..., Flops] | None = None  # step_flops(shape): of one more token after shape.seq
    fixed_length: bool = False
    positional: bool = False  # knows where tokens stand, so that a model adds no position embedding
    same_as: str = ""
    supports: Callable[..., str | None] | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", self.name):
            raise BadInput(
                f"mechanism name {self.name!r}: letters, digits and . _ + - are accepted, "
                "the first of them a letter or a digit"
            )
        if not callable(self.build):
            raise BadInput(f"mechanism {self.name}: build must be callable, not {self.build!r}")

    @property
    def options(self) -> dict[str, Any]:
        """The keyword-only arguments of ``build`` with their defaults."""
        parameters = inspect.signature(self.build).parameters.values()
        return {
            p.name: None if p.default is p.empty else p.default
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and p.name != "causal"
        }


def mechanism_from(thing: Any, *, name: str = "") -> Mechanism:
    """A Mechanism from what a user has at hand: a Mechanism, an nn.Module class or a build function.

    A class or function is called with those of shape, batch, seq, dim, heads and causal that its
    signature names; its other arguments are options and need defaults. One that does not name
    causal is taken as non-causal only.

    Raises:
        BadInput: for anything else, and where an argument could not be filled.
    """
    if isinstance(thing, Mechanism):
        return thing
    if not callable(thing) or not hasattr(thing, "__name__"):
        raise BadInput(f"{thing!r} is no mechanism: give a Mechanism, an nn.Module class or a build function")
    parameters = [
        p
        for p in inspect.signature(thing).parameters.values()
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]
    names = {p.name for p in parameters}
    filled = {"shape", "causal", *SHAPE_ARGUMENTS}
    for p in parameters:
        if p.name not in filled and p.default is p.empty:
            raise BadInput(
                f"{thing.__name__}: argument {p.name!r} has no default; shape, causal, "
                f"{', '.join(SHAPE_ARGUMENTS)} are filled in, every other one is an option and needs one"
            )

    def build(shape: Shape, *, causal: bool, **options: Any) -> Any:
        given = {"shape": shape, "causal": causal, **{key: getattr(shape, key) for key in SHAPE_ARGUMENTS}}
        return thing(**{key: value for key, value in given.items() if key in names}, **options)

    knobs = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters if p.name not in filled]
    own = inspect.signature(build).parameters
    build.__signature__ = inspect.Signature([own["shape"], own["causal"], *knobs])  # type: ignore[attr-defined]
    return Mechanism(
        name=name or _kebab(thing.__name__),
        build=build,
        causal=(False, True) if "causal" in names else (False,),
    )


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|_+", "-", name).strip("-").lower()
