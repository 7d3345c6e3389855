"""The simulator's memories as what a tile program finds: buffers, weights and caches at their addresses.

Overlapping buffers, which separate tensors would hide, spoil each other here as on the machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from npuc.ir import tile
from npuc.ir.commands import At, torch_type
from npuc.ir.errors import UserError
from npuc.ir.interpret import Runtime
from npuc.ir.interpret_tile import TileMemory, slice_elements
from npuc.ir.lockstep import Lockstep
from npuc.passes.addresses import argument_address
from npuc.passes.allocate_buffers import memory_map, rank_stride
from npuc.runtime.simulator.memory import SimulatedMemory
from torch import Tensor
from xdsl.dialects.builtin import MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp


def _no_weight(symbol: str, layer: int | None) -> Tensor:
    raise UserError("no-weight", f"@{symbol} lies at an address", where="interpret")


@dataclass
class AddressedMemory(TileMemory):
    """The memories that one core sees.

    Attributes:
        memories: by name; weights and caches have been written to the main one.
        module: whose buffers, weights and caches have addresses.
        start: where the rank's own part of main memory begins.
    """

    memories: Mapping[str, SimulatedMemory] = field(kw_only=True)
    module: ModuleOp = field(kw_only=True)
    start: int = 0

    def __post_init__(self) -> None:
        ops = [op for op in self.module.body.block.ops if isinstance(op, tile.PackedOp | tile.CacheOp)]
        self.declared = {op.sym_name.data: op for op in ops}
        self.regions = {name: base for name, (base, _) in memory_map(self.module).items()}

    @classmethod
    def of(
        cls,
        memories: Mapping[str, SimulatedMemory],
        module: ModuleOp,
        runtime: Runtime,
        ranks: tuple[Lockstep, int],
        cores: int,
    ) -> AddressedMemory:
        """For one of the ranks of a module whose buffers are allocated; a chip has so many of them."""
        slices = {name: memory.slices for name, memory in memories.items()}
        start = ranks[1] * rank_stride(module)
        return cls(
            slices, _no_weight, runtime=runtime, ranks=ranks, cores=cores, memories=memories, module=module,
            start=start,
        )  # fmt: skip

    def arguments(self, function: FuncOp) -> list[At]:
        """The places of an entry's arguments, all in main memory."""
        found: list[At] = []
        for argument in function.body.block.args:
            address, kind = argument_address(argument), argument.type
            assert address is not None
            assert isinstance(kind, MemRefType)
            found.append(self._at(kind, address))
        return found

    def spacing(self, kind: MemRefType) -> tuple[int, int]:
        memory = self.memories[tile.memory_of(kind)]
        return (1, 0) if memory.slices <= 1 else (memory.slices, memory.distance // _bytes(kind))

    def alloc(self, op: tile.AllocOp, copy: int) -> At:
        kind = op.result.type
        assert isinstance(kind, MemRefType)
        stride = tile.integer(op.attributes["copy_stride"]) if copy else 0
        start = self.start if self.memories[tile.memory_of(kind)].spec.main else 0
        return self._at(kind, start + tile.integer(op.attributes["address"]) + copy * stride)

    def shared_at(self, op: tile.SharedOp) -> At:
        kind = op.result.type
        assert isinstance(kind, MemRefType)
        chip = 0 if op.system else self.chip
        return self._at(kind, tile.integer(op.attributes["address"]) + chip * self._chip_stride())

    def chip_distance(self, op: tile.SharedOp) -> int:
        kind = op.result.type
        assert isinstance(kind, MemRefType)
        return self._chip_stride() // _bytes(kind)

    def _chip_stride(self) -> int:
        return self.cores * rank_stride(self.module)

    def weight_at(self, op: tile.WeightOp, layer: int | None) -> At:
        packed = self.declared[op.symbol.string_value()]
        assert isinstance(packed, tile.PackedOp)
        step = (layer or 0) * tile.integer(packed.stride)
        base = self.start + self.regions["weights"]
        return self._at(packed.type, base + tile.integer(packed.offset) + step)

    def cache_at(self, op: tile.CacheSlotOp, layer: int, slot: int) -> At:
        cache = self.declared[op.symbol.string_value()]
        assert isinstance(cache, tile.CacheOp)
        base = self.start + self.regions["cache"] + tile.integer(cache.offset)
        if op.part.data == "value":
            base += tile.integer(cache.value_offset)
        step = layer * tile.integer(cache.layer_stride) + slot * tile.integer(cache.slot_stride)
        return self._at(cache.key_type if op.part.data == "key" else cache.value_type, base + step)

    def content(self, place: At, kind: MemRefType) -> Tensor:
        slices, distance = self.spacing(kind)
        count = slice_elements(kind) if slices > 1 else torch.Size(kind.get_shape()).numel()
        return place.flat.as_strided((slices, count), (distance, 1), place.offset).reshape(-1)

    def _at(self, kind: MemRefType, address: int) -> At:
        """The place of an address, which is the same in every slice."""
        memory = self.memories[tile.memory_of(kind)]
        return At(memory.flat(torch_type(str(kind.element_type))), address // _bytes(kind))


def _bytes(kind: MemRefType) -> int:
    return torch_type(str(kind.element_type)).itemsize
