"""The kernel table against torch, transformers and hand computations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from npuc.ir import kernels
from npuc.ir.graph import BINARY, UNARY
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb, eager_attention_forward


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_every_elementwise_operation_has_a_kernel() -> None:
    assert set(kernels.UNARY) == set(UNARY)
    assert set(kernels.BINARY) == set(BINARY)


@pytest.mark.parametrize(
    ("name", "x", "want"),
    [
        ("neg", 2.0, -2.0), ("abs", -2.0, 2.0), ("exp", 1.0, math.e), ("log", math.e, 1.0),
        ("sqrt", 9.0, 3.0), ("rsqrt", 4.0, 0.5), ("reciprocal", 4.0, 0.25), ("sin", math.pi / 2, 1.0),
        ("cos", 0.0, 1.0),
        ("tanh", 0.0, 0.0), ("sigmoid", 0.0, 0.5), ("erf", 0.0, 0.0), ("floor", -1.5, -2.0),
        ("relu", -3.0, 0.0), ("silu", 1.0, 1 / (1 + math.exp(-1))),
        ("gelu", 1.0, (1 + math.erf(1 / math.sqrt(2))) / 2),
        ("gelu_tanh", 1.0, (1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715)) / 2),
    ],
)  # fmt: skip
def test_unary(name: str, x: float, want: float) -> None:
    assert float(kernels.UNARY[name](torch.tensor(x))) == pytest.approx(want, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "a", "b", "want"),
    [
        ("add", 2.0, 3.0, 5.0), ("sub", 2.0, 3.0, -1.0), ("mul", 2.0, 3.0, 6.0), ("div", 3.0, 2.0, 1.5),
        ("pow", 2.0, 3.0, 8.0), ("maximum", 2.0, 3.0, 3.0), ("minimum", 2.0, 3.0, 2.0),
        ("floordiv", -7.0, 2.0, -4.0), ("mod", -7.0, 2.0, 1.0), ("eq", 2.0, 2.0, 1.0), ("ne", 2.0, 2.0, 0.0),
        ("lt", 2.0, 3.0, 1.0), ("le", 3.0, 3.0, 1.0), ("gt", 2.0, 3.0, 0.0), ("ge", 3.0, 3.0, 1.0),
    ],
)  # fmt: skip
def test_binary(name: str, a: float, b: float, want: float) -> None:
    assert float(kernels.BINARY[name](torch.tensor(a), torch.tensor(b))) == want


def test_logic() -> None:
    a, b = torch.tensor([True, True, False]), torch.tensor([True, False, False])
    assert kernels.BINARY["and"](a, b).tolist() == [True, False, False]
    assert kernels.BINARY["or"](a, b).tolist() == [True, True, False]
    assert kernels.UNARY["not"](a).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("kind", "want"),
    [("sum", [6.0, 15.0]), ("mean", [2.0, 5.0]), ("max", [3.0, 6.0]), ("min", [1.0, 4.0])],
)
def test_reductions(kind: str, want: list[float]) -> None:
    x = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert kernels.reduce(x, kind, [1], False).tolist() == want
    assert kernels.reduce(x, kind, [1], True).shape == (2, 1)


def test_sums_of_bfloat16_accumulate_in_f32() -> None:
    """256 + 1 + 1 + … does not stick at 256, as adding in bfloat16 would."""
    x = torch.tensor([256.0] + [1.0] * 64).to(torch.bfloat16)
    assert float(kernels.reduce(x, "sum", [0], False)) == 320.0
    assert float(kernels.matmul(x[None], torch.ones(65, 1, dtype=torch.bfloat16))) == 320.0
    assert float(kernels.linear(x[None], torch.ones(1, 65, dtype=torch.bfloat16), None)) == 320.0


def test_products_are_rounded_once() -> None:
    """The bias is added before the rounding."""
    x, w = torch.tensor([[1.0]]).to(torch.bfloat16), torch.tensor([[256.0]]).to(torch.bfloat16)
    bias = torch.tensor([1.0]).to(torch.bfloat16)
    assert float(kernels.linear(x, w, bias)) == 256.0
    assert float(kernels.linear(x, w, bias + 2)) == 260.0  # 259, to even


def test_norms() -> None:
    x, w, b = values(3, 8), values(8, seed=1), values(8, seed=2)
    assert torch.allclose(kernels.rms_norm(x, w, 1e-5, 0.0), F.rms_norm(x, (8,), w, 1e-5), atol=1e-6)
    assert torch.allclose(kernels.rms_norm(x, w, 1e-5, 1.0), F.rms_norm(x, (8,), 1 + w, 1e-5), atol=1e-6)
    assert torch.allclose(kernels.layer_norm(x, w, b, 1e-5), F.layer_norm(x, (8,), w, b, 1e-5))
    assert torch.allclose(kernels.layer_norm(x, None, None, 1e-5), F.layer_norm(x, (8,), eps=1e-5))


def test_rope_of_halves() -> None:
    query, angles = values(2, 4, 5, 8), values(2, 5, 4, seed=1)
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    want, _ = apply_rotary_pos_emb(query, query, cos, sin)
    assert torch.allclose(kernels.rope(query, cos, sin, False), want, atol=1e-6)


def test_rope_of_pairs_is_a_complex_product() -> None:
    query, angles = values(2, 4, 5, 8), values(2, 5, 4, seed=1)
    cos, sin = (f(angles).repeat_interleave(2, -1) for f in (torch.cos, torch.sin))
    turned = torch.view_as_complex(query.unflatten(-1, (4, 2))) * torch.polar(torch.ones(1), angles)[:, None]
    want = torch.view_as_real(turned).flatten(-2)
    assert torch.allclose(kernels.rope(query, cos, sin, True), want, atol=1e-6)


def test_rope_passes_the_rest() -> None:
    query, cos = values(1, 2, 3, 8), torch.zeros(1, 3, 4)
    result = kernels.rope(query, cos, torch.ones(1, 3, 4), False)
    assert torch.equal(result[..., 4:], query[..., 4:])
    assert torch.equal(result[..., :2], -query[..., 2:4])


def test_gated() -> None:
    gate, up = values(3, 4), values(3, 4, seed=1)
    assert torch.allclose(kernels.gated(gate, up, "silu"), F.silu(gate) * up)


class Module:
    num_key_value_groups = 2
    training = False


def test_attention() -> None:
    query, keys, vals = values(2, 4, 3, 8), values(2, 2, 5, 8, seed=1), values(2, 2, 5, 6, seed=2)
    mask = torch.rand(2, 1, 3, 5, generator=torch.Generator().manual_seed(1)) > 0.4
    mask[..., 0] = True
    bias = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
    want, _ = eager_attention_forward(Module(), query, keys, vals, bias, 0.3)
    assert torch.allclose(kernels.attention(query, keys, vals, mask, 0.3, 0.0), want, atol=1e-6)
    want, _ = eager_attention_forward(Module(), query, keys, vals, None, 0.3)
    assert torch.allclose(kernels.attention(query, keys, vals, None, 0.3, 0.0), want, atol=1e-6)


def test_soft_capped_attention() -> None:
    query, keys, vals = values(1, 1, 2, 4), values(1, 1, 3, 4, seed=1), values(1, 1, 3, 4, seed=2)
    scores = torch.tanh(query @ keys.transpose(-1, -2) / 2.0) * 2.0
    want = (torch.softmax(scores, -1) @ vals).transpose(1, 2)
    assert torch.allclose(kernels.attention(query, keys, vals, None, 1.0, 2.0), want, atol=1e-6)


def test_excluded_keys_are_selected_out() -> None:
    """Whatever the cache holds past the valid tokens; a row without keys is zero, not NaN."""
    query, keys, vals = values(1, 1, 2, 4), values(1, 1, 3, 4, seed=1), values(1, 1, 3, 4, seed=2)
    mask = torch.tensor([[True, True, False], [True, False, False]])[None, None]
    want = kernels.attention(query, keys, vals, mask, 1.0, 0.0)
    keys[..., 2, :], vals[..., 2, :] = math.nan, math.inf
    assert torch.equal(kernels.attention(query, keys, vals, mask, 1.0, 0.0), want)
    mask[..., 1, :] = False
    result = kernels.attention(query, keys, vals, mask, 1.0, 0.0)
    assert torch.equal(result[:, 0], want[:, 0])
    assert torch.equal(result[:, 1], torch.zeros(1, 1, 4))


def test_kv_update() -> None:
    """Rows go to their slots and positions; rows past the valid length are not written."""
    cache = torch.full((3, 1, 6, 2), -1.0)
    new = torch.arange(12.0).reshape(2, 1, 3, 2)
    read = kernels.kv_update(new, cache, slots=[2, 0], positions=[1, 4], valid=[3, 1], ctx=5)
    assert cache[2, 0, 1:4].tolist() == new[0, 0].tolist()
    assert cache[0, 0, 4].tolist() == new[1, 0, 0].tolist()
    assert int((cache != -1).sum()) == 8
    assert torch.equal(read, cache[[2, 0], :, :5])


def test_an_inactive_row_writes_nothing() -> None:
    cache = torch.zeros(2, 1, 4, 1)
    kernels.kv_update(torch.ones(1, 1, 2, 1), cache, slots=[1], positions=[0], valid=[0], ctx=4)
    assert not cache.any()
