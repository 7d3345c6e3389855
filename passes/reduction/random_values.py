"""What the functions of a module compute of random arguments, weights and caches."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from npuc.backends.machine import Machine
from npuc.frontends.weight_reader import WeightReader
from npuc.ir import graph, tile
from npuc.ir.commands import torch_type as memref_type
from npuc.ir.graph_types import shape_of, static_shape
from npuc.ir.interpret import Caches, Runtime
from npuc.ir.interpret_tile import TileMemory, interpret_tile
from npuc.ir.shapes import evaluate
from npuc.ir.tile_placements import GridAttr, HostAttr, SlicedAttr, SpreadAttr
from npuc.ir.torch_types import torch_type
from npuc.passes.checking import Figures, compare, worst
from npuc.passes.evaluation import AnyLevel, cache_shapes, on_grid, token_major
from npuc.passes.placing import placement_of
from npuc.passes.specialized import buckets_of
from npuc.runtime.packing import pack
from npuc.runtime.weight_packing import recipe_of
from torch import Tensor
from xdsl.dialects.builtin import DictionaryAttr, MemRefType, ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

SIZES = (2, 3, 5)
"""Batch, seq and ctx of symbolic types."""
RUNTIME = Runtime([0, 1], [1, 2], [3, 2], SIZES[2])


def runtime_of(holder: ModuleOp) -> Runtime:
    """The runtime parameters of a program: all rows and tokens valid, the cache full at the end."""
    bucket = holder.attributes.get("npuc.bucket")
    if not isinstance(bucket, DictionaryAttr):
        return RUNTIME
    batch, tokens, length = (tile.integer(bucket.data[name]) for name in ("batch", "new_tokens", "length"))
    return Runtime(range(batch), [length - tokens] * batch, [tokens] * batch, length)


def random_tensor(name: str, shape: Sequence[int], dtype: torch.dtype, *, matrix: bool = False) -> Tensor:
    """Values that the name decides: normal floats, rows of a matrix about as long as 1, small integers."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    generator = torch.Generator().manual_seed(seed)
    if dtype.is_floating_point:
        scale = shape[-1] ** -0.5 if matrix else 1.0
        return (torch.randn(tuple(shape), generator=generator) * scale).to(dtype)
    return torch.randint(0, 2, tuple(shape), generator=generator).to(dtype)


class _Weights:
    """Random weights; constants that the compiler has made weights of are what they are."""

    def read(self, weight: graph.WeightOp, layer: int | None = None) -> Tensor:
        if "file = " not in str(weight.attributes["sources"]):
            return WeightReader(Path()).read(weight, layer)
        name, kind = weight.sym_name.data, weight.type
        shape, dtype = static_shape(kind), torch_type(graph.element_of(kind))
        return random_tensor(f"{name} {layer}", shape, dtype, matrix=len(shape) > 1)


class _Interpreter(AnyLevel):
    """Functions of one layer can be run by themselves: as the first."""

    def call(self, func: FuncOp, inputs: Sequence[Tensor], layer: int | None) -> list[Tensor]:
        return super().call(func, inputs, layer or 0)


def functions_of(module: ModuleOp) -> dict[str, tuple[ModuleOp, FuncOp]]:
    """Each function by the names of its program and its own, with the module it stands in."""
    nested = buckets_of(module)
    return {
        f"{holder.sym_name.data if holder.sym_name else ''}.{op.sym_name.data}": (holder, op)
        for holder in (module, *nested)
        for op in holder.body.block.ops
        if isinstance(op, FuncOp) and op.body.blocks
    }


def change_of_values(before: ModuleOp, after: ModuleOp, machine: Machine) -> Figures:
    """The worst figures of the results of all functions that both modules have.

    Raises:
        UserError: one of them cannot be interpreted.
    """
    first, second = functions_of(before), functions_of(after)
    found: list[Figures] = []
    for name in first:
        if name in second:
            found += _compared(before, first[name], after, second[name], machine)
    return worst(found)


def _compared(
    before: ModuleOp,
    one: tuple[ModuleOp, FuncOp],
    after: ModuleOp,
    other: tuple[ModuleOp, FuncOp],
    machine: Machine,
) -> list[Figures]:
    if _has_buffers(one[1]):
        pairs = zip(_run_buffers(after, *other, machine), _run_buffers(before, *one, machine), strict=True)
        return [compare(found.float(), wanted.float()) for found, wanted in pairs]
    inputs = _inputs(one[1])
    wanted = _run_tensors(before, *one, inputs)
    if not _has_buffers(other[1]):
        found = _run_tensors(after, *other, inputs)
        return [
            compare(a.flatten().float(), b.flatten().float())
            for a, b in zip(found, wanted, strict=True)
            if a.numel() == b.numel()
        ]
    return _run_lowered(after, one[1], other, inputs, wanted, machine)


def _has_buffers(function: FuncOp) -> bool:
    return any(isinstance(argument.type, MemRefType) for argument in function.body.block.args)


def _inputs(function: FuncOp) -> list[Tensor]:
    return [
        random_tensor(f"argument {i}", _sizes(a.type), torch_type(graph.element_of(a)))
        for i, a in enumerate(function.body.block.args)
    ]


def _sizes(kind: Attribute) -> list[int]:
    return [evaluate(size, SIZES) for size in shape_of(kind)]


