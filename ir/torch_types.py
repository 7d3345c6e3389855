"""The torch types that hold the values of element types."""

from __future__ import annotations

import torch
from npuc.ir.errors import UserError
from npuc.ir.nquant import QuantizedType
from xdsl.dialects.builtin import (
    Float8E4M3FNType,
    Float8E5M2Type,
    IntegerType,
    Signedness,
    bf16,
    f16,
    f32,
    i1,
    i8,
    i32,
)
from xdsl.ir import Attribute

_UNSIGNED = Signedness.UNSIGNED
TORCH_TYPES: dict[Attribute, torch.dtype] = {
    f32: torch.float32,
    bf16: torch.bfloat16,
    f16: torch.float16,
    Float8E4M3FNType(): torch.float8_e4m3fn,
    Float8E5M2Type(): torch.float8_e5m2,
    i1: torch.bool,
    i8: torch.int8,
    i32: torch.int32,
    IntegerType(8, _UNSIGNED): torch.uint8,
    IntegerType(4): torch.int8,  # 4-bit values are held in 8 bits
    IntegerType(4, _UNSIGNED): torch.uint8,
}


def torch_type(element: Attribute) -> torch.dtype:
    """The torch type that holds an element type's values; of a quantized type, its stored values.

    Raises:
        UserError: when torch has none.
    """
    if isinstance(element, QuantizedType):
        element = element.scheme.storage
    if element not in TORCH_TYPES:
        raise UserError("unsupported-type", f"no torch type for the element type {element}")
    return TORCH_TYPES[element]
