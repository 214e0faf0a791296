"""The laws by name, and a check: one law held against one mechanism, waivers taken into account."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from effbench.conformance import cost, exactness, form, sight
from effbench.conformance.trial import Broken, NotApplicable, Trial
from effbench.errors import BadInput
from effbench.plugin import Mechanism, mechanism_from

Law = Callable[[Trial], None]


def _named(*laws: Law) -> dict[str, Law]:
    return {law.__name__: law for law in laws}


#: Every law that a mechanism is asked, in the order of a report.
LAWS: Mapping[str, Law] = _named(
    form.shape_dtype_and_device_are_kept,
    form.input_is_untouched,
    form.deterministic_in_eval,
    form.same_seed_same_weights,
    form.parameters_stay_the_same_objects,
    form.every_parameter_gets_a_gradient,
    form.an_optimiser_step_trains_every_parameter,
    form.state_dict_round_trip,
    form.other_lengths_are_answered_or_refused,
    sight.rows_of_a_batch_do_not_talk,
    sight.future_is_invisible,
    sight.past_is_visible,
    sight.every_token_is_visible,
    exactness.equals_reference,
    exactness.equals_reference_in_every_dtype,
    exactness.equals_reference_at_large_inputs,
    exactness.gradients_equal_the_references,
    exactness.passes_gradcheck,
    exactness.finite_for_large_inputs,
    exactness.finite_when_late_tokens_dwarf_early_ones,
    exactness.step_equals_forward,
    cost.memory_grows_as_declared,
    cost.counted_flops_equal_the_closed_form,
)

#: Laws that honest arithmetic may break, asked for by ``strict``.
STRICT: Mapping[str, Law] = _named(sight.future_is_invisible_to_the_bit)


@dataclass(frozen=True)
class Finding:
    """What became of a check. ``outcome``: passed, skipped, waived or FAILED; ``remark`` says why."""

    outcome: str
    remark: str = ""


@dataclass(frozen=True)
class Check:
    """A law and a mechanism; ``str(check)`` is the law's name, and ``check()`` raises where it is broken.

    ``waived`` holds reasons: under "" for the law as a whole, else by part (a parameter, a dtype).
    """

    law: str
    mechanism: Mechanism
    options: Mapping[str, Any] = field(default_factory=dict)
    waived: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.law

    @property
    def meaning(self) -> str:
        """The law in one sentence."""
        return inspect.cleandoc((LAWS | STRICT)[self.law].__doc__ or "")  # type: ignore[operator]

    def __call__(self) -> None:
        """Hold the law against the mechanism.

        Raises:
            Broken: the law is broken, or it is kept although it was waived.
            NotApplicable: the law says nothing of the mechanism, or its breach is waived; a skipped test.
        """
        finding = self.find()
        if finding.outcome == "FAILED":
            raise Broken(f"{self.mechanism.name}: {self.law}: {finding.remark}\n{self.meaning}")
        if finding.outcome != "passed":
            raise NotApplicable(f"{finding.outcome}: {finding.remark}")

    def find(self) -> Finding:
        """The same as a value; whatever the mechanism raises is a breach."""
        breaches, skipped, kept = [], [], 0
        for causal in sorted(set(self.mechanism.causal)):
            try:
                _hold(self.law, Trial(self.mechanism, causal, self.options))
                kept += 1
            except NotApplicable as reason:
                skipped.append(str(reason))
            except Broken as breach:
                breaches.append(breach)
        if self.waived:
            return self._waived(breaches)
        if breaches:
            return Finding("FAILED", str(breaches[0]))
        return Finding("passed") if kept else Finding("skipped", skipped[-1])

    def _waived(self, breaches: list[Broken]) -> Finding:
        """A waiver covers the breaches that it names, and must cover one."""
        reasons = "; ".join(f"{part}: {why}" if part else why for part, why in self.waived.items())
        broken = {
            part: text for breach in breaches for part, text in (breach.parts or {"": str(breach)}).items()
        }
        if "" in self.waived and broken:
            return Finding("waived", reasons)
        uncovered = {part: text for part, text in broken.items() if part not in self.waived}
        if uncovered:
            part, text = next(iter(uncovered.items()))
            return Finding("FAILED", f"{part}: {text}" if part else text)
        idle = [part for part in self.waived if part not in broken]
        if idle:
            return Finding("FAILED", f"waived{' for ' if any(idle) else ''}{', '.join(idle)}, but it holds")
        return Finding("waived", reasons)


def checks_for(
    mechanism: Any,
    *,
    options: Mapping[str, Any] | None = None,
    waive: Mapping[str, str] | None = None,
    strict: bool = False,
) -> list[Check]:
    """The checks of a mechanism, for ``pytest.mark.parametrize`` with ``ids=str``.

    Args:
        mechanism: a Mechanism, an nn.Module class or a build function.
        options: values of its options; the defaults where left out.
        waive: reasons by law, ``{"passes_gradcheck": "FFT in float32"}``, or by law and part:
            ``{"every_parameter_gets_a_gradient:key.bias": "it cancels in the softmax"}``. A waived
            law that is kept is an error.
        strict: add the laws of ``STRICT``, such as a future invisible to the bit.

    Raises:
        BadInput: no mechanism, an unknown option, an unknown law or a waiver without a reason.
    """
    tried = mechanism_from(mechanism)
    for name in options or {}:
        if name not in tried.options:
            raise BadInput(
                f"{tried.name} has no option {name!r}; it has {', '.join(tried.options) or 'none'}"
            )
    laws = [*LAWS, *(STRICT if strict else ())]
    waived = _by_law(waive or {}, laws)
    return [Check(law, tried, options or {}, waived.get(law, {})) for law in laws]


def _by_law(waive: Mapping[str, str], laws: list[str]) -> dict[str, dict[str, str]]:
    """Reasons by law and part, from ``law`` or ``law:part``."""
    found: dict[str, dict[str, str]] = {}
    for place, reason in waive.items():
        law, _, part = place.partition(":")
        if law not in laws:
            raise BadInput(f"waive: there is no law {law!r}; there are {', '.join(laws)}")
        if not reason.strip():
            raise BadInput(f"waive: {place} needs a reason")
        found.setdefault(law, {})[part] = reason.strip()
    return found


def _hold(law: str, trial: Trial) -> None:
    """Try a law; whatever else the mechanism raises is a breach, and every breach says where it was seen."""
    try:
        (LAWS | STRICT)[law](trial)  # type: ignore[operator]
    except NotApplicable:
        raise
    except Broken as breach:
        if breach.parts or not trial.where:
            raise
        raise Broken(f"{breach} ({trial.where})") from breach
    except Exception as error:
        traceback.print_exc()
        first = (str(error).strip() or "no message").splitlines()[0]
        raise Broken(f"raised {type(error).__name__}: {first} ({trial.where})") from error
