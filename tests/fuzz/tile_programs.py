"""Random `tile` modules of one program, and what they compute on every level down to encoded commands."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from hypothesis import strategies as st
from npuc.ir import tile
from npuc.ir.interpret import Runtime
from npuc.ir.interpret_tile import TileMemory, interpret_tile
from npuc.ir.lockstep import Lockstep
from npuc.ir.npu import ProgramOp
from npuc.ir.tile import PassSpec, Port, Step
from npuc.passes.addressed_memory import AddressedMemory
from npuc.passes.addresses import argument_address
from npuc.passes.allocate_buffers import MEMORY_ATTRIBUTE
from npuc.passes.emit import emit_programs
from npuc.passes.target_option import machine_of
from npuc.runtime.simulator.simulator import Simulator
from tile_modules import Function, main_buffer
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp, bf16, f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

N, TILES, MAIN_BYTES = 8, 6, 1 << 18
MAPS = (
    Step("mul", "imm", 0.5),
    Step("add", "imm", 1.0),
    Step("abs"),
    Step("max", "imm", -0.25),
    Step("tanh"),
)
PAIRS = (Step("max", "operand"), Step("add", "operand"), Step("mul", "operand"))
PLACES = {"rngd": ("hbm", "dm", "trf", 64), "toy": ("dram", "spm", "spm", 1)}


class Writer:
    """Writes a random function over x and y [TILES, slices · N] that reads nothing it has not written."""

    def __init__(self, draw: st.DrawFn, function: Function, stationary: str) -> None:
        self.draw, self.f, self.stationary = draw, function, stationary
        self.tile = function.slices * N
        self.names = 0

    def alloc(self, memory: str = "") -> SSAValue:
        self.names += 1
        return self.f.alloc(f"b{self.names}", N, memory=memory)

    def some(self, buffers: list[SSAValue]) -> SSAValue:
        return self.draw(st.sampled_from(buffers))

    def target(self, buffers: list[SSAValue]) -> SSAValue:
        """A new buffer, or one that is written again."""
        return self.alloc() if not buffers or self.draw(st.booleans()) else self.some(buffers)

    def block(self, buffers: list[SSAValue], index: SSAValue | None, depth: int) -> None:
        """A few commands; ``buffers`` are initialised, ``index`` counts at most TILES."""
        buffers = list(buffers)
        kinds = ("load", "map", "store", "pair", "turn", "product", "narrow", "loop", "call")
        for kind in self.draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6)):
            at = (index, self.tile) if index is not None and self.draw(st.integers(0, 4)) else None
            if kind == "load" or not buffers:
                target = self.target(buffers)
                self.f.load(self.f.argument(0), target, at)
                buffers.append(target)
            elif kind == "store":
                self.f.store(self.some(buffers), self.f.argument(1), at)
            elif kind == "loop" and depth < 2:
                inner = self.f.loop(self.draw(st.integers(1, TILES)))
                self.block(buffers, inner, depth + 1)
                self.f.end()
            elif kind == "call":
                self.f.call("helper", self.some(buffers))
            elif kind in ("map", "pair", "turn", "product", "narrow"):
                source, target = self.some(buffers), self.target(buffers)
                getattr(self, kind)(source, target, buffers)
                buffers.append(target)

    def map(self, source: SSAValue, target: SSAValue, buffers: list[SSAValue]) -> None:
        steps = self.draw(st.lists(st.sampled_from(MAPS), min_size=1, max_size=2, unique=True))
        if self.f.slices > 1 and self.draw(st.booleans()):
            steps.append(Step(self.draw(st.sampled_from(["ring_max", "ring_add"]))))
        self.f.compute(source, target, *steps)

    def pair(self, source: SSAValue, target: SSAValue, buffers: list[SSAValue]) -> None:
        self.f.compute(source, target, self.draw(st.sampled_from(PAIRS)), operand=self.some(buffers))

    def turn(self, source: SSAValue, target: SSAValue, buffers: list[SSAValue]) -> None:
        """A transposition of [2, 4], into a buffer of its own: a pass may not read what it writes."""
        held = self.alloc()
        ports = {"stream": Port(0, 0, (1, 4)), "out": Port(1, 0, (2, 1))}
        self.f.block.add_op(tile.PassOp(PassSpec((4, 2), ports), [source, held], [], "m.turn"))
        self.f.compute(held, target)

    def product(self, source: SSAValue, target: SSAValue, buffers: list[SSAValue]) -> None:
        """[2, 4] · [4, 4]ᵀ of two neighbours in memory order: rows of one, columns of the other twice."""
        held = self.alloc(self.stationary if self.stationary != self.f.local else "")
        self.f.compute(self.some(buffers), held)
        made = self.alloc()
        ports = {
            "stream": Port(0, 0, (4, 0, 0, 1)),
            "stationary": Port(1, 0, (0, 0, 4, 1)),
            "out": Port(2, 0, (4, 2, 1, 0)),
        }
        spec = PassSpec((2, 2, 2, 4), ports, reduce=(3,))
        self.f.block.add_op(tile.PassOp(spec, [source, held, made], [], "m.product"))
        self.f.compute(made, target, Step("tanh"))

    def narrow(self, source: SSAValue, target: SSAValue, buffers: list[SSAValue]) -> None:
        """Rounded to bf16 and back."""
        op = tile.AllocOp((self.f.slices, N), bf16, self.f.local)
        self.f.block.add_op(op)
        self.f.compute(source, op.result)
        self.f.compute(op.result, target)


@st.composite
def tile_modules(draw: st.DrawFn, target: str) -> ModuleOp:
    """A module with an entry, `main`, that may call a helper."""
    main, local, stationary, slices = PLACES[target]
    helper = Function("helper", [("h", tile.buffer_type((slices, N), f32, local))], main, local, slices)
    own = helper.alloc("own", N)
    helper.compute(helper.argument(0), own, Step("mul", "imm", 0.5))
    helper.compute(own, helper.argument(0), Step("add", "imm", 0.125))
    total = main_buffer(main, TILES, slices * N)
    function = Function("main", [("x", total), ("y", total)], main, local, slices)
    Writer(draw, function, stationary).block([], None, 0)
    module = ModuleOp([helper.build("private"), function.build()])
    module.verify()
    return module


def no_weights(symbol: str, layer: int | None) -> Tensor:
    raise AssertionError(f"@{symbol} is no weight of these modules")


def tile_outputs(module: ModuleOp, target: str) -> Mapping[str, Tensor]:
    """What the program leaves in y, of random x: buffers interpreted, at addresses if they have any, or run.

    Raises:
        AssertionError: the sanitizer finds a hazard.
    """
    machine = machine_of(target)
    slices = machine.slices
    x = torch.randn(TILES, slices * N, generator=torch.Generator().manual_seed(0))
    y = torch.full_like(x, 7.0)
    simulator = Simulator(machine, MAIN_BYTES)
    if any(isinstance(op, ProgramOp) for op in module.walk()):
        (emitted,) = emit_programs(module, target)
        for name, tensor in (("x", x), ("y", y)):
            simulator.write(emitted.io[name][0], tensor)
        hazards = simulator.run(simulator.load(emitted.program), "main", hazards=True).hazards
        assert not hazards, str(hazards[0])
        return {"y": simulator.read(emitted.io["y"][0], x.shape, x.dtype)}
    if MEMORY_ATTRIBUTE not in module.attributes:
        local = {name: memory.slices for name, memory in machine.memories.items()}
        interpret_tile(module, "main", [x, y], TileMemory(local, no_weights))
        return {"y": y}
    (entry,) = [op for op in module.ops if isinstance(op, FuncOp) and op.sym_name.data == "main"]
    addresses = [argument_address(argument) or 0 for argument in entry.body.block.args]
    for address, tensor in zip(addresses, (x, y), strict=True):
        simulator.write(address, tensor)
    runtime = Runtime([0], [0], [1], 1)
    memory = AddressedMemory.of(simulator.cores[0].memories, module, runtime, (Lockstep(1), 0), 1)
    interpret_tile(module, "main", memory.arguments(entry), memory)
    return {"y": simulator.read(addresses[1], x.shape, x.dtype)}
