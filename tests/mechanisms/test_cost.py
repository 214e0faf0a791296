"""What the mechanisms cost: memory that grows with n where they say so, and the work that they declare."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from effbench.mechanisms import _linear, _parts, _tiles
from effbench.meters import counts
from effbench.plugin import Shape

from .conftest import MECHANISMS

LINEAR_SYNTHESIZERS = ["synthesizer-dense", "synthesizer-factorized-dense", "synthesizer-factorized-random"]


class Ledger(TorchDispatchMode):
    """Counts operations and the bytes of the storages that they make, as these come and go."""

    def __init__(self):
        super().__init__()
        self.seen, self.live, self.peak, self.operations = set(), 0, 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations += func is not torch.ops.prim.device.default  # a fake tensor asked where it is
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage):
        key = storage._cdata
        if key in self.seen:
            return
        self.seen.add(key)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key, size):
        self.seen.discard(key)
        self.live -= size


def cost(name, n, *, d=512, train=False, causal=False, **options):
    """(peak bytes above inputs and parameters, operations) of mix, on fake tensors."""
    with FakeTensorMode():
        module = MECHANISMS[name].build(Shape(batch=1, seq=n, dim=d, heads=d // 64), causal=causal, **options)
        tensors = tuple(t.detach().requires_grad_(train) for t in module.project(torch.empty(1, n, d)))
        with Ledger() as ledger, torch.set_grad_enabled(train):
            ledger.seen.update(t.untyped_storage()._cdata for t in [*tensors, *module.parameters()])
            y = module.mix(*tensors)
            if train:
                y.backward(y.detach())  # a gradient that takes no memory
        return ledger.peak, ledger.operations


@pytest.mark.parametrize(
    ("name", "causal", "forward", "train"),
    [
        *(("aft-full", causal, 6, 14) for causal in (False, True)),
        *(("aft-local", causal, 6, 14) for causal in (False, True)),
        *(("linear", causal, 4, 12) for causal in (False, True)),
        ("aft-simple", False, 2, 12),
        ("aft-simple", True, 3, 12),
    ],
)
def test_memory_is_a_few_inputs(name, causal, forward, train):
    n, d = 4096, 512
    assert cost(name, n, causal=causal)[0] <= forward * n * d * 4
    assert cost(name, n, causal=causal, train=True)[0] <= train * n * d * 4


@pytest.mark.parametrize("train", [False, True])
def test_fnet_holds_half_a_spectrum(train):
    n, d = 8192, 512
    assert cost("fnet", n, train=train)[0] <= 3 * n * d * 4


def test_dft_matrices_are_in_place_for_the_length_that_was_built_for_and_else_part_of_the_pass():
    shape, matrices = Shape(batch=1, seq=2048, dim=16, heads=1), 2 * 1024**2 * 4
    with FakeTensorMode():
        module = MECHANISMS["fnet"].build(shape, causal=False, dft="matrix")
        assert sum(b.numel() * b.element_size() for b in module.buffers()) == pytest.approx(
            matrices, rel=0.01
        )
        peaks = {}
        for n in (2048, 2046):
            x = torch.empty(1, n, 16)
            with Ledger() as ledger:
                module(x)
            peaks[n] = ledger.peak
    assert peaks[2048] <= 8 * 2048 * 16 * 4
    assert peaks[2046] >= 0.99 * matrices


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "name", ["mha-tiled", "aft-full", "aft-local", "aft-simple", "aft-conv", "linear", *LINEAR_SYNTHESIZERS]
)
def test_memory_is_linear(name, causal, train):
    """A dense softmax map would grow fourfold."""
    small, large = (cost(name, n, d=256, causal=causal, train=train)[0] for n in (2048, 4096))
    assert large <= 2.1 * small


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", ["aft-full", "aft-local", "synthesizer-random", "synthesizer-mixture"])
def test_a_map_that_is_a_parameter_is_never_held_twice(name, causal):
    """Forward: backward holds its gradient."""
    options = {"rank": None} if name.startswith("aft") else {}
    small, large = (cost(name, n, d=256, causal=causal, **options)[0] for n in (2048, 4096))
    assert large <= 2.1 * small


def test_written_out_attention_is_not_linear_in_memory():
    """The ledger can tell."""
    small, large = (cost("mha", n)[0] for n in (1024, 2048))
    assert large > 3.9 * small


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "name",
    ["aft-full", "aft-local", "aft-simple", "aft-conv", "linear", "synthesizer-factorized-dense", "fnet"],
)
def test_few_operations_at_great_length(name, causal):
    """A counting pass spends some 100 microseconds on each, and may take two seconds.

    Not those by tiles of scores (_tiled): larger tiles would take longer, so there the closed form stands in.
    """
    if causal not in MECHANISMS[name].causal:
        pytest.skip("it has no causal form")
    assert cost(name, 65536, d=256, causal=causal)[1] <= 20_000


#: Through torch's kernel, of which what is needed is declared.
FUSED = ("mha-sdpa", "mha-recompute")


@pytest.mark.parametrize("mode", ["forward", "train"])
@pytest.mark.parametrize("n", [512, 2048])
@pytest.mark.parametrize(
    ("name", "causal"),
    [(name, causal) for name, m in MECHANISMS.items() for causal in m.causal if name not in (*FUSED, "fnet")],
)
def test_declared_products_are_the_counted_ones(name, causal, n, mode):
    shape = Shape(batch=2, seq=n, dim=64, heads=2)
    with FakeTensorMode():
        module = MECHANISMS[name].build(shape, causal=causal)
        x = torch.empty(2, n, 64, requires_grad=mode == "train")

        def run():
            with torch.set_grad_enabled(mode == "train"):
                y = module(x)
                if mode == "train":
                    y.sum().backward()

        counted = counts.count(run)["counted"]["matmul"]  # torch's counter mistakes a depth-wise gradient
    declared = MECHANISMS[name].flops(shape, causal=causal, mode=mode).matmul
    assert declared == pytest.approx(counted, rel=0.02)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("n", "window"), [(1, 1), (7, 3), (7, None), (150, 150), (150, 0), (150, 40), (9, 30)]
)
def test_pairs_needed_are_those_that_rows_see(n, window, causal):
    seen = [(t, s) for t in range(n) for s in range(n) if not (causal and s > t)]
    near = [(t, s) for t, s in seen if window is None or abs(t - s) < window]
    assert _tiles.visible_pairs(n, 4, window, causal=causal) == len(near)
    assert _parts.visible_pairs(n, causal=causal) == len(seen)
    chunked = [(t, s) for t, s in seen if t // _linear.CHUNK == s // _linear.CHUNK]
    assert _linear.visible_pairs(n) == len(chunked) or not causal


@pytest.mark.parametrize("name", [name for name, m in MECHANISMS.items() if m.needed])
def test_causal_work_is_declared_as_done_and_as_needed(name):
    mechanism, shape = MECHANISMS[name], Shape(batch=2, seq=2048, dim=64, heads=2)
    for mode in ("forward", "train"):
        done, least = (form(shape, causal=True, mode=mode) for form in (mechanism.flops, mechanism.needed))
        assert least.matmul < done.matmul or name in FUSED
        assert least.transcendental <= done.transcendental
        assert least.fft == done.fft


@pytest.mark.parametrize("name", ["mha", "mha-tiled", "mha-sdpa"])
def test_half_of_the_square_is_needed(name):
    b, n, d, h = 2, 1024, 64, 2
    least = MECHANISMS[name].needed(Shape(batch=b, seq=n, dim=d, heads=h), causal=True, mode="forward")
    assert least.matmul == 4 * 2 * b * n * d * d + 4 * b * d * n * (n + 1) // 2
    assert least.transcendental == b * h * n * (n + 1) // 2