def _run_tensors(module: ModuleOp, holder: ModuleOp, function: FuncOp, inputs: list[Tensor]) -> list[Tensor]:
    runtime = runtime_of(holder)
    caches = Caches(runtime.ctx)
    for (name, part), cache in _caches(module, runtime).items():
        (caches.keys if part == "key" else caches.values)[name] = cache[..., : runtime.ctx, :].clone()
    interpreter = _Interpreter(holder, _Weights(), caches, None)
    weights = {op.sym_name.data: op for op in module.ops if isinstance(op, graph.WeightOp)}
    packed = [op for op in module.ops if isinstance(op, tile.PackedOp)]
    interpreter.symbols |= weights | {op.sym_name.data: weights[op.weight.string_value()] for op in packed}
    declared = {op.sym_name.data: op for op in module.ops if isinstance(op, graph.CacheDeclOp | tile.CacheOp)}
    interpreter.declarations |= declared  # pyright: ignore[reportAttributeAccessIssue]
    return interpreter.run(function.sym_name.data, inputs, runtime)


def _caches(module: ModuleOp, runtime: Runtime) -> dict[tuple[str, str], Tensor]:
    """Keys and values [layers, slots, heads, length, size] of each cache, placed or not."""
    found: dict[tuple[str, str], Tensor] = {}
    placed = {op.sym_name.data: op for op in module.ops if isinstance(op, tile.CacheOp)}
    for name, heads, sizes, layers, dtype in cache_shapes(module):
        op = placed.get(name)
        slots = len(runtime.slot) if op is None else tile.integer(op.slots)
        for part, size in zip(("key", "value"), sizes, strict=True):
            length = runtime.ctx if op is None else op.key_type.get_shape()[0]
            shape = (len(layers), slots, len(heads), length, size)
            found[name, part] = random_tensor(f"{name} {part}", shape, dtype)
    return found


def _memory(module: ModuleOp, holder: ModuleOp, machine: Machine) -> TileMemory:
    packed = {op.sym_name.data: op for op in module.ops if isinstance(op, tile.PackedOp)}
    weights = {op.sym_name.data: op for op in module.ops if isinstance(op, graph.WeightOp)}
    runtime = runtime_of(holder)

    def weight(name: str, ordinal: int | None) -> Tensor:
        op = packed[name]
        layer = None if op.layers is None else tile.ints(op.layers)[ordinal or 0]
        logical = _Weights().read(weights[op.weight.string_value()], layer)
        return pack(logical.to(torch_type(op.type.element_type)), recipe_of(op)).contiguous()

    slices = {name: memory.slices for name, memory in machine.memories.items()}
    caches = {key: token_major(cache) for key, cache in _caches(module, runtime).items()}
    return TileMemory(slices, weight, caches, runtime)


def _run_buffers(module: ModuleOp, holder: ModuleOp, function: FuncOp, machine: Machine) -> list[Tensor]:
    """What a function over buffers leaves in its arguments."""
    arguments: list[Tensor | int] = []
    for number, argument in enumerate(function.body.block.args):
        kind = argument.type
        if isinstance(kind, MemRefType):
            dtype = memref_type(str(kind.element_type))
            arguments.append(random_tensor(f"argument {number}", kind.get_shape(), dtype).flatten())
        else:
            arguments.append(0)
    interpret_tile(holder, function.sym_name.data, arguments, _memory(module, holder, machine))
    return [argument for argument in arguments if isinstance(argument, Tensor)]


def _run_lowered(
    module: ModuleOp,
    function: FuncOp,
    lowered: tuple[ModuleOp, FuncOp],
    inputs: list[Tensor],
    wanted: list[Tensor],
    machine: Machine,
) -> list[Figures]:
    """A function over tensors that was lowered to one over buffers: arguments and results are placed."""
    holder, other = lowered
    kinds = [a.type for a in other.body.block.args if isinstance(a.type, MemRefType)]
    types = [a.type for a in function.body.block.args]
    buffers = [placed(x, t, k) for x, t, k in zip(inputs, types, kinds, strict=False)]
    buffers += [torch.full((prod(k.get_shape()),), torch.nan) for k in kinds[len(buffers) :]]
    leading = [0] * (len(other.body.block.args) - len(kinds))  # the layer
    interpret_tile(holder, other.sym_name.data, [*leading, *buffers], _memory(module, holder, machine))
    outputs = function.function_type.outputs.data
    own = len(kinds) > len(types)
    results = buffers[len(types) :] if own else buffers
    ends = kinds[len(types) :] if own else kinds
    return [
        compare(found.float(), placed(value, kind, end, torch.nan).float())
        for found, value, kind, end in zip(results, wanted, outputs, ends, strict=False)
    ]


def placed(value: Tensor, kind: Attribute, buffer: MemRefType[Attribute], padding: float = 0.0) -> Tensor:
    """A tensor as the buffer that its placement says, flat."""
    dtype = memref_type(str(buffer.element_type))
    assert isinstance(kind, TensorType)
    placement, count = placement_of(kind), prod(buffer.get_shape())
    if isinstance(placement, HostAttr):
        return value.to(dtype).flatten()
    slices = buffer.get_shape()[0]
    if isinstance(placement, SlicedAttr):
        chunk = placement.chunk.data
        wide = torch.full((*value.shape[:-1], slices * chunk), padding, dtype=dtype)
        wide[..., : value.shape[-1]] = value
        return wide.unflatten(-1, (slices, chunk)).movedim(-2, 0).flatten().contiguous()
    rows = torch.full((slices, count // slices), padding, dtype=dtype)
    own = value.expand(slices, *value.shape)
    if isinstance(placement, SpreadAttr):
        own = value.unflatten(placement.dim.data, (-1, slices)).movedim(placement.dim.data + 1, 0)
    if isinstance(placement, GridAttr):
        own = on_grid(value, placement, slices)
    rows[:, : own[0].numel()] = own.flatten(1)
    return rows.flatten()
