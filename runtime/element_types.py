"""Element types of stored tensors: their IR name, PyTorch type and safetensors name."""

from __future__ import annotations

from typing import NamedTuple

import torch
from npuc.ir.errors import UserError


class ElementType(NamedTuple):
    """A type that a tensor in main memory or in a weight file can have."""

    name: str
    torch_type: torch.dtype
    safetensors_name: str
    bytes: int


_TYPES = (
    ElementType("f32", torch.float32, "F32", 4),
    ElementType("bf16", torch.bfloat16, "BF16", 2),
    ElementType("f16", torch.float16, "F16", 2),
    ElementType("f8E4M3FN", torch.float8_e4m3fn, "F8_E4M3", 1),
    ElementType("f8E5M2", torch.float8_e5m2, "F8_E5M2", 1),
    ElementType("i32", torch.int32, "I32", 4),
    ElementType("i16", torch.int16, "I16", 2),
    ElementType("i8", torch.int8, "I8", 1),
    ElementType("u8", torch.uint8, "U8", 1),
    ElementType("i1", torch.bool, "BOOL", 1),
)

ELEMENT_TYPES = {entry.name: entry for entry in _TYPES}
BY_TORCH_TYPE = {entry.torch_type: entry for entry in _TYPES}
BY_SAFETENSORS_NAME = {entry.safetensors_name: entry for entry in _TYPES}


def element_type(name: str) -> ElementType:
    """The element type called ``name`` in the IR.

    Raises:
        UserError: ``unknown-type`` when there is none.
    """
    if name not in ELEMENT_TYPES:
        known = ", ".join(ELEMENT_TYPES)
        raise UserError(
            "unknown-type", f"no stored element type is called {name!r}", remedy=f"known: {known}"
        )
    return ELEMENT_TYPES[name]
