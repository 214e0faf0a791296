"""What the tests of the mechanisms share: a table of cases, and modules with parameters that matter."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import pytest
import torch

from effbench import products
from effbench.plugin import Mechanism, Shape

ROOT = Path(__file__).parents[2]
ENTRY_POINTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
MINE = ["aft", "mha", "linear", "synthesizer", "fnet"]


def load(name: str) -> Mechanism:
    module, _, attribute = ENTRY_POINTS["effbench.mechanisms"][name].partition(":")
    return getattr(importlib.import_module(module), attribute)


MECHANISMS = {name: load(name) for name in ENTRY_POINTS["effbench.mechanisms"]}

#: Options beyond the defaults that take another path through a mechanism.
OPTIONS = {
    "aft-full": [{}, {"rank": None, "gate": "tanh"}],
    "aft-local": [{"window": 5}, {"window": 0}, {"window": 200, "rank": 0}, {"window": 10**6}],
    "aft-conv": [{}, {"kernel": 1}, {"kernel": 51, "gate": "tanh"}],
    "fnet": [{}, {"dft": "matrix"}],
    "synthesizer-random": [{}, {"trained": False}],
    "synthesizer-factorized-dense": [{}, {"factor": 5}],
    "synthesizer-mixture": [{}, {"components": "dense+factorized-dense+dot"}],
}
CASES = [
    pytest.param(name, options, causal, id=f"{name}-{'causal' if causal else 'all'}{i or ''}")
    for name, mechanism in MECHANISMS.items()
    for i, options in enumerate(OPTIONS.get(name, [{}]))
    for causal in mechanism.causal
]
CAUSAL = [case for case in CASES if case.values[2]]


def built(name, n, *, d=16, heads=2, causal=False, dtype=torch.float64, **options):
    """A module whose every parameter is drawn anew: biases and kernels that start at 0 too."""
    torch.manual_seed(0)
    module = MECHANISMS[name].build(Shape(batch=2, seq=n, dim=d, heads=heads), causal=causal, **options)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.to(dtype).eval()


def sample(n, *, b=2, d=16, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(b, n, d, generator=generator, dtype=torch.float64).to(dtype)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """For small tensors, and because another worker has the next core; ``test_laws`` asks once with two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _torch_products():
    """Products by torch, so that a result does not hang on a timing."""
    products.use("torch")
    yield
    products.use("auto")
