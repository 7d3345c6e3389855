"""Addresses and indices of `tile` values as sums of a constant and what is known only at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.passes.algorithms.registers import Parameter, Sum
from npuc.passes.allocate_buffers import memory_map, rank_stride
from npuc.passes.command_fields import element_name
from npuc.passes.multi_buffer import copies_of
from npuc.passes.partition import ranks_of
from npuc.passes.programs import slice_elements
from xdsl.dialects.builtin import IntegerAttr, MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, BlockArgument, SSAValue
from xdsl.utils.exceptions import PassFailedException

RANK, CHIP = Parameter(0), Parameter(1)
FIRST_ROW_PARAMETER = 2


@dataclass(frozen=True)
class Copies:
    """The atom that is 0 and ``stride`` in alternate iterations of ``loop``."""

    loop: tile.ForOp
    stride: int


@dataclass
class Addresses:
    """Looks up values of one module.

    Attributes:
        regions: base address of each region of main memory.
        declared: packed weights and caches by symbol.
        rank_base: how far behind rank 0's the rank's own part of main memory begins.
        chip_base: how far behind the first chip's the chip's own main memory begins.
    """

    machine: Machine
    regions: Mapping[str, int]
    declared: dict[str, tile.PackedOp | tile.CacheOp] = field(
        default_factory=dict[str, tile.PackedOp | tile.CacheOp]
    )
    rank_base: Sum = field(default_factory=Sum)
    chip_base: Sum = field(default_factory=Sum)

    @staticmethod
    def of(machine: Machine, module: ModuleOp) -> Addresses:
        """Of a module whose buffers are allocated."""
        ops = [op for op in module.body.block.ops if isinstance(op, tile.PackedOp | tile.CacheOp)]
        regions = {name: base for name, (base, _) in memory_map(module).items()}
        declared, ranks = {op.sym_name.data: op for op in ops}, ranks_of(module)
        base = Sum(0, ((RANK, rank_stride(module)),)) if ranks > 1 else Sum()
        several = ranks > machine.cores_per_chip
        chip = Sum(0, ((CHIP, machine.cores_per_chip * rank_stride(module)),)) if several else Sum()
        return Addresses(machine, regions, declared, base, chip)

    def index(self, value: SSAValue) -> Sum:
        """An index value."""
        owner = value.owner
        if isinstance(owner, tile.RankOp):
            return Sum(0, ((RANK, 1),))
        if isinstance(owner, tile.ChipOp):
            return Sum(0, ((CHIP, 1),))
        if isinstance(owner, tile.ConstantOp):
            return Sum(tile.integer(owner.value))
        if isinstance(owner, tile.RuntimeOp):
            return self._parameter(owner)
        if isinstance(owner, tile.SumOp):
            return self.index(owner.base) + self.index(owner.index).scaled(tile.integer(owner.coefficient))
        if isinstance(value, BlockArgument):
            loop = value.block.parent_op()
            start = tile.integer(loop.start) if isinstance(loop, tile.ForOp) else 0
            return Sum(start, ((value, 1),))
        raise PassFailedException(f"lower-to-npu: no register holds the result of {value.owner}")

    def port(self, port: tile.Port, value: SSAValue, indices: list[SSAValue]) -> Sum:
        """The address of a port's first element; with windows where it starts in a later slice."""
        assert isinstance(value.type, MemRefType)
        memory = self.machine.memories[tile.memory_of(value)]
        bits = self.machine.element_types[element_name(self.machine, value.type.element_type)].bits
        number, offset = divmod(port.offset, max(slice_elements(self.machine, value.type), 1))
        if memory.slices == 1 or port.offset < 0:
            number, offset = 0, port.offset
        result = self.buffer(value) + Sum(number * memory.window + offset * bits // 8)
        for k, coefficient in port.index:
            if coefficient * bits % 8:
                raise PassFailedException(f"lower-to-npu: index steps of {coefficient * bits} bits")
            result += self.index(indices[k]).scaled(coefficient * bits // 8)
        return result

    def buffer(self, value: SSAValue) -> Sum:
        """The address of a buffer."""
        owner = value.owner
        if isinstance(owner, tile.AllocOp):
            return self._alloc(owner)
        if isinstance(owner, tile.SharedOp):
            address = Sum(_attribute(owner, "address"))
            return address if owner.system else address + self.chip_base
        if isinstance(owner, tile.WeightOp):
            return self._weight(owner)
        if isinstance(owner, tile.CacheSlotOp):
            return self._cache(owner)
        if isinstance(value, BlockArgument):
            address = argument_address(value)
            return Sum(0, ((value, 1),)) if address is None else Sum(address)
        raise PassFailedException(f"lower-to-npu: no address is known of the result of {value.owner}")

    def _parameter(self, op: tile.RuntimeOp) -> Sum:
        count = len(tile.RUNTIME_PARAMETERS)
        row = self.index(op.row).scaled(count)
        number = FIRST_ROW_PARAMETER + tile.RUNTIME_PARAMETERS.index(op.parameter.data)
        return Sum(0, ((Parameter(number + row.constant, row.terms), 1),))

    def _alloc(self, op: tile.AllocOp) -> Sum:
        address = Sum(_attribute(op, "address"))
        if self.machine.memories[tile.memory_of(op.result)].main:
            address += self.rank_base
        if copies_of(op) == 1:
            return address
        loop = op.parent_op()
        assert isinstance(loop, tile.ForOp)
        return address + Sum(0, ((Copies(loop, _attribute(op, "copy_stride")), 1),))

    def _weight(self, op: tile.WeightOp) -> Sum:
        packed = self.declared[op.symbol.string_value()]
        assert isinstance(packed, tile.PackedOp)
        base = self.rank_base + Sum(self.regions["weights"] + tile.integer(packed.offset))
        layer = Sum() if op.layer is None else self.index(op.layer)
        return base + layer.scaled(tile.integer(packed.stride))

    def _cache(self, op: tile.CacheSlotOp) -> Sum:
        cache = self.declared[op.symbol.string_value()]
        assert isinstance(cache, tile.CacheOp)
        part = tile.integer(cache.value_offset) if op.part.data == "value" else 0
        base = self.rank_base + Sum(self.regions["cache"] + tile.integer(cache.offset) + part)
        layers = self.index(op.layer).scaled(tile.integer(cache.layer_stride))
        return base + layers + self.index(op.slot).scaled(tile.integer(cache.slot_stride))


def argument_address(argument: BlockArgument) -> int | None:
    """The address of an entry's main-memory argument; None for arguments that registers hold."""
    function = argument.block.parent_op()
    if not isinstance(function, FuncOp) or function.arg_attrs is None:
        return None
    found: Attribute | None = function.arg_attrs.data[argument.index].data.get("tile.address")
    return found.value.data if isinstance(found, IntegerAttr) else None


def _attribute(op: tile.AllocOp | tile.SharedOp, name: str) -> int:
    if name not in op.attributes:
        raise PassFailedException(f"lower-to-npu: {op.name} has no {name}; run allocate-buffers first")
    return tile.integer(op.attributes[name])
