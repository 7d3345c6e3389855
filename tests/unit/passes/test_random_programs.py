"""Random tile modules: the scheduled program computes on the simulator what the interpreter computes."""

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from npuc.ir.interpret_tile import TileMemory, interpret_tile
from npuc.ir.tile import buffer_type
from npuc.ir.tile_spec import Step
from npuc.passes.target_option import machine_of
from npuc.runtime.simulator import Simulator
from schedule_helpers import TOY, schedule
from tile_modules import Function, main_buffer
from xdsl.dialects.builtin import ModuleOp, f32
from xdsl.ir import SSAValue

N, TILES = 8, 6
STEPS = (Step("mul", "imm", 0.5), Step("add", "imm", 1.0), Step("abs"), Step("max", "imm", -0.25))
PLACES = {"rngd": ("hbm", "dm", 64), TOY: ("dram", "spm", 1)}


class Writer:
    """Writes a random function over x and y [TILES, slices · N] that reads nothing it has not written."""

    def __init__(self, choose: random.Random, function: Function) -> None:
        self.choose = choose
        self.f = function
        self.tile = function.slices * N
        self.names = 0

    def alloc(self) -> SSAValue:
        self.names += 1
        return self.f.alloc(f"b{self.names}", N)

    def block(self, buffers: list[SSAValue], index: SSAValue | None, depth: int) -> None:
        """A few commands; ``buffers`` are initialised, ``index`` counts at most TILES."""
        buffers = list(buffers)
        for _ in range(self.choose.randint(1, 6)):
            kind = self.choose.choice(["load", "compute", "combine", "store", "loop", "call"])
            at = (index, self.tile) if index is not None and self.choose.random() < 0.8 else None
            if kind == "load" or not buffers:
                target = self.alloc() if self.choose.random() < 0.7 or not buffers else self.some(buffers)
                self.f.load(self.f.argument(0), target, at)
                buffers.append(target)
            elif kind == "compute":
                target = self.alloc() if self.choose.random() < 0.5 else self.some(buffers)
                self.f.compute(self.some(buffers), target, self.choose.choice(STEPS))
                buffers.append(target)
            elif kind == "combine":
                self.f.compute(
                    self.some(buffers), self.some(buffers), Step("max", "operand"), operand=self.some(buffers)
                )
            elif kind == "store":
                self.f.store(self.some(buffers), self.f.argument(1), at)
            elif kind == "loop" and depth < 2:
                inner = self.f.loop(self.choose.randint(1, TILES))
                self.block(buffers, inner, depth + 1)
                self.f.end()
            elif kind == "call" and self.choose.random() < 0.5:
                self.f.call("helper", self.some(buffers))

    def some(self, buffers: list[SSAValue]) -> SSAValue:
        return self.choose.choice(buffers)


def random_module(choose: random.Random, main: str, local: str, slices: int) -> ModuleOp:
    helper = Function("helper", [("h", buffer_type((slices, N), f32, local))], main, local, slices)
    own = helper.alloc("own", N)
    helper.compute(helper.argument(0), own, Step("mul", "imm", 0.5))
    helper.compute(own, helper.argument(0), Step("add", "imm", 0.125))
    total = main_buffer(main, TILES, slices * N)
    function = Function("main", [("x", total), ("y", total)], main, local, slices)
    Writer(choose, function).block([], None, 0)
    return ModuleOp([helper.build("private"), function.build()])


@pytest.mark.parametrize("target", list(PLACES), ids=["rngd", "toy"])
@settings(deadline=None, max_examples=40)
@given(st.randoms(use_true_random=False))
def test_random_programs(target: str, choose: random.Random) -> None:
    main, local, slices = PLACES[target]
    module = random_module(choose, main, local, slices)
    x = torch.randn(TILES, slices * N, generator=torch.Generator().manual_seed(0))
    expected = torch.full_like(x, 7.0)
    interpret_tile(module, "main", [x, expected], TileMemory({local: slices}, _no_weights))
    emitted = schedule(module, target)
    for straight in (False, True):
        simulator = Simulator(machine_of(target), 1 << 18)
        for name, tensor in (("x", x), ("y", torch.full_like(x, 7.0))):
            simulator.write(emitted.io[name][0], tensor)
        loaded = simulator.load(emitted.program)
        result = simulator.run(loaded, "main", straight=straight, hazards=not straight)
        assert not result.hazards, result.hazards[0]
        found = simulator.read(emitted.io["y"][0], x.shape, x.dtype)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def _no_weights(symbol: str, layer: int | None) -> torch.Tensor:
    raise AssertionError(symbol)
