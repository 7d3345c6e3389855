"""Runs modules of the `tile` level: buffers are torch tensors, passes and copies are those of ir/commands.py.

A buffer is a one-dimensional tensor in the row-major order of its memref, slices included. What `tile.alloc`
gives is poison (NaN, or a number that is no index) until something is written to it. Where buffers lie is the
business of `TileMemory`: `passes/addressed_memory.py` has one that puts them at their addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

import torch
from npuc.ir import commands, tile
from npuc.ir.command_spec import BIT_TYPES
from npuc.ir.commands import At, Bound, CopyKernel, PassKernel
from npuc.ir.errors import UserError
from npuc.ir.interpret import Runtime
from npuc.ir.lockstep import Lockstep
from torch import Tensor
from xdsl.dialects.builtin import MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, SSAValue

POISON = 0x55
"""Every byte of an integer buffer that nothing was written to."""

Observer = Callable[[Operation, Sequence[At]], None]


@dataclass
class TileMemory:
    """What a tile program finds around it.

    Attributes:
        slices: how many slices each memory of the machine has; memories left out have one.
        weight: reads a packed weight, of one layer (its ordinal within the kind) if it is per layer.
        caches: (symbol, "key" or "value") → [layers, slots, heads, length, size], updated in place.
        runtime: per-row parameters.
        ranks: those that run the program together, and the number of this one.
        cores: how many ranks a chip has.
        exchanged: buffers that they share, by number, size and type.
    """

    slices: Mapping[str, int]
    weight: Callable[[str, int | None], Tensor]
    caches: Mapping[tuple[str, str], Tensor] = field(default_factory=dict[tuple[str, str], Tensor])
    runtime: Runtime = field(default_factory=lambda: Runtime([], [], [], 0))
    ranks: tuple[Lockstep, int] = field(default_factory=lambda: (Lockstep(1), 0))
    cores: int = 1
    exchanged: dict[object, Tensor] = field(default_factory=dict[object, Tensor])

    @property
    def chip(self) -> int:
        """The number of the rank's chip."""
        return self.ranks[1] // self.cores

    def spacing(self, kind: MemRefType) -> tuple[int, int]:
        """Slices of a buffer's memory and the elements from one to the next; (1, 0) where there is one."""
        slices = self.slices.get(tile.memory_of(kind), 1)
        return (1, 0) if slices == 1 else (kind.get_shape()[0], slice_elements(kind))

    def alloc(self, op: tile.AllocOp, copy: int) -> At:
        """A buffer's place; `copy` says which, where it has several."""
        kind = op.result.type
        assert isinstance(kind, MemRefType)
        return At(poisoned(prod(kind.get_shape()), commands.torch_type(str(kind.element_type))), 0)

    def weight_at(self, op: tile.WeightOp, layer: int | None) -> At:
        """A packed weight's place."""
        return At(_own_storage(self.weight(op.symbol.string_value(), layer)), 0)

    def cache_at(self, op: tile.CacheSlotOp, layer: int, slot: int) -> At:
        """The place of one slot of one layer of a cache."""
        cache = self.caches[op.symbol.string_value(), op.part.data]
        return At(_own_storage(cache[layer, slot]), 0)

    def shared_at(self, op: tile.SharedOp) -> At:
        """The place of a buffer that ranks share: that of the rank's chip, or the first chip's."""
        kind = op.result.type
        assert isinstance(kind, MemRefType)
        count, dtype = self.chip_elements(op), commands.torch_type(str(kind.element_type))
        key = tile.integer(op.number), count, dtype
        if key not in self.exchanged:
            chips = -(-self.ranks[0].ranks // self.cores)
            self.exchanged[key] = poisoned(chips * count, dtype)
        return At(self.exchanged[key], 0 if op.system else self.chip * count)

    def chip_elements(self, op: tile.SharedOp) -> int:
        """Elements of a shared buffer in one chip."""
        kind = op.result.type
        assert isinstance(kind, MemRefType)
        return slice_elements(kind) if op.system else prod(kind.get_shape())

    def chip_distance(self, op: tile.SharedOp) -> int:
        """Elements from a shared buffer of one chip to that of the next."""
        return self.chip_elements(op)

    def meet(self, scope: str) -> None:
        """Waits for the other ranks of the chip or of the system."""
        together, rank = self.ranks
        together.exchange(rank, None, min(self.cores, together.ranks) if scope == "chip" else 0)

    def content(self, place: At, kind: MemRefType) -> Tensor:
        """The elements of a buffer, in the row-major order of its memref."""
        return place.flat


def interpret_tile(
    program: ModuleOp,
    function: str,
    arguments: Sequence[Tensor | At | int],
    memory: TileMemory,
    *,
    observe: Observer | None = None,
) -> None:
    """Run a function of a program (a bucket's module); results are in its arguments.

    Args:
        arguments: contiguous tensors of the function's argument types, or places in the memory; indices.
        observe: called after each pass and copy with the places of its buffers.

    Raises:
        UserError: when there is no such function, or arguments or a command do not fit.
    """
    functions = {op.sym_name.data: op for op in program.body.block.ops if isinstance(op, FuncOp)}
    if function not in functions:
        raise UserError(
            "unknown-function", f"no function @{function}", remedy=f"there are: {', '.join(functions)}"
        )
    block = functions[function].body.block
    if len(arguments) != len(block.args):
        raise UserError(
            "bad-arguments", f"@{function} takes {len(block.args)} arguments, {len(arguments)} are given"
        )
    interpreter = _Interpreter(functions, memory, observe)
    buffers = [_given(a, v, i) for i, (a, v) in enumerate(zip(arguments, block.args, strict=True))]
    interpreter.run(block, dict(zip(block.args, buffers, strict=True)))


def slice_elements(kind: MemRefType) -> int:
    """Elements of a buffer in each slice; dimension 0 is the slice."""
    return prod(kind.get_shape()[1:])


def _given(tensor: Tensor | At | int, value: SSAValue, number: int) -> At | int:
    if isinstance(tensor, At | int):
        return tensor
    kind = value.type
    assert isinstance(kind, MemRefType)
    count, dtype = prod(kind.get_shape()), commands.torch_type(str(kind.element_type))
    if tensor.numel() != count or tensor.dtype != dtype or not tensor.is_contiguous():
        found = f"{tensor.numel()} elements of {tensor.dtype}"
        raise UserError("bad-arguments", f"argument {number} has {found}, expected {count} of {dtype}")
    return At(_own_storage(tensor), 0)


def _own_storage(tensor: Tensor) -> Tensor:
    """The tensor's elements, shared, in a storage that begins with them: kernels count from there."""
    flat = tensor.view(-1)
    return torch.from_numpy(flat.view(BIT_TYPES[flat.itemsize]).numpy()).view(flat.dtype)


def poisoned(count: int, dtype: torch.dtype) -> Tensor:
    """A buffer that nothing was written to."""
    if dtype.is_floating_point:
        return torch.full((count,), torch.nan).to(dtype)
    return torch.full((count * dtype.itemsize,), POISON, dtype=torch.uint8).view(dtype)


Values = dict[SSAValue, "At | int"]


@dataclass
class _Interpreter:
    functions: Mapping[str, FuncOp]
    memory: TileMemory
    observe: Observer | None
    kernels: dict[Operation, PassKernel | CopyKernel] = field(
        default_factory=dict[Operation, PassKernel | CopyKernel]
    )

    def run(self, block: Block, values: Values) -> None:
        for op in block.ops:
            match op:
                case tile.PassOp() | tile.CopyOp():
                    self._command(op, values)
                case tile.ForOp():
                    start = tile.integer(op.start)
                    for i in range(start, start + tile.integer(op.count)):
                        self.run(op.body.block, {**values, op.induction: i})
                case tile.CallOp():
                    callee = self.functions[op.callee.string_value()].body.block
                    given = [values[operand] for operand in op.arguments]
                    self.run(callee, dict(zip(callee.args, given, strict=True)))
                case _:
                    for result in op.results:
                        values[result] = self._value(op, values)

    def _value(self, op: Operation, values: Values) -> At | int:
        match op:
            case tile.AllocOp():
                return self.memory.alloc(op, _copy_number(op, values))
            case tile.WeightOp():
                return self.memory.weight_at(op, None if op.layer is None else _index(values, op.layer))
            case tile.CacheSlotOp():
                return self.memory.cache_at(op, _index(values, op.layer), _index(values, op.slot))
            case tile.SharedOp():
                return self.memory.shared_at(op)
            case tile.RankOp():
                return self.memory.ranks[1]
            case tile.ChipOp():
                return self.memory.chip
            case tile.ConstantOp():
                return tile.integer(op.value)
            case tile.SumOp():
                coefficient = tile.integer(op.coefficient)
                return _index(values, op.base) + coefficient * _index(values, op.index)
            case tile.RuntimeOp():
                return self._parameter(op.parameter.data, _index(values, op.row))
            case _:
                raise UserError("unsupported-operation", f"{op.name} does not occur in tile modules")

    def _parameter(self, name: str, row: int) -> int:
        runtime = self.memory.runtime
        slot, position, valid = (x[row] for x in (runtime.slot, runtime.position, runtime.valid))
        table = {"slot": slot, "position": position, "valid": valid}
        return {**table, "last": max(valid - 1, 0), "end": position + valid}[name]

    def _command(self, op: tile.PassOp | tile.CopyOp, values: Values) -> None:
        buffers = [_place(values, buffer) for buffer in op.buffers]
        indices = [_index(values, index) for index in op.indices]
        spec = op.spec
        places = {
            name: self._port(buffers[port.buffer], op.buffers[port.buffer].type, port, indices)
            for name, port in spec.ports.items()
        }
        if op not in self.kernels:
            self.kernels[op] = self._kernel(op)
        kernel = self.kernels[op]
        limits = [_limit(limit, indices) for limit in _limits(spec)]
        if isinstance(spec, tile.CopySpec) and spec.meet:
            self.memory.meet(spec.meet)
        if isinstance(kernel, PassKernel):
            kernel.bind(places)(*(0 if limit is None else limit for limit in limits))
        else:
            index = _index_list(places["index"], spec) if "index" in places else None
            kernel.bind(places["src"], places["dst"], index)(limits[0])
        if self.observe is not None:
            self.observe(op, buffers)

    def _port(self, buffer: At, kind: Attribute, port: tile.Port, indices: Sequence[int]) -> At:
        """Where a port begins; a constant offset may lead into a later slice."""
        assert isinstance(kind, MemRefType)
        slices, distance = self.memory.spacing(kind)
        number, offset = divmod(port.offset, slice_elements(kind)) if slices > 1 else (0, port.offset)
        if port.offset < 0:
            number, offset = 0, port.offset
        moved = sum(coefficient * indices[k] for k, coefficient in port.index)
        return At(buffer.flat, buffer.offset + number * distance + offset + moved)

    def _kernel(self, op: tile.PassOp | tile.CopyOp) -> PassKernel | CopyKernel:
        spec = op.spec
        slices = {name: self._slices(op.buffers[port.buffer]) for name, port in spec.ports.items()}
        if isinstance(spec, tile.PassSpec):
            return commands.compile_pass(_pass_spec(op, spec, slices))
        kind = op.buffers[spec.ports["src"].buffer].type
        assert isinstance(kind, MemRefType)
        folded = {name: _folded(spec.ports[name], slices[name][1]) for name in ("src", "dst")}
        return commands.compile_copy(
            commands.CopySpec(
                spec.size, commands.torch_type(str(kind.element_type)).itemsize, folded["src"], folded["dst"],
                spec.index_dim if spec.index_dim >= 0 else None, spec.index_scale,
            )
        )  # fmt: skip

    def _slices(self, buffer: SSAValue) -> tuple[int, int]:
        """As `TileMemory.spacing`, where the chips' buffers of a system count as slices."""
        owner, kind = buffer.owner, buffer.type
        assert isinstance(kind, MemRefType)
        if isinstance(owner, tile.SharedOp) and owner.system:
            return kind.get_shape()[0], self.memory.chip_distance(owner)
        return self.memory.spacing(kind)


def _copy_number(op: tile.AllocOp, values: Values) -> int:
    """Which copy of a buffer this iteration of the loop around it uses."""
    copies, loop = op.attributes.get("copies"), op.parent_op()
    if copies is None or not isinstance(loop, tile.ForOp):
        return 0
    return (_index(values, loop.induction) - tile.integer(loop.start)) % tile.integer(copies)


def _pass_spec(
    op: tile.PassOp | tile.CopyOp, spec: tile.PassSpec, slices: Mapping[str, tuple[int, int]]
) -> commands.PassSpec:
    ports: dict[str, commands.Port] = {}
    for name, port in spec.ports.items():
        kind = op.buffers[port.buffer].type
        assert isinstance(kind, MemRefType)
        dtype = commands.torch_type(str(kind.element_type))
        ports[name] = commands.Port(dtype, (slices[name][1], *port.strides))
    bounds = [None if b is None else Bound(b.dim, b.slice_stride) for b in (spec.mask, spec.limit)]
    return commands.PassSpec(
        size=spec.size,
        slices=slices["out"][0],
        reduce=frozenset(spec.reduce),
        ring_dim=spec.ring_dim if spec.ring_dim >= 0 else None,
        mask=bounds[0],
        chain=tuple(commands.Step(step.op, step.source, step.value) for step in spec.chain),
        limit=bounds[1],
        fill=spec.fill or 0.0,
        within=None,
        **ports,
    )


def _limits(spec: tile.PassSpec | tile.CopySpec) -> tuple[tile.Limit | None, ...]:
    return (spec.mask, spec.limit) if isinstance(spec, tile.PassSpec) else (spec.limit,)


def _limit(limit: tile.Limit | None, indices: Sequence[int]) -> int | None:
    if limit is None:
        return None
    return limit.limit if limit.index < 0 else indices[limit.index]


def _folded(port: tile.Port, per_slice: int) -> tuple[int, ...]:
    """Strides over the whole buffer: a step to the next slice is that slice's elements."""
    steps = port.slices or (0,) * len(port.strides)
    return tuple(stride + step * per_slice for stride, step in zip(port.strides, steps, strict=True))


def _index_list(at: At, spec: tile.PassSpec | tile.CopySpec) -> Tensor:
    assert isinstance(spec, tile.CopySpec)
    stride = spec.ports["index"].strides[0]
    return at.flat.as_strided((spec.size[spec.index_dim],), (stride,), at.offset)


def _place(values: Values, value: SSAValue) -> At:
    found = values[value]
    assert isinstance(found, At)
    return found


def _index(values: Values, value: SSAValue) -> int:
    found = values[value]
    assert isinstance(found, int)
    return found
