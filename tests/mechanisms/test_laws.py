"""What every mechanism of ours keeps beyond the laws of the conformance kit, and at larger sizes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from effbench.plugin import Flops, Shape

from .conftest import CASES, CAUSAL, MECHANISMS, built, sample

HALF = {"float32": 2e-4, "bfloat16": 0.06, "float16": 0.01, "float64": 1e-9}


@pytest.mark.parametrize(
    ("n", "touch", "dtype"),
    [
        (70, 1.0, torch.float32),
        (1200, 1.0, torch.float32),
        (1200, 110.0, torch.float32),
        (1200, 1e4, torch.float32),
        (1200, 110.0, torch.bfloat16),
        (70, 110.0, torch.float64),
    ],
)
@pytest.mark.parametrize(("name", "options", "causal"), CAUSAL)
def test_future_is_invisible_to_the_bit(name, options, causal, n, touch, dtype):
    """Whatever later tokens hold, also where they are large enough to move shifts and to need a rescue."""
    module, x = built(name, n, d=4, causal=True, dtype=dtype, **options), sample(n, d=4, dtype=dtype)
    with torch.no_grad():
        before = module(x)
        for t in (n // 2, n - 3):
            touched = x.clone()
            touched[:, t:] += touch * torch.linspace(-1, 1, 4, dtype=dtype)
            after = module(touched)
            assert torch.equal(after[:, :t], before[:, :t])
            assert not torch.equal(after[:, t:], before[:, t:])


@pytest.mark.parametrize(("name", "options", "causal"), CAUSAL)
def test_the_future_is_as_invisible_to_two_threads(name, options, causal):
    """Each computes a part of a product, and where the parts meet hangs on how many there are."""
    torch.set_num_threads(2)
    try:
        test_future_is_invisible_to_the_bit(name, options, causal, 1200, 110.0, torch.float32)
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_dtypes(name, options, causal, dtype):
    """The same dtype comes out, near to what float64 gives from the same rounded numbers."""
    kind = getattr(torch, dtype)
    module, x = built(name, 65, causal=causal, dtype=kind, **options), sample(65, dtype=kind)
    x.requires_grad_()
    y = module(x)
    assert (y.dtype, y.shape) == (kind, x.shape)
    y.float().square().sum().backward()
    assert x.grad.dtype == kind
    assert x.grad.isfinite().all()
    exact = copy.deepcopy(module).double()(x.detach().double())
    error = (y.double() - exact).norm() / exact.norm()
    assert error < HALF[dtype]


@pytest.mark.parametrize(
    ("n", "dtype"),
    [(1, torch.float32), (1031, torch.float32), (65, torch.bfloat16)],
)
@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_large_inputs_stay_finite(name, options, causal, n, dtype):
    module, x = built(name, n, d=4, causal=causal, dtype=dtype, **options), 100 * sample(n, d=4, dtype=dtype)
    x.requires_grad_()
    y = module(x)
    assert y.isfinite().all()
    y.float().sum().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_large_inputs_stay_exact(name, options, causal):
    module, x = built(name, 300, d=4, causal=causal, **options), 100 * sample(300, d=4)
    with torch.no_grad():
        assert_close(module(x), MECHANISMS[name].reference(module, x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_gradients_of_large_inputs_equal_the_references(name, options, causal):
    module, x = built(name, 70, d=4, causal=causal, **options), (40 * sample(70, d=4)).requires_grad_()
    inputs = [x, *module.parameters()]
    mine = torch.autograd.grad(module(x).sin().sum(), inputs)
    theirs = torch.autograd.grad(MECHANISMS[name].reference(module, x).sin().sum(), inputs)
    for got, expected in zip(mine, theirs, strict=True):
        assert_close(got, expected, rtol=1e-7, atol=1e-7 * float(expected.abs().max() + 1))


@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_a_shorter_input_is_answered_and_a_longer_one_refused(name, options, causal):
    mechanism, module = MECHANISMS[name], built(name, 70, causal=causal, **options)
    with torch.no_grad():
        assert_close(module(sample(33)), mechanism.reference(module, sample(33)), rtol=1e-9, atol=1e-12)
    if mechanism.fixed_length:
        with pytest.raises(ValueError, match="at most 70 tokens and was given 71"):
            module(sample(71))
    else:
        assert module(sample(71)).shape == (2, 71, 16)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_runs_on_fake_tensors(name, options, causal, train):
    shape = Shape(batch=2, seq=300, dim=16, heads=2)
    with FakeTensorMode():
        module = MECHANISMS[name].build(shape, causal=causal, **options).train(train)
        x = torch.empty(2, 300, 16, requires_grad=train)
        y = module(x)
        assert y.shape == x.shape
        if train:
            y.sum().backward()
            assert x.grad.shape == x.shape


@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_forward_is_project_mix_combine(name, options, causal):
    module, x = built(name, 33, causal=causal, **options), sample(33)
    tensors = module.project(x)
    assert isinstance(tensors, tuple)
    assert torch.equal(module.combine(module.mix(*tensors)), module(x))


@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_declares_its_work(name, options, causal):
    mechanism = MECHANISMS[name]
    shape = Shape(batch=2, seq=512, dim=64, heads=4)
    forward = mechanism.flops(shape, causal=causal, mode="forward", **options)
    train = mechanism.flops(shape, causal=causal, mode="train", **options)
    assert isinstance(forward, Flops)
    assert train.matmul + train.fft > forward.matmul + forward.fft > 0
    assert mechanism.complexity.time
    assert mechanism.paper


@pytest.mark.parametrize(("name", "options", "causal"), CASES)
def test_works_under_autocast_forward_and_backward(name, options, causal):
    module, x = (
        built(name, 65, causal=causal, dtype=torch.float32, **options),
        sample(65, dtype=torch.float32),
    )
    x.requires_grad_()
    exact = module(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x)
        y.float().square().sum().backward()
    assert (y.float() - exact).norm() / exact.norm() < 0.1
    assert x.grad.isfinite().all()


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # the compiler's own: it means to hide it
@pytest.mark.parametrize("name", ["mha", "aft-full", "linear", "fnet"])
def test_works_compiled_forward_and_backward(name):
    """What looks at values stands outside of the graph; a warning of the compiler is an error here."""
    module, x = built(name, 33), sample(33).requires_grad_()
    compiled = torch.compile(module, backend="eager")
    for _ in range(2):  # the second call finds the operator that the first one took out
        y, expected = compiled(x), module(x)
        assert_close(y, expected, rtol=1e-9, atol=1e-12)
        mine, theirs = (torch.autograd.grad(out.sin().sum(), x)[0] for out in (y, expected))
        assert_close(mine, theirs, rtol=1e-9, atol=1e-12)
    torch.compiler.reset()
