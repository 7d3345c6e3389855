"""What the simulator costs per command, beyond the arithmetic: run with --benchmark-enable.

Every program is a loop of one command on 64 slices; the figure to look at is seconds per run ÷ COMMANDS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from npuc.backends.instruction import Instruction, Reg
from npuc.backends.machine import load_machine
from npuc.runtime.simulator import Simulator

pytestmark = pytest.mark.usefixtures("one_thread")

RNGD = load_machine(Path(__file__).parents[2] / "backends" / "rngd" / "rngd.npu")
S, WINDOW = RNGD.slices, RNGD.memories["dm"].window
COMMANDS = 500


def port(name: str, base: int | Reg, *strides: int, type: str = "f32") -> dict[str, Any]:
    return {f"{name}.base": base, f"{name}.strides": strides, f"{name}.type": type}


def control(command: str, **fields: int) -> Instruction:
    return Instruction(command, "control", dict(fields))


STREAM, OUT = port("stream", 0, 4), port("out", 4096, 4)
MOVE = {"size": (8,), **STREAM, **OUT}
CHAIN = {
    "chain.op": ("mul", "add", "max"),
    "chain.source": ("imm", "stash", "imm"),
    "chain.value": (2.0, 0, 1.0),
}
TOTAL = {
    **MOVE, "reduce": 1, "out.strides": (0,), "limit.dim": 1, "limit.slice": 8, "limit.limit": 500,
    "chain.op": ("mul", "reduce_add", "ring_add"), "chain.source": ("stash", "none", "none"),
}  # fmt: skip
PRODUCT = {
    "size": (1, 8, S, 8), "reduce": 0b1100, "ring_dim": 3,
    **port("stream", 0, 0, 0, 0, 4), **port("stationary", 0, 0, S * 32, 32, 4), **port("out", 4096, 0, 4),
}  # fmt: skip
COPY = {
    "size": (S, 8), "type": "f32", "src.memory": "hbm", "src.base": 0, "src.strides": (32, 4),
    "dst.memory": "dm", "dst.base": 0, "dst.strides": (WINDOW, 4),
}  # fmt: skip
BODIES = {
    "move": Instruction("tu", "main", MOVE),
    "chain": Instruction("tu", "main", {**MOVE, **CHAIN}),
    "reduce over slices": Instruction("tu", "main", TOTAL),
    "product over slices": Instruction("tu", "main", PRODUCT),
    "bf16 chain": Instruction("tu", "main", {**MOVE, **CHAIN, "stream.type": "bf16", "out.type": "bf16"}),
    "copy": Instruction("dma", "dma", COPY),
    "copy, address from a register": Instruction("dma", "dma", {**COPY, "src.base": Reg(0, 2)}),
}


@pytest.mark.parametrize("body", BODIES, ids=str)
def test_values(benchmark: Any, body: str) -> None:
    sim = Simulator(RNGD, 1 << 20)
    sim.write(0, torch.randn(S, 8))
    loop = [control("loop", rd=1, count=COMMANDS), control("mul", rd=2, rs=1, imm=64), BODIES[body]]
    program = sim.load([*loop, control("end"), control("halt")])
    sim.run(program)
    result = benchmark(sim.run, program)
    assert result.commands == COMMANDS


def test_time(benchmark: Any) -> None:
    sim = Simulator(RNGD, 0)
    loop = [control("loop", rd=1, count=COMMANDS), BODIES["copy"], BODIES["chain"], control("end")]
    program = sim.load([*loop, control("halt")])
    timeline = benchmark(sim.time, program)
    assert len(timeline.queues["main"]) == COMMANDS
