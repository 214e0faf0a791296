"""Laws of sight: which inputs an output may depend on, and does."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from effbench.conformance.trial import Broken, NotApplicable, Trial

#: How much of the largest output may move where nothing should: what sums taken in another order differ by.
ROUNDING = {"float64": 1e-14, "float32": 4e-6, "float16": 4e-3, "bfloat16": 3e-2}

#: What is done to later tokens: drawn anew, dwarfing the earlier ones, and so large that exponentials end.
_FUTURES = {
    "drawn anew": (0.0, 1.0),
    "made 20 times larger": (20.0, 0.0),
    "made 1000 times larger": (1e3, 0.0),
}


def rows_of_a_batch_do_not_talk(trial: Trial) -> None:
    """A row's answer is the same alone and beside any other row, to the dtype's rounding."""
    for cell in trial.sizes(65):
        module, x = trial.module(cell), trial.sample(cell)
        other = torch.cat([50 * trial.sample(cell, repeat=1)[:1], x[1:]])
        with torch.no_grad():
            y = module(x)[1:]
            for text, found in (("alone", module(x[1:])), ("beside another", module(other)[1:])):
                moved = _moved(found, y, y)
                if not moved <= ROUNDING[cell.dtype]:
                    raise Broken(f"a row of the batch {text} differs by {moved:.2g} of the largest output")


def future_is_invisible(trial: Trial) -> None:
    """Causal: later tokens move no earlier output by more than the dtype's rounding of the largest output."""
    _needs_causal(trial)
    wide = [dtype for dtype in trial.mechanism.dtypes if dtype in ("float32", "float64")]
    for dtype in wide or [trial.widest]:
        for cell in trial.sizes(7, 70, dtype=dtype):
            for other in _other_futures(trial.module(cell), trial.sample(cell)):
                moved = _moved(other.earlier, other.before, other.whole)
                if not moved <= ROUNDING[dtype]:
                    raise Broken(
                        f"later tokens {other.what} move earlier outputs by {moved:.2g} of the largest"
                    )


def future_is_invisible_to_the_bit(trial: Trial) -> None:
    """Causal: later tokens move no earlier output by a single bit, in every declared dtype."""
    _needs_causal(trial)
    wrong = {}
    for dtype in trial.mechanism.dtypes:
        for cell in trial.sizes(7, 70, 1031, width=2, dtype=dtype):
            for other in _other_futures(trial.module(cell), trial.sample(cell)):
                if not torch.equal(other.before, other.earlier):
                    wrong[dtype] = f"later tokens {other.what} change earlier outputs ({trial.where})"
    if wrong:
        raise Broken(parts=wrong)


def past_is_visible(trial: Trial) -> None:
    """Causal: every output depends on its own and on every earlier token."""
    _needs_causal(trial)
    _everything_is_seen(trial)


def every_token_is_visible(trial: Trial) -> None:
    """Not causal: every output depends on every token, later ones too."""
    if trial.causal:
        raise NotApplicable("it has a causal form only")
    _everything_is_seen(trial)


def _needs_causal(trial: Trial) -> None:
    if not trial.causal:
        raise NotApplicable("it has no causal form")


class _Future(NamedTuple):
    what: str  # was done to later tokens
    before: torch.Tensor  # earlier outputs as they were
    earlier: torch.Tensor  # and as they are now
    whole: torch.Tensor  # all outputs as they are now


def _other_futures(module: nn.Module, x: torch.Tensor) -> list[_Future]:
    n, fresh, found = x.shape[1], torch.flip(x, (1, 2)), []
    with torch.no_grad():
        y = module(x)
        for what, (scale, share) in _FUTURES.items():
            for t in sorted({n // 2, n - 1} - {0}):
                touched = x.clone()
                touched[:, t:] = x[:, t:] * scale + fresh[:, t:] * share
                after = module(touched)
                found.append(_Future(what, y[:, :t], after[:, :t], after))
    return found


def _everything_is_seen(trial: Trial) -> None:
    for cell in trial.sizes(9, batch=1):
        module, x = trial.module(cell), trial.sample(cell).requires_grad_()
        y = module(x)
        if not y.requires_grad:
            raise Broken("no output depends on the input")
        unseen = []
        for t in range(cell.seq):
            (slope,) = torch.autograd.grad(y[0, t].sin().sum(), x, retain_graph=True)
            size = slope[0].abs().amax(-1)
            last = t if trial.causal else cell.seq - 1
            unseen += [(t, s) for s in range(last + 1) if not size[s] > 1e-12 * size.max()]
        if unseen:
            t, s = unseen[0]
            raise Broken(f"output {t} does not depend on token {s}, nor do {len(unseen) - 1} other pairs")


def _moved(found: torch.Tensor, before: torch.Tensor, whole: torch.Tensor) -> float:
    """The largest change, relative to the largest of all outputs; nan where something is not finite."""
    largest = whole.double().abs().max().clamp(min=1e-30)
    return ((found.double() - before.double()).abs().max() / largest).item()
