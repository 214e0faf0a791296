"""Writes the file that ``effbench new`` gives: a mechanism that runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from effbench.errors import BadInput

_TEMPLATE = '''"""{title}: a decaying average of the values, causal or not, to be changed into your mechanism.

    y_t = sum_s a^|t-s| v_s / sum_s a^|t-s|        a in (0, 1); causal: s <= t only

Try it:      effbench run quick --with {file}
Only it:     effbench run quick --mechanism {file},mha-sdpa
An option:   effbench run quick --with {file} --option {name}.decay=0.5,0.9
"""

import torch
from torch import nn

from effbench.plugin import Complexity, Mechanism


def decaying_average(v: torch.Tensor, decay: float, *, causal: bool = False) -> torch.Tensor:
    """v [b, n, d] -> y [b, n, d]: row t is the average of the rows of v, weighted by decay^|t-s|."""
    n = v.shape[1]
    t = torch.arange(n, device=v.device)
    weights = torch.pow(decay, (t[:, None] - t[None, :]).abs().to(v.dtype))  # [n, n]
    if causal:
        weights = weights.tril()
    return (weights / weights.sum(-1, keepdim=True)) @ v


class {classname}(nn.Module):
    """[b, n, d] -> [b, n, d]. ``project``, ``mix`` and ``combine`` let the operator be timed alone."""

    def __init__(self, dim: int, causal: bool, decay: float) -> None:
        super().__init__()
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        self.causal, self.decay = causal, decay

    def project(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (self.value(x),)

    def mix(self, v: torch.Tensor) -> torch.Tensor:
        return decaying_average(v, self.decay, causal=self.causal)

    def combine(self, y: torch.Tensor) -> torch.Tensor:
        return self.out(y)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.combine(self.mix(*self.project(x)))


def build(shape, *, causal, decay=0.9):
    """Keyword-only arguments after causal are the options."""
    return {classname}(shape.dim, causal, decay)


def reference(module, x):
    """The definition, slow and obvious, on the module's own weights: compared before anything is timed."""
    v = module.value(x)
    rows = []
    for t in range(x.shape[1]):
        seen = range(t + 1 if module.causal else x.shape[1])
        weights = torch.tensor([module.decay ** abs(t - s) for s in seen], dtype=x.dtype)
        rows.append((weights[:, None] * v[:, : len(seen)]).sum(1) / weights.sum())
    return module.out(torch.stack(rows, dim=1))


MECHANISM = Mechanism(
    name="{name}",
    title="{title}",
    build=build,
    reference=reference,
    complexity=Complexity(time="n^2 d + n d^2", memory="n^2 + n d"),
)
'''


def write(name: str, folder: Path) -> Path:
    """Write ``my_mixer.py`` for ``my-mixer``.

    Raises:
        BadInput: the name cannot be a module's, or the file is there already.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9]*([_-][A-Za-z0-9]+)*", name):
        raise BadInput(
            f"{name!r} cannot name a file of Python: letters, digits and single - or _ are accepted"
        )
    words = re.split("[-_]", name)
    path = folder / f"{'_'.join(words).lower()}.py"
    classname = "".join(word[:1].upper() + word[1:] for word in words)
    text = _TEMPLATE
    values = {
        "title": " ".join(words).capitalize(),
        "file": path.name,
        "name": "-".join(words).lower(),
        "classname": classname,
    }
    for key, value in values.items():
        text = text.replace(f"{{{key}}}", value)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise BadInput(f"{path} is there already; choose another name or remove it") from None
    return path
