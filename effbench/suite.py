"""A suite is the question of a whole run: which mechanisms, which lines through the space of axes.

Read from TOML; an unknown key or value is refused with its place and what is accepted.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from effbench.axes import Axes, explain, once, or_value_error
from effbench.errors import BadInput
from effbench.grammar import parse_option
from effbench.stack import misplaced

Option = Annotated[list[Any], WithJsonSchema({})]


def _each_option(value: Any) -> Any:
    """The values of every option of every mechanism, each once."""
    if not isinstance(value, dict):
        return value
    return {
        mechanism: {
            name: or_value_error(_option_once, given, where=f"{mechanism}.{name}")
            for name, given in table.items()
        }
        if isinstance(table, dict)
        else table
        for mechanism, table in value.items()
    }


Options = Annotated[dict[str, dict[str, Option]], BeforeValidator(_each_option)]


class Sweep(Axes):
    """A product of axes, for every mechanism of the suite or for some of them."""

    mechanisms: list[str] | None = Field(None, description="those that it asks; left out: all of the suite's")
    options: Options = Field({}, description="options by mechanism, in place of the suite's")

    @property
    def given(self) -> dict[str, list[Any]]:
        return {name: value for name, value in super().given.items() if name not in ("mechanisms", "options")}

    def holds(self, other: Sweep) -> bool:
        """Whether it asks everything that the other one asks."""
        if self.options != other.options:
            return False
        if self.mechanisms is not None and not set(other.mechanisms or [""]) <= set(self.mechanisms):
            return False
        mine, others = self.given, other.given
        return mine.keys() == others.keys() and all(set(others[name]) <= set(mine[name]) for name in mine)


class Suite(BaseModel):
    """Mechanisms, the axes that all sweeps share, and the sweeps: each a product of its own axes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    description: str = ""
    mechanisms: list[str] = Field(
        [], description="as they are named anywhere; left out: every installed mechanism"
    )
    install: str = Field(
        "", description="how to install what does not come with effbench; said where missing"
    )
    baseline: str = Field("mha-sdpa", description="the mechanism that others are compared with, or none")
    axes: Axes = Axes()
    sweep: list[Sweep] = Field([Sweep()], min_length=1)
    options: Options = Field({}, description="options by mechanism, such as window")

    @field_validator("mechanisms")
    @classmethod
    def _mechanisms_once(cls, value: list[str]) -> list[str]:
        once(value)
        return value

    @model_validator(mode="after")
    def _axes_are_given_once(self) -> Suite:
        for index, sweep in enumerate(self.sweep):
            both = sorted(set(sweep.given) & set(self.axes.given))
            if both:
                raise ValueError(
                    f"sweep[{index}] and axes both give {', '.join(both)}; give it in one of them"
                )
        for index, sweep in enumerate(self.sweep):
            for other, earlier in enumerate(self.sweep[:index]):
                if earlier.holds(sweep):
                    raise ValueError(f"sweep[{index}] asks cells twice: sweep[{other}] holds all of them")
        return self

    @model_validator(mode="after")
    def _sweeps_ask_what_the_suite_runs(self) -> Suite:
        for index, sweep in enumerate(self.sweep):
            others = set(sweep.mechanisms or ()) - set(self.mechanisms)
            if others and self.mechanisms:
                raise ValueError(f"sweep[{index}]: {min(others)} is none of the suite's mechanisms")
        return self

    @model_validator(mode="after")
    def _stacks_are_of_blocks_and_models(self) -> Suite:
        if self.axes.stack and (why := _misplaced(self.axes, self.sweeps())):
            raise ValueError(f"axes.stack: {why}")
        for index, (sweep, whole) in enumerate(zip(self.sweep, self.sweeps(), strict=True)):
            if sweep.stack and (why := _misplaced(sweep, [whole])):
                raise ValueError(f"sweep[{index}].stack: {why}")
        return self

    def sweeps(self, mechanism: str | None = None) -> list[dict[str, list[Any]]]:
        """The sweeps with the shared axes filled in: all, or those that ask this mechanism."""
        return [{**self.axes.given, **sweep.given} for sweep in self.asking(mechanism)]

    def asking(self, mechanism: str | None) -> list[Sweep]:
        """The sweeps that ask a mechanism, by its specification; all where it is None."""
        return [
            sweep
            for sweep in self.sweep
            if None in (mechanism, sweep.mechanisms) or mechanism in (sweep.mechanisms or ())
        ]

    def options_in(self, sweep: Sweep, mechanism: str) -> dict[str, list[Any]]:
        """The values that options of a mechanism, by its name, take in a sweep."""
        return {**self.options.get(mechanism, {}), **sweep.options.get(mechanism, {})}


