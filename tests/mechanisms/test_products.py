"""The matrix-product provider: the same products whoever computes them, and honest about who did."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from effbench import products
from effbench.errors import BadInput
from effbench.mechanisms.mha_tiled import tiled_attention

needs_onednn = pytest.mark.skipif(
    not products._available(torch.float32), reason="this build of torch has no oneDNN product"
)


def test_an_unknown_provider_is_refused():
    with pytest.raises(BadInput, match="expected one of torch, onednn, auto"):
        products.use("cublas")


@needs_onednn
def test_ran_says_what_ran():
    x, w = torch.randn(128, 128), torch.randn(128, 128)
    products.use("onednn")
    assert products.ran() == ""
    products.linear(x, w)
    assert products.ran() == "onednn"
    products.linear(x.double(), w.double())
    assert products.ran() == "torch+onednn"
    products.use("torch")
    products.mm(x, w)
    assert products.ran() == "torch"


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_other_dtypes_and_small_and_fake_products_go_to_torch(dtype):
    products.use("onednn")
    products.linear(torch.ones(128, 128, dtype=dtype), torch.ones(128, 128, dtype=dtype))
    products.linear(torch.ones(2, 2), torch.ones(2, 2))
    with FakeTensorMode():
        products.matmul(torch.empty(4, 512, 512), torch.empty(4, 512, 512))
    assert products.ran() == "torch"


@needs_onednn
@pytest.mark.parametrize("layout", ["dense", "transposed", "sliced"])
def test_values_and_gradients_are_torchs(layout):
    x = torch.randn(2, 130, 70, requires_grad=True)
    w = {
        "dense": torch.randn(90, 70),
        "transposed": torch.randn(70, 90).T,
        "sliced": torch.randn(90, 140)[:, ::2],
    }
    w = w[layout].detach().requires_grad_()
    bias, top = torch.randn(90, requires_grad=True), torch.randn(2, 130, 90)
    found = {}
    for provider in ("torch", "onednn"):
        products.use(provider)
        y = products.linear(x, w, bias)
        found[provider] = [y, *torch.autograd.grad(y, [x, w, bias], top)]
        assert products.ran() == provider
    for mine, theirs in zip(found["onednn"], found["torch"], strict=True):
        assert_close(mine, theirs, rtol=1e-4, atol=1e-4)


@needs_onednn
def test_batched_products_and_their_gradients_are_torchs():
    a, b = torch.randn(2, 3, 300, 290, requires_grad=True), torch.randn(2, 3, 290, 310, requires_grad=True)
    found = {}
    for provider in ("torch", "onednn"):
        products.use(provider)
        y = products.matmul(a, b)
        assert products.ran() == provider
        found[provider] = [y, *torch.autograd.grad(y.sin().sum(), [a, b])]
    for mine, theirs in zip(found["onednn"], found["torch"], strict=True):
        assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@needs_onednn
@pytest.mark.parametrize("n", [600, 1100])
def test_attention_by_tiles_multiplies_as_it_is_told(n):
    q, k, v = torch.randn(3, 1, 2, n, 64, requires_grad=True).unbind()
    found = {}
    for provider in ("torch", "onednn"):
        products.use(provider)
        y = tiled_attention(q, k, v)
        found[provider] = [y, *torch.autograd.grad(y.sin().sum(), [q, k, v])]
        assert products.ran() == provider
    for mine, theirs in zip(found["onednn"], found["torch"], strict=True):
        assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


@needs_onednn
@pytest.mark.parametrize(
    ("asked", "squares", "heads", "chosen"),
    [
        (["torch"], True, True, "torch"),
        (["onednn"], False, False, "onednn"),
        (["auto"], False, True, "torch"),
        (["auto"], True, False, "torch"),
        (["auto"], True, True, "onednn"),
        (["onednn", "torch"], True, True, "torch"),
        (["onednn", "onednn"], False, False, "onednn"),
        (["torch", "onednn"], True, True, "torch"),
    ],
)
def test_tiles_of_heads_have_a_choice_of_their_own(asked, squares, heads, chosen, monkeypatch):
    monkeypatch.setattr(products, "_wins", lambda dtype: squares)
    monkeypatch.setattr(products, "_wins_by_heads", lambda: heads)
    products.use(*asked)
    assert products.choice_by_heads(torch.empty(0)) == chosen


@needs_onednn
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("by_heads", ["torch", "onednn"])
def test_attention_by_tiles_heeds_the_choice_for_heads(by_heads, dtype):
    q, k, v = torch.randn(3, 1, 2, 600, 64).to(dtype).unbind()
    products.use("onednn", by_heads)
    products.linear(torch.ones(128, 128), torch.ones(128, 128))
    tiled_attention(q, k, v)
    assert products.ran() == {"torch": "torch+onednn", "onednn": "onednn"}[by_heads]


@needs_onednn
@pytest.mark.parametrize("threads", [1, 2])
def test_the_trial_of_heads_times_two_ways_to_the_same_rows(threads, monkeypatch):
    asked = []
    monkeypatch.setattr(products, "_clearly", lambda *ways: asked.append(ways) or True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert products._wins_by_heads.__wrapped__()
    finally:
        torch.set_num_threads(before)
    (((mine, work), (theirs, of_theirs)),) = asked
    one, other = mine(), theirs()
    assert (work, of_theirs) == (4 * 1024 * one[..., 0].numel() * 64, 4 * 1024 * other[..., 0].numel() * 64)
    assert_close(one.flatten(0, 1)[:1024], other[0])
    assert len(other) == threads


@pytest.mark.parametrize("provider", ["torch", "onednn", "auto"])
def test_raw_products(provider):
    products.use(provider)
    a, b, total = torch.randn(100, 200), torch.randn(200, 300), torch.randn(100, 300)
    expected = total + a @ b
    assert_close(products.mm(a, b), a @ b, rtol=1e-4, atol=1e-4)
    assert products.addmm_(total, a, b) is total
    assert_close(total, expected, rtol=1e-4, atol=1e-4)
