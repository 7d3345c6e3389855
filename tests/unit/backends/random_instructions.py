"""Random instructions of a machine, every field over its whole range."""

from __future__ import annotations

import math
from pathlib import Path

from hypothesis import strategies as st
from npuc.backends.instruction import Instruction, Reg, SemaphoreUse
from npuc.backends.machine import Machine, load_machine
from npuc.backends.model import Field
from npuc.backends.registry import load_target

MACHINES = {
    "rngd": load_target("rngd").machine,
    "toy": load_machine(Path(__file__).parents[2] / "toy" / "toy.npu"),
}


def _elements(machine: Machine, field: Field) -> st.SearchStrategy[object]:
    if field.kind == "enum":
        return st.sampled_from(field.names)
    if field.kind == "float":
        return st.floats(width=32, allow_nan=False)
    numbers = st.integers(math.ceil(field.low), math.floor(field.high))
    if not field.register:
        return numbers
    return numbers | st.builds(Reg, numbers, st.integers(0, machine.registers - 1))


def _values(machine: Machine, field: Field) -> st.SearchStrategy[object]:
    elements = _elements(machine, field)
    if field.count is None:
        return elements
    return st.lists(elements, max_size=field.count).map(tuple)


@st.composite
def instructions(draw: st.DrawFn, target: str, name: str) -> Instruction:
    """A random instruction of one command; machines go by name, for Hypothesis prints the arguments."""
    machine = MACHINES[target]
    command = machine.commands[name]
    fields = draw(
        st.fixed_dictionaries({}, optional={n: _values(machine, f) for n, f in command.fields.items()})
    )
    use = st.builds(SemaphoreUse, st.integers(0, machine.semaphores - 1), st.integers(1, 255))
    waits = draw(st.lists(use, max_size=command.format.waits).map(tuple))
    signals = draw(st.lists(use, max_size=command.format.signals).map(tuple))
    queue = draw(st.sampled_from(command.queues))
    return Instruction(command.name, queue, fields, waits, signals)


def programs(target: str) -> st.SearchStrategy[list[Instruction]]:
    """Random sequences of up to 8 instructions."""
    commands = st.sampled_from(list(MACHINES[target].commands))
    return st.lists(commands.flatmap(lambda name: instructions(target, name)), max_size=8)