def replace_axes(suite: Suite, axes: Axes) -> Suite:
    """The suite with some axes asked otherwise, as the command line does.

    Lengths alone replace those of the sweeps that sweep length, and leave the others as they are; a
    single length moves every sweep there. Widths likewise. Both together are exactly their product,
    for every mechanism. Any other axis is replaced in every sweep.

    Raises:
        BadInput: a part of a stack is given, and no sweep asks for a level that has it.
    """
    given = axes.given
    sweeps, rest = suite.sweeps(), [{"mechanisms": s.mechanisms, "options": s.options} for s in suite.sweep]
    if "seq" in given and "dim" in given:
        sweeps, rest = sweeps[:1], [{**rest[0], "mechanisms": None}]
    for name, values in given.items():
        swept = [sweep for sweep in sweeps if len(sweep.get(name, ())) > 1]
        lines_only = name in ("seq", "dim") and len(values) > 1 and swept
        for sweep in swept if lines_only else sweeps:
            sweep[name] = values
    if why := _misplaced(axes, sweeps):
        raise BadInput(f"--stack: {why}; --level says which")
    both = zip(sweeps, rest, strict=True)
    return suite.model_copy(
        update={"axes": Axes(), "sweep": [Sweep.model_validate({**axes, **more}) for axes, more in both]}
    )


def only(suite: Suite, mechanisms: Sequence[str]) -> Suite:
    """The suite with exactly these mechanisms; options of those that it loses go with them."""
    lost = set(suite.mechanisms) - set(mechanisms)
    rest = keep_options(suite, lambda name: name not in lost)
    return rest.model_copy(update={"mechanisms": list(mechanisms)})


def keep_options(suite: Suite, of: Callable[[str], bool]) -> Suite:
    """The suite without the options of other mechanisms than these."""

    def left(options: Mapping[str, Any]) -> dict[str, Any]:
        return {name: values for name, values in options.items() if of(name)}

    sweeps = [sweep.model_copy(update={"options": left(sweep.options)}) for sweep in suite.sweep]
    return suite.model_copy(update={"options": left(suite.options), "sweep": sweeps})


def replace_options(suite: Suite, options: Mapping[str, Mapping[str, list[Any]]]) -> Suite:
    """The suite with some options asked otherwise, in every sweep."""
    merged = {name: dict(values) for name, values in suite.options.items()}
    for mechanism, values in options.items():
        merged[mechanism] = {**merged.get(mechanism, {}), **values}

    def kept(sweep: Sweep) -> dict[str, dict[str, list[Any]]]:
        return {
            mechanism: {name: v for name, v in values.items() if name not in options.get(mechanism, {})}
            for mechanism, values in sweep.options.items()
        }

    sweeps = [sweep.model_copy(update={"options": kept(sweep)}) for sweep in suite.sweep]
    return suite.model_copy(update={"options": merged, "sweep": sweeps})


def _misplaced(axes: Axes, sweeps: Sequence[Mapping[str, list[Any]]]) -> str:
    """Why a part of a stack would be asked in vain in these sweeps; "" where none is."""
    levels = [level for sweep in sweeps for level in sweep.get("level", ["layer"])]
    return misplaced(axes.stack or (), list(dict.fromkeys(levels)))


def load_suite(name: str) -> tuple[str, Suite]:
    """(name, suite) of a built-in suite, or of a TOML file where a path is given.

    Raises:
        BadInput: no such suite or file, not TOML, or something in it is not accepted.
    """
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise BadInput(f"there is no file {name}")
        return path.stem, _from_file(_text(path), name, path.parent)
    known = built_in()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}, or a path to a .toml"
        raise BadInput(f"no suite called {name!r}; {hint}")
    return name, parse_suite(known[name].read_text(), f"suites/{name}.toml")


def built_in() -> dict[str, Any]:
    """The suites that come with effbench, by name."""
    folder = resources.files("effbench.suites")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): f for f in files}


def parse_suite(text: str, where: str) -> Suite:
    """A suite from the text of a TOML file; ``where`` stands in front of every error."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{where}: not TOML: {error}") from None
    return make_suite(data, where)


def make_suite(data: Mapping[str, Any], where: str) -> Suite:
    """A suite from plain data.

    Raises:
        BadInput: the first thing that is not accepted, with its place.
    """
    try:
        return Suite.model_validate(data)
    except ValidationError as error:
        raise BadInput(f"{where}: {explain(error, Suite, axes=Axes, sweep=Sweep)}") from None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not TOML: {error}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None


def _from_file(text: str, where: str, folder: Path) -> Suite:
    suite = parse_suite(text, where)

    # A plugin's file is named relative to the suite that names it.
    def found(names: list[str]) -> list[str]:
        return [str(folder / m) if ".py" in m and not Path(m).is_absolute() else m for m in names]

    sweeps = [s.model_copy(update={"mechanisms": s.mechanisms and found(s.mechanisms)}) for s in suite.sweep]
    return suite.model_copy(update={"mechanisms": found(suite.mechanisms), "sweep": sweeps})


def _option_once(value: Any, *, where: str) -> list[Any]:
    values = parse_option(value, where=where)
    once(values)
    return values
