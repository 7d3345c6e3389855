"""The weights of an artifact: what the checkpoint has, and how each is packed for the machine."""

from __future__ import annotations

from math import prod
from typing import Any

from npuc.ir import graph, tile
from npuc.ir.nquant import QuantizedType
from npuc.passes.pack_weights import packed_bytes
from npuc.tools.report.stages import origin_of
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute


def weights_data(module: ModuleOp) -> list[dict[str, Any]]:
    """A row per packed weight of a module at or after phase `layout`."""
    logical = {op.sym_name.data: op for op in module.ops if isinstance(op, graph.WeightOp)}
    return [_row(op, logical[op.weight.string_value()]) for op in module.ops if isinstance(op, tile.PackedOp)]


def _row(op: tile.PackedOp, weight: graph.WeightOp) -> dict[str, Any]:
    layers = () if op.layers is None else tile.ints(op.layers)
    shape, packed = weight.type.get_shape(), op.type.get_shape()
    return {
        "name": op.sym_name.data,
        "weight": weight.sym_name.data,
        "origin": origin_of(weight),
        "shape": list(shape),
        "type": str(weight.type.element_type),
        "stored": sorted(_stored(weight)),
        "quantization": _quantization(weight.type.element_type),
        "packed_shape": list(packed),
        "packed_type": str(op.type.element_type),
        "layers": len(layers) or 1,
        "bytes": packed_bytes(op) * (len(layers) or 1),
        "padding": 1 - prod(shape) / prod(packed),
        "offset": tile.integer(op.attributes["offset"]),
        "stride": tile.integer(op.attributes["stride"]),
    }


def _stored(weight: graph.WeightOp) -> set[str]:
    """The types in the checkpoint's files, or the kind of recipe that makes the values."""
    found: set[str] = set()
    for source in weight.sources.data:
        found |= _types(source)
    return found


def _types(source: Attribute) -> set[str]:
    assert isinstance(source, DictionaryAttr)
    dtype = source.data.get("dtype")
    if isinstance(dtype, StringAttr):
        return {dtype.data}
    listed, one = source.data.get("sources"), source.data.get("source")
    inner = [*(listed.data if isinstance(listed, ArrayAttr) else ()), *([one] if one is not None else ())]
    return set[str]().union(*(_types(part) for part in inner)) if inner else {"computed"}


def _quantization(element: Attribute) -> str:
    return str(element)[len("!nquant.quantized<") : -1] if isinstance(element, QuantizedType) else ""
