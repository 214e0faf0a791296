"""Laws of form: what any module keeps, whatever it computes."""

from __future__ import annotations

import copy

import torch
from torch import nn

from effbench.check import differ, malformed
from effbench.conformance.trial import SEED, Broken, NotApplicable, Trial, direction
from effbench.subject import build_module


def shape_dtype_and_device_are_kept(trial: Trial) -> None:
    """[b, n, d] in, [b, n, d] out, in the same dtype and on the same device, for every declared dtype."""
    wrong = {}
    for dtype in trial.mechanism.dtypes:
        for cell in trial.sizes(1, 7, dtype=dtype):
            x = trial.sample(cell)
            found = malformed(trial.module(cell)(x), x)
            if found:
                wrong[dtype] = f"{found} ({trial.where})"
    if wrong:
        raise Broken(parts=wrong)


def input_is_untouched(trial: Trial) -> None:
    """Neither a forward pass nor a backward one writes into x."""
    for cell in trial.sizes(7):
        module, x = trial.module(cell), trial.sample(cell)
        kept = x.clone()
        with torch.no_grad():
            module(x)
        if not torch.equal(x, kept):
            raise Broken("a forward pass changed its input")
        leaf = x.clone().requires_grad_()
        y = module.train()(leaf)
        y.backward(direction(y))
        if not torch.equal(leaf.detach(), kept):
            raise Broken("a forward and a backward pass changed their input")


def deterministic_in_eval(trial: Trial) -> None:
    """The same input gives the same bits again, whatever was computed in between."""
    for cell in trial.sizes(65):
        module, x = trial.module(cell), trial.sample(cell)
        with torch.no_grad():
            first = module(x).clone()
            module(trial.sample(cell, repeat=1))
            if not torch.equal(module(x), first):
                raise Broken("the same input gave another output the second time")


def same_seed_same_weights(trial: Trial) -> None:
    """Two modules built after the same ``torch.manual_seed`` hold the same values."""
    for cell in trial.sizes(7):
        trial.module(cell)
        one, two = (build_module(trial.mechanism, cell, seed=SEED).state_dict() for _ in range(2))
        names = [name for name in one if not torch.equal(one[name], two[name])]
        if names or one.keys() != two.keys():
            raise Broken(f"built twice after the same seed, these differ: {', '.join(names) or 'the names'}")


def parameters_stay_the_same_objects(trial: Trial) -> None:
    """A forward pass neither replaces a parameter nor changes one: an optimiser holds the objects."""
    for cell in trial.sizes(7):
        module = trial.module(cell)
        held = dict(module.named_parameters())
        kept = {name: parameter.detach().clone() for name, parameter in held.items()}
        with torch.no_grad():
            module(trial.sample(cell))
        now = dict(module.named_parameters())
        wrong = {name: "gone after a forward pass" for name in held if name not in now}
        for name, parameter in now.items():
            if parameter is not held.get(name):
                wrong[name] = "another object after a forward pass"
            elif not torch.equal(parameter, kept[name]):
                wrong[name] = "changed by a forward pass"
        if wrong:
            raise Broken(parts=wrong)


def every_parameter_gets_a_gradient(trial: Trial) -> None:
    """At randomised parameters, none is without a gradient that is finite and somewhere not 0."""
    for cell in trial.sizes(65):
        module = trial.module(cell).train()
        held = _parameters(module)
        y = module(trial.sample(cell))
        if not y.requires_grad:
            raise Broken(parts=dict.fromkeys(held, "the output does not depend on it"))
        _backward(y)
        wrong = {name: text for name, p in held.items() if (text := _lacks(p.grad))}
        if wrong:
            raise Broken(parts=wrong)


def an_optimiser_step_trains_every_parameter(trial: Trial) -> None:
    """One step of an optimiser that was made before the first forward pass changes every parameter."""
    for cell in trial.sizes(65):
        module, x = trial.module(cell).train(), trial.sample(cell)
        held = _parameters(module)
        optimiser = torch.optim.SGD(list(held.values()), lr=0.5)
        kept = {name: p.detach().clone() for name, p in held.items()}
        y = module(x)
        if y.requires_grad:
            _backward(y)
        optimiser.step()
        now = dict(module.named_parameters())
        wrong = {
            name: "unchanged by a step of an optimiser"
            for name in held
            if name not in now or torch.equal(now[name], kept[name])
        }
        if wrong:
            raise Broken(parts=wrong)


def state_dict_round_trip(trial: Trial) -> None:
    """Another module that loads the state answers with the same bits: nothing that matters is left out."""
    for cell in trial.sizes(33, 64):
        module, x = trial.module(cell), trial.sample(cell)
        state = copy.deepcopy(module.state_dict())
        other = trial.module(cell, seed=SEED + 1)
        other.load_state_dict(state)
        with torch.no_grad():
            if not torch.equal(other(x), module(x)):
                raise Broken("a module that loaded its state_dict answers otherwise")


def other_lengths_are_answered_or_refused(trial: Trial) -> None:
    """Built for n, a module is right for shorter and longer input, or raises a ValueError that says why."""
    for cell in list(trial.sizes(65))[:1]:
        module = trial.module(cell)
        for seq in (33, 16, 66, 81):
            other = trial.cell(seq)
            if trial.accepts(other):
                _answered_or_refused(trial, module, trial.sample(other), cell.seq)


def _answered_or_refused(trial: Trial, module: nn.Module, x: torch.Tensor, built: int) -> None:
    kind = f"built for {built} tokens and given {x.shape[1]}, it"
    with torch.no_grad():
        try:
            y = module(x)
        except ValueError as refusal:
            if len(str(refusal)) < 10:
                raise Broken(f"{kind} raised ValueError({str(refusal)!r}), which does not say why") from None
            return
        except Exception as error:
            text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            raise Broken(f"{kind} raised {text}; a ValueError that says why is accepted") from None
        wrong = malformed(y, x)
        if not wrong and trial.mechanism.reference is not None:
            wrong = differ(y, trial.reference(module, x), trial.widest, "output")
    if wrong:
        raise Broken(f"{kind} answered, but {wrong}")


def _parameters(module: nn.Module) -> dict[str, nn.Parameter]:
    held = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not held:
        raise NotApplicable("it has no parameters")
    return held


def _backward(y: torch.Tensor) -> None:
    # A square, so that what scales every output alike is not lost on a sum of 0.
    (y * (y.detach() + direction(y))).sum().backward()  # type: ignore[no-untyped-call]


def _lacks(gradient: torch.Tensor | None) -> str:
    if gradient is None:
        return "it has no gradient"
    if not torch.isfinite(gradient).all():
        return "its gradient is not finite"
    return "" if gradient.any() else "its gradient is 0 everywhere"
