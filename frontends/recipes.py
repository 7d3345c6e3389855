"""Recipes: which byte ranges of a checkpoint make a weight.

A *recipe* is a source dictionary ``{file, offset, bytes, dtype, shape}`` or an operation on recipes:
``{op = "transpose", source}`` (the last two dimensions), ``{op = "permute", perm, source}``,
``{op = "reshape", shape, source}``, ``{op = "slice", dim, start, stop, source}``,
``{op = "concat" | "stack", dim, sources}``, ``{op = "pad", dim, size, source}`` (zeros at the end),
``{op = "take", dim, unit, blocks, source}`` (runs of `unit` elements by number, zeros for −1),
``{op = "shard", dim, parts, source}`` (a rank's own of so many equal parts). Weights that a compile quantizes
by itself are ``{op = "quantize", scheme, source}``, their scales ``{op = "scale", scheme, source}``;
``{op = "mul", sources}`` is a product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from npuc.frontends.safetensors import TensorSource
from npuc.ir.graph import WeightOp
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    IntegerAttr,
    StringAttr,
    i64,
)
from xdsl.ir import Attribute


def source_attr(source: TensorSource) -> DictionaryAttr:
    """The recipe of a byte range."""
    return DictionaryAttr(
        {
            "file": StringAttr(source.file),
            "offset": IntegerAttr(source.offset, i64),
            "bytes": IntegerAttr(source.bytes, i64),
            "dtype": StringAttr(source.dtype),
            "shape": DenseArrayBase.from_list(i64, list(source.shape)),
        }
    )


def recipe(
    op: str, source: DictionaryAttr | Sequence[DictionaryAttr], **values: int | Sequence[int] | Attribute
) -> DictionaryAttr:
    """An operation on one recipe or on several."""
    entries: dict[str, Attribute] = {"op": StringAttr(op)}
    for key, value in values.items():
        if isinstance(value, Attribute):
            entries[key] = value
        elif isinstance(value, int):
            entries[key] = IntegerAttr(value, i64)
        else:
            entries[key] = DenseArrayBase.from_list(i64, list(value))
    if isinstance(source, DictionaryAttr):
        entries["source"] = source
    else:
        entries["sources"] = ArrayAttr(source)
    return DictionaryAttr(entries)


Step = tuple[str, tuple[int, ...]]  # ("permute", perm) or ("reshape", shape)


def rearrange(
    source: DictionaryAttr, shape: tuple[int, ...], steps: Sequence[Step]
) -> tuple[DictionaryAttr, tuple[int, ...]]:
    """A recipe and its shape after some steps."""
    for op, values in steps:
        if op == "reshape":
            source, shape = recipe("reshape", source, shape=values), values
            continue
        swap = (*range(len(shape) - 2), len(shape) - 1, len(shape) - 2)
        is_swap = values == swap
        source = recipe("transpose", source) if is_swap else recipe("permute", source, perm=values)
        shape = tuple(shape[d] for d in values)
    return source, shape


def file_types(source: DictionaryAttr) -> set[str]:
    """The types, as files name them, of the tensors that a recipe reads."""
    entries: Any = source.data
    if "op" not in entries:
        return {entries["dtype"].data}
    inner = entries["sources"].data if "sources" in entries else ()
    if "source" in entries:
        inner = (entries["source"],)
    return {kind for part in inner for kind in file_types(part)}


def is_rounded(weight: WeightOp) -> bool:
    """Whether a weight is rounded to a quantized type when it is read."""
    found: Any = weight.sources.data[0]
    while isinstance(found, DictionaryAttr):
        if found.data.get("op") == StringAttr("quantize"):
            return True
        found = found.data.get("source")
    return False
