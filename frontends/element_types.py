"""Which element type of the IR stands for a type of torch."""

from __future__ import annotations

import torch
from npuc.ir.errors import UserError
from xdsl.dialects.builtin import (
    bf16,
    f16,
    f32,
    i1,
    i32,
)
from xdsl.ir import Attribute

_ELEMENTS: dict[torch.dtype, Attribute] = {
    torch.float32: f32, torch.float64: f32, torch.bfloat16: bf16, torch.float16: f16, torch.bool: i1,
    torch.int64: i32, torch.int32: i32, torch.int16: i32, torch.int8: i32, torch.uint8: i32,
}  # fmt: skip


def element_type(dtype: torch.dtype) -> Attribute:
    """The IR's element type: integers of every width become i32.

    Raises:
        UserError: when the IR has no such type.
    """
    if dtype not in _ELEMENTS:
        raise UserError("unsupported-type", f"tensors of {dtype} are not supported")
    return _ELEMENTS[dtype]
