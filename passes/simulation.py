"""What the programs of a module with addresses compute, on the memories of the simulator.

Buffers are interpreted at their addresses; commands are executed, encoded or as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.ir.interpret_tile import Observer, interpret_tile
from npuc.ir.lockstep import Lockstep
from npuc.ir.npu import ProgramOp
from npuc.passes.addressed_memory import AddressedMemory
from npuc.passes.allocate_buffers import memory_map, rank_stride
from npuc.passes.checking import place_values
from npuc.passes.emit import IoTensor, emit_programs, instructions_of, io_of
from npuc.passes.evaluation import ENTRIES, Call, Evaluator, logits_of, placed_caches, token_major, vocabulary
from npuc.passes.partition import ranks_of
from npuc.passes.target_option import machine_of
from npuc.runtime.device import parameters
from npuc.runtime.element_types import element_type
from npuc.runtime.simulator.program import LoadedProgram
from npuc.runtime.simulator.simulator import Simulator
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp


class Chip:
    """A simulated chip, or several, that holds the weights of a module with addresses."""

    def __init__(self, evaluator: Evaluator, module: ModuleOp) -> None:
        self.module = module
        self.target = evaluator.target
        self.machine: Machine = machine_of(evaluator.target)
        self.regions = memory_map(module)
        self.ranks, self.stride = ranks_of(module), rank_stride(module)
        self.simulator = Simulator(self.machine, self.ranks * self.stride, cores=self.ranks)
        for rank in range(self.ranks):
            base = rank * self.stride + self.regions["weights"][0]
            _write_weights(evaluator, module, self.simulator, base, rank)

    @property
    def cores(self) -> int:
        """Ranks of one chip."""
        return self.simulator.cores_per_chip

    def prepare(self, call: Call, io: dict[str, IoTensor]) -> list[int]:
        """Writes caches and inputs for a call; returns its runtime parameters."""
        base, size = self.regions["cache"]
        for rank in range(self.ranks):
            self.simulator.zero(rank * self.stride + base, size)
            self.write_caches(rank)
        for name, tensor in (("tokens", call.tokens), ("positions", call.positions)):
            if name in io:
                self.simulator.write(io[name][0], tensor)
        rows = [(slot, p, v) for slot, (p, v) in enumerate(zip(call.position, call.valid, strict=True))]
        return parameters(rows)

    def write_caches(self, rank: int) -> None:
        """Writes a rank's caches."""
        _write_caches(self.module, self.simulator, rank * self.stride + self.regions["cache"][0], rank)

    def interpret(
        self,
        program: ModuleOp,
        call: Call,
        entry: str,
        observer: Callable[[AddressedMemory], Observer | None] = lambda memory: None,
    ) -> dict[str, Tensor]:
        """Logits of an entry of a program whose buffers have addresses.

        Args:
            observer: given the memory, makes what is told of each pass and copy.
        """
        io = io_of(self.machine, program)
        self.prepare(call, io)
        functions = {op.sym_name.data: op for op in program.ops if isinstance(op, FuncOp)}
        together = Lockstep(self.ranks)

        def run(rank: int) -> None:
            memories = self.simulator.cores[rank].memories
            memory = AddressedMemory.of(memories, self.module, call.runtime, (together, rank), self.cores)
            arguments = memory.arguments(functions[entry])
            observe = observer(memory) if rank == 0 else None
            interpret_tile(program, entry, arguments, memory, observe=observe)

        together.run([partial(run, rank) for rank in range(self.ranks)])
        return self.logits(call, entry, io)

    def execute(
        self, program: LoadedProgram, io: dict[str, IoTensor], call: Call, entry: str
    ) -> dict[str, Tensor]:
        """Logits of an entry of a program of commands."""
        self.simulator.run_ranks(program, entry, self.prepare(call, io))
        return self.logits(call, entry, io)

    def logits(self, call: Call, entry: str, io: dict[str, IoTensor]) -> dict[str, Tensor]:
        """What the entry has left in main memory."""
        address, shape, kind = io[f"logits_{entry}"]
        found = self.simulator.read(address, shape, element_type(kind).torch_type)
        return logits_of(call, entry, found[:, : vocabulary(self.module)])

    def load(self, encoded: bool = True) -> dict[str, tuple[LoadedProgram, dict[str, IoTensor]]]:
        """The module's programs with their inputs and outputs, encoded and decoded, or as they are."""
        if encoded:
            emitted = emit_programs(self.module, self.target)
            return {p.name: (self.simulator.load(p.program), p.io) for p in emitted}
        found: dict[str, tuple[LoadedProgram, dict[str, IoTensor]]] = {}
        for op in self.module.walk():
            if isinstance(op, ProgramOp):
                holder = op.parent_op()
                assert isinstance(holder, ModuleOp)
                instructions, symbols = instructions_of(self.machine, op)
                io = io_of(self.machine, holder)
                found[op.sym_name.data] = self.simulator.load(instructions, symbols), io
        return found


def simulated(evaluator: Evaluator, module: ModuleOp, *, encoded: bool = True) -> dict[str, Tensor]:
    """Logits of each call, as `Evaluator.outputs` gives them, of a module of commands."""
    return executed(Chip(evaluator, module), evaluator.calls, encoded=encoded)


def executed(chip: Chip, calls: Sequence[Call], *, encoded: bool = True) -> dict[str, Tensor]:
    """Logits of each call of a chip's programs: ``NAME.all`` and ``NAME.last``."""
    programs = chip.load(encoded)
    found: dict[str, Tensor] = {}
    for call in calls:
        for entry in ENTRIES:
            found |= chip.execute(*programs[call.bucket.name], call, entry)
    return found


def _write_weights(
    evaluator: Evaluator, module: ModuleOp, simulator: Simulator, base: int, rank: int
) -> None:
    for op in module.ops:
        if isinstance(op, tile.PackedOp):
            stride = 0 if op.layers is None else tile.integer(op.stride)
            for ordinal, tensor in enumerate(evaluator.layers(module, op, rank)):
                simulator.write(base + tile.integer(op.offset) + ordinal * stride, tensor)


def _write_caches(module: ModuleOp, simulator: Simulator, base: int, rank: int) -> None:
    ops = {op.sym_name.data: op for op in module.ops if isinstance(op, tile.CacheOp)}
    for name, layers, slots, heads, shapes, dtype in placed_caches(module, rank):
        op = ops[name]
        steps = tile.integer(op.layer_stride), tile.integer(op.slot_stride), tile.integer(op.value_offset)
        first = base + tile.integer(op.offset)
        for ordinal, layer in enumerate(layers):
            for slot in range(slots):
                for part, shape in enumerate(shapes):
                    values = place_values(heads, shape, layer, slot, part).to(dtype)
                    at = sum(n * step for n, step in zip((ordinal, slot, part), steps, strict=True))
                    simulator.write(first + at, token_major(values))
