"""What an artifact holds, its programs and its weights, as the last state of its compile.

The programs are those of its files, changed after they were written or not; what is wrong with a file is told
beside them. The weights are the artifact's own, or, where its checkpoint is not at hand, those that all
states are given.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from pathlib import Path

import torch
from npuc.backends.elf import Program, parse_program
from npuc.ir import tile
from npuc.ir.errors import UserError
from npuc.passes.allocate_buffers import memory_map
from npuc.passes.checking import place_values
from npuc.passes.emit import IoTensor
from npuc.passes.evaluation import Evaluator, cached_heads, token_major
from npuc.passes.simulation import Chip
from npuc.runtime.artifact import Artifact
from npuc.runtime.device import SimulatorDevice
from npuc.runtime.element_types import element_type
from npuc.runtime.manifest import Cache
from npuc.runtime.simulator.program import LoadedProgram
from npuc.runtime.weight_packing import ModuleWeights
from xdsl.dialects.builtin import ModuleOp


@dataclass(frozen=True)
class Stored:
    """The programs of an artifact.

    Attributes:
        artifact: opened.
        weights: whether they run with the artifact's own weights; else with those of the states.
    """

    artifact: Artifact
    weights: bool
    programs: dict[str, tuple[Program, str]] = field(default_factory=dict[str, tuple[Program, str]])

    def program(self, name: str) -> Program:
        """A program, as it is in its file, whether or not that is the file that was written.

        Raises:
            UserError: when it is no program at all.
        """
        return self._read(name)[0]

    def problem(self, name: str) -> str:
        """What is wrong with a program's file; "" if nothing is."""
        return self._read(name)[1]

    def _read(self, name: str) -> tuple[Program, str]:
        if name not in self.programs:
            file = self.artifact.manifest.program(name).file
            path = self.artifact.file_path(file)
            program = parse_program(path.read_bytes(), str(path), checked=False)
            self.programs[name] = program, self._hash_problem(file)
        return self.programs[name]

    def _hash_problem(self, file: str) -> str:
        try:
            parse_program(self.artifact.read_file(file), file)
        except UserError:
            return f"{file} is not the file that the compile wrote"
        return ""

    def has_layout_of(self, module: ModuleOp) -> bool:
        """Whether main memory is divided as this module, after allocation, has it."""
        manifest = self.artifact.manifest
        regions = {name: (region.base, region.bytes) for name, region in manifest.memory.items()}
        if regions != memory_map(module):
            return False
        base = manifest.memory["weights"].base
        placed = ModuleWeights(module, Path()).placements(base)
        if not manifest.weights:
            return True
        return tuple(replace(tensor, crc32=0) for tensor in manifest.weights[0].tensors) == placed


class StoredChip(Chip):
    """A simulated chip that holds what an artifact has, and runs its programs.

    Raises:
        UserError: for damaged weights; where weights would be those of the states, but do not fit.
    """

    def __init__(self, evaluator: Evaluator, module: ModuleOp, stored: Stored) -> None:
        self.stored = stored
        if not stored.weights:
            if not stored.has_layout_of(module):
                raise other_layout(stored)
            super().__init__(evaluator, module)
            return
        manifest = stored.artifact.manifest
        self.module, self.target = module, evaluator.target
        self.machine = stored.artifact.machine
        self.regions = {name: (region.base, region.bytes) for name, region in manifest.memory.items()}
        self.ranks, self.stride = manifest.parallel.tensor_parallel, manifest.rank_stride
        self.simulator = SimulatorDevice(stored.artifact).simulator

    @cached_property
    def _placed(self) -> dict[str, tile.CacheOp]:
        return {op.sym_name.data: op for op in self.module.ops if isinstance(op, tile.CacheOp)}

    def write_caches(self, rank: int) -> None:
        if not self.stored.weights:
            super().write_caches(rank)
            return
        for cache in self.stored.artifact.manifest.caches:
            self._fill(cache, rank)

    def _fill(self, cache: Cache, rank: int) -> None:
        """Contents that depend on their places, where the manifest says that they are."""
        manifest = self.stored.artifact.manifest
        item, sizes = element_type(cache.type), (cache.key_size, cache.value_size)
        per_slot = cache.bytes // (len(cache.layers) * manifest.slots)
        length, rest = divmod(per_slot, cache.heads * sum(sizes) * item.bytes)
        if rest or cache.name not in self._placed:
            message = f"the cache {cache.name} is laid out in a way that this compiler does not know"
            raise UserError("other-layout", message, where=str(self.stored.artifact.path))
        heads = cached_heads(self._placed[cache.name], cache.heads, rank)
        address = cache.address + rank * self.stride
        for layer in cache.layers:
            for slot in range(manifest.slots):
                for part, size in enumerate(sizes):
                    values = place_values(heads, (length, size), layer, slot, part).to(item.torch_type)
                    self.simulator.write(address, token_major(values))
                    address += prod(values.shape) * item.bytes

    def load(self, encoded: bool = True) -> dict[str, tuple[LoadedProgram, dict[str, IoTensor]]]:
        """The artifact's programs of the calls, with their inputs and outputs."""
        found: dict[str, tuple[LoadedProgram, dict[str, IoTensor]]] = {}
        for program in self.stored.artifact.manifest.programs:
            io = {name: (io.address, io.shape, io.type) for name, io in program.io.items()}
            found[program.name] = self.simulator.load(self.stored.program(program.name)), io
        return found


def other_layout(stored: Stored) -> UserError:
    """The error for an artifact into whose memory other weights cannot be put."""
    return UserError(
        "other-layout",
        f"npuc {stored.artifact.manifest.npuc} laid out its memory otherwise than this compiler",
        where=str(stored.artifact.path),
        remedy="give the checkpoint, so that the artifact can run with its own weights",
    )


def wrong_weight(evaluator: Evaluator, module: ModuleOp, stored: Stored) -> str:
    """The first weight that an artifact holds with other values than its checkpoint has; "" if none does."""
    if not (stored.weights and stored.has_layout_of(module)):
        return ""
    manifest = stored.artifact.manifest
    packed = {op.sym_name.data: op for op in module.ops if isinstance(op, tile.PackedOp)}
    for rank, placed in enumerate(manifest.weights):
        file = stored.artifact.weights(rank)
        for name in (placement.name for placement in placed.tensors):
            held = torch.cat([piece.flatten().view(torch.uint8) for piece in file.pieces(name)])
            read = [t.flatten().view(torch.uint8) for t in evaluator.layers(module, packed[name], rank)]
            if not torch.equal(held, torch.cat(read)):
                return packed[name].weight.string_value()
    return ""
