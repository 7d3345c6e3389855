"""Packed weights of a module, read from the checkpoint and laid out for the target."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from npuc.frontends.weights import WeightReader
from npuc.ir import graph, tile
from npuc.ir.torch_types import torch_type
from npuc.runtime.manifest import WeightPlacement
from npuc.runtime.packing import pack
from npuc.runtime.weights import TensorPlan, WeightWriter
from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, DictionaryAttr, ModuleOp, StringAttr
from xdsl.ir import Attribute


class ModuleWeights:
    """The packed weights of one rank of a module from phase `layout` on."""

    def __init__(self, module: ModuleOp, root: Path, rank: int = 0) -> None:
        ops = list(module.body.block.ops)
        self._weights = {w.sym_name.data: w for w in ops if isinstance(w, graph.WeightOp)}
        self._packed = [p for p in ops if isinstance(p, tile.PackedOp)]
        self._reader = WeightReader(root, rank=rank)

    def plan(self) -> list[TensorPlan]:
        """The tensors of the weight file; of a layer weight, one with the layer in front."""
        return [TensorPlan(p.sym_name.data, str(p.type.element_type), _shape(p)) for p in self._packed]

    def placements(self, base: int) -> tuple[WeightPlacement, ...]:
        """Where each tensor goes in main memory, given the weights region's base."""
        found: list[WeightPlacement] = []
        for op in self._packed:
            address = base + tile.integer(op.offset)
            if op.layers is None:
                found.append(WeightPlacement(op.sym_name.data, address))
            else:
                count = len(tile.ints(op.layers))
                found.append(WeightPlacement(op.sym_name.data, address, count, tile.integer(op.stride)))
        return tuple(found)

    def write(self, writer: WeightWriter) -> None:
        """Reads, packs and writes every tensor, one layer at a time."""
        for op in self._packed:
            if not writer.done(op.sym_name.data):
                writer.write(op.sym_name.data, self.layers(op))

    def layers(self, op: tile.PackedOp) -> Iterator[torch.Tensor]:
        """The packed tensor of each layer in order (of a weight outside the layers, the one)."""
        weight = self._weights[op.weight.string_value()]
        recipe = [_step(s) for s in op.recipe]
        dtype = torch_type(op.type.element_type)
        for layer in [None] if op.layers is None else tile.ints(op.layers):
            values = self._reader.read(weight, layer)
            packed = pack(values.to(dtype), recipe)
            assert packed.numel() == prod(op.type.get_shape())
            yield packed


def _shape(op: tile.PackedOp) -> tuple[int, ...]:
    shape = op.type.get_shape()
    return shape if op.layers is None else (len(tile.ints(op.layers)), *shape)


def _step(attr: DictionaryAttr) -> dict[str, Any]:
    return {key: _plain(value) for key, value in attr.data.items()}


def _plain(value: Attribute) -> Any:
    if isinstance(value, StringAttr):
        return value.data
    if isinstance(value, DenseArrayBase):
        return list(tile.ints(value))
    if isinstance(value, ArrayAttr):
        return [_plain(item) for item in value]
    return tile.integer(value)
