"""What the `nquant` operations compute, as torch functions; values of 4-bit types are held in 8 bits.

Source of the affine scheme: Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018.
"""

from __future__ import annotations

import torch
from npuc.ir.nquant import SchemeAttr
from npuc.ir.torch_types import torch_type
from torch import Tensor
from xdsl.dialects.builtin import IntegerType


def spread(parameter: Tensor, scheme: SchemeAttr, rank: int) -> Tensor:
    """Scales or zero points in a shape that broadcasts to the tensor of ``rank`` dimensions."""
    axis = scheme.axis.data
    if scheme.granularity.data == "channel":
        return parameter.reshape([-1 if d == axis else 1 for d in range(rank)])
    if scheme.granularity.data == "group":
        return parameter.repeat_interleave(scheme.group.data, axis)
    return parameter


def quantize(x: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: SchemeAttr) -> Tensor:
    """The nearest stored values of x / scale + zero point, ties to even, clamped to the storage's range."""
    value = x.float() / spread(scale.float(), scheme, x.ndim)
    if isinstance(scheme.storage, IntegerType):
        value = torch.round(value)
    if zero_point is not None:
        value = value + spread(zero_point.float(), scheme, x.ndim)
    return torch.clamp(value, *scheme.range).to(torch_type(scheme.storage))


def dequantize(q: Tensor, scale: Tensor, zero_point: Tensor | None, scheme: SchemeAttr) -> Tensor:
    """(q − zero point) · scale, computed in f32, rounded once."""
    value = q.float()
    if zero_point is not None:
        value = value - spread(zero_point.float(), scheme, q.ndim)
    return (value * spread(scale.float(), scheme, q.ndim)).to(torch_type(scheme.expressed))


def choose_parameters(x: Tensor, scheme: SchemeAttr) -> tuple[Tensor, Tensor | None]:
    """Scales, and zero points unless the scheme is symmetric, that cover the values of a tensor.

    Symmetric schemes map the largest magnitude to the greatest stored value; others map the range from
    least to greatest value, widened to include 0, onto the whole storage. Scales are f32, zero points i32.
    """
    low, high = scheme.range
    dims = _reduced(x, scheme)
    x = x.float() if scheme.granularity.data != "group" else x.float().unflatten(*_groups(scheme))
    tiny = torch.finfo(torch.float32).tiny
    if scheme.symmetric:
        return torch.clamp(x.abs().amax(dims) / high, min=tiny), None
    least, greatest = torch.clamp(x.amin(dims), max=0.0), torch.clamp(x.amax(dims), min=0.0)
    scale = torch.clamp((greatest - least) / (high - low), min=tiny)
    zero = torch.clamp(torch.round(low - least / scale), low, high)
    return scale, zero.to(torch.int32)


def _groups(scheme: SchemeAttr) -> tuple[int, tuple[int, int]]:
    return scheme.axis.data, (-1, scheme.group.data)


def _reduced(x: Tensor, scheme: SchemeAttr) -> tuple[int, ...]:
    """The dimensions over which one scale is shared."""
    axis = scheme.axis.data
    if scheme.granularity.data == "group":
        return (axis + 1,)
    return tuple(d for d in range(x.ndim) if scheme.granularity.data == "tensor" or d != axis)
