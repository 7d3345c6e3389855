"""Builds `graph` modules operation by operation, with weights that all lie in one file of random numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from npuc.frontends.recipes import source_attr
from npuc.frontends.safetensors import TensorSource
from npuc.ir import graph
from npuc.ir.graph_types import element_of, shape_of, tensor_type
from npuc.ir.shapes import Dim
from xdsl.dialects.builtin import (
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    FunctionType,
    StringAttr,
    TensorType,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

FILE = "random.bin"
COUNT = 1 << 16
"""Numbers of one scale in the file; there are `SCALES` scales, each half of the one before."""
SCALES = 5
_STEP = 7919 * 4
"""Bytes from the start of a weight to that of the next: they overlap, but not as a whole."""


@cache
def random_root() -> Path:
    """A checkpoint's directory with the file, the same numbers every time."""
    folder = Path(mkdtemp(prefix="npuc-fuzz-"))
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(COUNT, generator=generator) * 2.0**-k for k in range(SCALES)]
    (folder / FILE).write_bytes(torch.cat(parts).numpy().tobytes())
    return folder


class Weights:
    """The weights and caches that a module declares."""

    def __init__(self) -> None:
        self.declared: dict[str, Operation] = {}
        self.sources = 0

    def source(self, shape: Sequence[int]) -> DictionaryAttr:
        """The next numbers of the file, such that products of a matrix are about as large as what goes in."""
        count = torch.Size(shape).numel()
        scale = min(SCALES - 1, (shape[-1].bit_length() - 1) // 2) if len(shape) > 1 else 0
        offset = self.sources * _STEP % ((COUNT - count) * 4 + 4)
        self.sources += 1
        return source_attr(TensorSource(FILE, scale * COUNT * 4 + offset, count * 4, "F32", tuple(shape)))

    def weight(
        self, name: str, shape: Sequence[int], element: Attribute, layers: Sequence[int] | None = None
    ) -> TensorType[Attribute]:
        """Declares a weight, of each of the layers if there are any."""
        kind = TensorType(element, list(shape))
        sources = [self.source(shape) for _ in layers or (0,)]
        self.declared[name] = graph.WeightOp(name, kind, sources, layers)
        return kind

    def cache(self, layers: Sequence[int], heads: int, sizes: tuple[int, int], element: Attribute) -> str:
        """Declares a cache."""
        name = f"cache{sum(isinstance(op, graph.CacheDeclOp) for op in self.declared.values())}"
        self.declared[name] = graph.CacheDeclOp(name, layers, heads, *sizes, element)
        return name


class Builder:
    """A function under construction.

    Attributes:
        module: the checkpoint module that operations are said to be of.
        layers: the layers whose body this is, if it is one.
    """

    def __init__(
        self,
        weights: Weights,
        arguments: Sequence[tuple[str, Attribute]],
        element: Attribute,
        layers: Sequence[int] | None = None,
    ) -> None:
        self.weights, self.element, self.layers = weights, element, layers
        self.block = Block(arg_types=[kind for _, kind in arguments])
        for argument, (name, _) in zip(self.block.args, arguments, strict=True):
            argument.name_hint = name
        self.module = "model"

    def add(self, op: Operation) -> SSAValue:
        """Adds an operation; its first result."""
        if self.module:
            op.attributes["module"] = StringAttr(self.module)
        self.block.add_op(op)
        return op.results[0]

    def unary(self, name: str, value: SSAValue) -> SSAValue:
        return self.add(graph.unary(name, value))

    def binary(self, name: str, lhs: SSAValue, rhs: SSAValue) -> SSAValue:
        return self.add(graph.binary(name, lhs, rhs))

    def number(self, value: float, element: Attribute | None = None) -> SSAValue:
        """A constant without dimensions."""
        return self.constant([value], [], element)

    def constant(
        self, values: Sequence[float], shape: Sequence[int], element: Attribute | None = None
    ) -> SSAValue:
        kind: TensorType[Attribute] = TensorType(element or self.element, list(shape))
        return self.add(graph.ConstantOp(DenseIntOrFPElementsAttr.from_list(kind, values)))  # pyright: ignore

    def cast(self, value: SSAValue, element: Attribute) -> SSAValue:
        return value if element_of(value) == element else self.add(graph.CastOp(value, element))

    def reshape(self, value: SSAValue, *shape: Dim) -> SSAValue:
        return self.add(graph.ReshapeOp(value, shape))

    def transpose(self, value: SSAValue, *perm: int) -> SSAValue:
        return self.add(graph.TransposeOp(value, perm))

    def reduce(self, value: SSAValue, kind: str, dim: int = -1) -> SSAValue:
        return self.add(graph.ReduceOp(value, kind, [dim], True))

    def columns(self, value: SSAValue, start: int, stop: int, step: int = 1) -> SSAValue:
        """A range of the last dimension."""
        rank = len(shape_of(value))
        starts, stops = [0] * (rank - 1) + [start], [-1] * (rank - 1) + [stop]
        return self.add(graph.SliceOp(value, starts, stops, [1] * (rank - 1) + [step]))

    def concat(self, *values: SSAValue) -> SSAValue:
        """Along the last dimension."""
        return self.add(graph.ConcatOp(values, -1))

    def param(self, name: str, *shape: int) -> SSAValue:
        """A weight of this name within the module; declared on first use."""
        full = f"{self.module}.{name}"
        kind = TensorType(self.element, list(shape))
        if full not in self.weights.declared:
            self.weights.weight(full, shape, self.element, self.layers)
        return self.add(graph.ParamOp(full, kind))

    def linear(self, value: SSAValue, name: str, outputs: int, *, bias: bool = False) -> SSAValue:
        inputs = width(value)
        vector = self.param(f"{name}.bias", outputs) if bias else None
        outer, self.module = self.module, f"{self.module}.{name}"
        weight = self.param("weight", outputs, inputs)
        result = self.add(graph.LinearOp(value, weight, vector))
        self.module = outer
        return result

    def function(self, name: str, *results: SSAValue, private: bool = False) -> FuncOp:
        """The finished function."""
        self.block.add_op(ReturnOp(*results))
        kind = FunctionType.from_lists([a.type for a in self.block.args], [r.type for r in results])
        return FuncOp(name, kind, Region(self.block), "private" if private else "public")


def width(value: SSAValue) -> int:
    """The last dimension, which is a number."""
    size = shape_of(value)[-1]
    assert isinstance(size, int)
    return size


__all__ = ["Builder", "Weights", "random_root", "tensor_type", "width"]
