"""Quantization against torch's own fake quantization, and what every scheme promises."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.ir.nquant import QuantizedType, SchemeAttr, storage_type
from npuc.ir.nquant_kernels import choose_parameters, dequantize, quantize
from xdsl.dialects.builtin import (
    Float8E4M3FNType,
    Float8E5M2Type,
    IntegerType,
    Signedness,
    TensorType,
    bf16,
    f32,
    i8,
)

UI4, UI8 = (IntegerType(width, Signedness.UNSIGNED) for width in (4, 8))
GRANULARITIES = [("tensor", 0, 0), ("channel", 0, 0), ("channel", 1, 0), ("group", 1, 8), ("group", 0, 2)]


def sample(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 32, generator=generator) * torch.logspace(-2, 2, 6)[:, None]


@pytest.mark.parametrize(("storage", "zero"), [(i8, 0), (IntegerType(4), 0), (UI8, 113), (UI4, 6)])
def test_a_tensor_is_what_torch_makes_of_it(storage: IntegerType, zero: int) -> None:
    scheme = SchemeAttr.of(storage, f32, zero_point=zero != 0)
    points = torch.tensor(zero, dtype=torch.int32) if zero else None
    x, scale = sample(), torch.tensor(0.37)
    low, high = (int(v) for v in scheme.range)
    wanted = torch.fake_quantize_per_tensor_affine(x, 0.37, zero, low, high)
    found = dequantize(quantize(x, scale, points, scheme), scale, points, scheme)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("axis", [0, 1])
def test_channels_are_what_torch_makes_of_them(axis: int) -> None:
    scheme = SchemeAttr.of(i8, f32, "channel", axis)
    x = sample()
    scale, points = choose_parameters(x, scheme)
    zeros = torch.zeros(x.shape[axis], dtype=torch.int32)
    wanted = torch.fake_quantize_per_channel_affine(x, scale, zeros, axis, -128, 127)
    torch.testing.assert_close(dequantize(quantize(x, scale, points, scheme), scale, points, scheme), wanted)


def test_ties_go_to_even_and_extremes_are_clamped() -> None:
    scheme = SchemeAttr.of(i8, f32)
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 127.4, 1000.0, -1000.0])
    assert quantize(x, torch.tensor(1.0), None, scheme).tolist() == [0, 2, 2, 0, -2, 127, 127, -128]


@pytest.mark.parametrize(
    ("storage", "torch_type"),
    [(Float8E4M3FNType(), torch.float8_e4m3fn), (Float8E5M2Type(), torch.float8_e5m2)],
)
def test_floats_are_rounded_and_saturate(storage: Float8E4M3FNType, torch_type: torch.dtype) -> None:
    scheme = SchemeAttr.of(storage, f32)
    x = torch.tensor([0.1, -3.3, 17.0, 1e9, -1e9])
    limit = torch.finfo(torch_type).max
    found = quantize(x, torch.tensor(1.0), None, scheme)
    assert found.dtype == torch_type
    assert found.float().tolist() == [*x[:3].to(torch_type).float().tolist(), limit, -limit]


@pytest.mark.parametrize(("granularity", "axis", "group"), GRANULARITIES)
@pytest.mark.parametrize("storage", [i8, IntegerType(4), UI8, UI4])
@given(seed=st.integers(0, 2**16))
@settings(max_examples=10, deadline=None)
def test_errors_are_at_most_half_a_step(
    storage: IntegerType, granularity: str, axis: int, group: int, seed: int
) -> None:
    unsigned = storage.signedness.data == Signedness.UNSIGNED
    scheme = SchemeAttr.of(storage, f32, granularity, axis, group, zero_point=unsigned)
    x = sample(seed)
    scale, points = choose_parameters(x, scheme)
    assert tuple(scale.shape) == scheme.scale_shape(x.shape)
    error = (dequantize(quantize(x, scale, points, scheme), scale, points, scheme) - x).abs()
    widened = scale.repeat_interleave(group, axis) if group else scale
    if granularity == "channel":
        widened = scale[:, None] if axis == 0 else scale[None]
    # The zero point is rounded as well: with one, the extremes may lie half a step outside.
    assert bool((error <= widened * (1.0001 if unsigned else 0.5001)).all())


def test_zeros_stay_zeros() -> None:
    for scheme in (SchemeAttr.of(i8, bf16), SchemeAttr.of(UI4, bf16, "channel", 0, zero_point=True)):
        x = torch.zeros(3, 4)
        scale, points = choose_parameters(x, scheme)
        found = dequantize(quantize(x, scale, points, scheme), scale, points, scheme)
        assert found.dtype == torch.bfloat16
        assert found.tolist() == x.tolist()


def test_stored_values_have_the_storage_type() -> None:
    kind = TensorType(QuantizedType(SchemeAttr.of(i8, f32)), [4, 8])
    assert storage_type(kind) == TensorType(i8, [4, 8])
