"""Packed weights of a module, read from the checkpoint and laid out for the target."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from npuc.frontends.weight_reader import WeightReader
from npuc.ir import graph, tile
from npuc.ir.torch_types import torch_type
from npuc.runtime.ahead import ahead
from npuc.runtime.manifest import WeightPlacement
from npuc.runtime.packing import packed_shape
from npuc.runtime.packing_groups import pack_groups
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

    def recipe(self) -> str:
        """What decides the tensors' values, as text: where they are read and how they are packed."""
        return "\n".join(str(op) for op in (*self._weights.values(), *self._packed))

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
        """Reads and packs every tensor a few groups at a time, while what is done is being written."""
        missing = [op for op in self._packed if not writer.done(op.sym_name.data)]
        made = ahead((op.sym_name.data, piece) for op in missing for piece in self.pieces(op))
        for name, group in groupby(made, key=itemgetter(0)):
            writer.write(name, (piece for _, piece in group))

    def pieces(self, op: tile.PackedOp) -> Iterator[torch.Tensor]:
        """The packed tensor in pieces; of a layer weight the layers in order."""
        for layer in self._layers(op):
            yield from self._layer(op, layer)

    def layers(self, op: tile.PackedOp) -> Iterator[torch.Tensor]:
        """The packed tensor of each layer in order (of a weight outside the layers, the one)."""
        for layer in self._layers(op):
            yield torch.cat(list(self._layer(op, layer)))

    def _layers(self, op: tile.PackedOp) -> Sequence[int | None]:
        return [None] if op.layers is None else tile.ints(op.layers)

    def _layer(self, op: tile.PackedOp, layer: int | None) -> Iterator[torch.Tensor]:
        weight, dtype = self._weights[op.weight.string_value()], torch_type(op.type.element_type)
        rows = self._reader.rows(weight, layer)
        recipe, shape = recipe_of(op), graph.static_shape(weight.type)
        assert packed_shape(shape, recipe) == tuple(op.type.get_shape())
        yield from pack_groups(lambda start, stop: rows(start, stop).to(dtype), shape, recipe)


def _shape(op: tile.PackedOp) -> tuple[int, ...]:
    shape = op.type.get_shape()
    return shape if op.layers is None else (len(tile.ints(op.layers)), *shape)


def recipe_of(op: tile.PackedOp) -> list[dict[str, Any]]:
    """The steps of a packed weight's recipe, as `pack` takes them."""
    return [_step(step) for step in op.recipe]


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
