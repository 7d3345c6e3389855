"""The sequencer: 64-bit registers, loops, calls (docs/design.md, section 7).

It is the same for values and for time: what a program dispatches depends on its parameters only. A loop's
count is kept beside its register: the register holds 0 … count − 1, count − 1 behind the loop, and writing it
inside the loop does not change how often the loop runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from npuc.backends.instruction import Instruction
from npuc.ir.errors import UserError
from npuc.runtime.simulator.program import Item, LoadedProgram

HALTED = -1
MAX_CALLS = 256
Control = Callable[[], int]
"""Executes a control command; returns the position of the next command."""


class Sequencer:
    """Registers and control flow of one core, for one program.

    Attributes:
        registers: their values; changed in place, so that others may keep the list.
        parameters: the program's runtime parameters.
        controls: per command of the program its control function; None for passes and copies.
    """

    def __init__(self, program: LoadedProgram) -> None:
        self.program = program
        self.registers = [0] * program.machine.registers
        self.parameters: Sequence[int] = ()
        self._loops: list[list[int]] = []  # register, count, iteration, position of the body
        self._calls: list[int] = []
        self.controls: list[Control | None] = [
            None if item.plan is not None else self._control(item, position)
            for position, item in enumerate(program.items)
        ]
        self.controls.append(self._end_of_text)

    def start(self, entry: str, parameters: Sequence[int]) -> int:
        """Clear the state and return the position of the entry's first command."""
        self.registers[:] = [0] * len(self.registers)
        self.parameters = tuple(parameters)
        self._loops.clear()
        self._calls.clear()
        return self.program.entry(entry)

    def trace(self, entry: str, parameters: Sequence[int]) -> Iterator[int]:
        """Positions of the commands in the order of their dispatch, registers as they are at that time."""
        position = self.start(entry, parameters)
        while position != HALTED:
            control = self.controls[position]
            if control is None:
                yield position
                position += 1
            else:
                if position < len(self.program.items):
                    yield position
                position = control()

    def _control(self, item: Item, position: int) -> Control:
        build = _CONTROLS.get(item.instruction.command)
        if build is None:
            raise UserError(
                "bad-command",
                f"the sequencer knows no command '{item.instruction.command}'",
                where=item.where,
            )
        return build(self, item, position + 1)

    def _end_of_text(self) -> int:
        raise UserError(
            "malformed-program", "the program runs past the end of its text", remedy="end it with a halt"
        )

    # The commands

    def _write(self, number: int, value: int) -> None:
        if number:
            self.registers[number] = value if -(1 << 63) <= value < 1 << 63 else _wrap(value)

    def _set(self, item: Item, following: int) -> Control:
        rd, imm = _numbers(item.instruction, "rd", "imm")

        def run() -> int:
            self._write(rd, imm)
            return following

        return run

    def _add(self, item: Item, following: int) -> Control:
        rd, rs, rt, imm = _numbers(item.instruction, "rd", "rs", "rt", "imm")
        r = self.registers

        def run() -> int:
            self._write(rd, r[rs] + r[rt] + imm)
            return following

        return run

    def _mul(self, item: Item, following: int) -> Control:
        rd, rs, imm = _numbers(item.instruction, "rd", "rs", "imm")
        r = self.registers

        def run() -> int:
            self._write(rd, r[rs] * imm)
            return following

        return run

    def _param(self, item: Item, following: int) -> Control:
        rd, rs, index = _numbers(item.instruction, "rd", "rs", "index")

        def run() -> int:
            at = index + self.registers[rs]
            if not 0 <= at < len(self.parameters):
                raise UserError(
                    "bad-parameter",
                    f"the program reads runtime parameter {at}, {len(self.parameters)} were given",
                    where=item.where,
                )
            self._write(rd, self.parameters[at])
            return following

        return run

    def _loop(self, item: Item, following: int) -> Control:
        (rd,) = _numbers(item.instruction, "rd")
        count = _numbers(item.instruction, "count")[0] if "count" in item.instruction.fields else 1

        def run() -> int:
            self._write(rd, 0)
            self._loops.append([rd, count, 0, following])
            return following

        return run

    def _end(self, item: Item, following: int) -> Control:
        def run() -> int:
            if not self._loops:
                raise UserError("malformed-program", "an end without a loop", where=item.where)
            top = self._loops[-1]
            top[2] += 1
            if top[2] < top[1]:
                self._write(top[0], top[2])
                return top[3]
            self._loops.pop()
            return following

        return run

    def _call(self, item: Item, following: int) -> Control:
        (offset,) = _numbers(item.instruction, "offset")

        def run() -> int:
            target = self.program.index.get(offset)
            if target is None or len(self._calls) >= MAX_CALLS:
                reason = (
                    f"no command starts at {offset:#x}" if target is None else "calls are nested too deep"
                )
                raise UserError("malformed-program", reason, where=item.where)
            self._calls.append(following)
            return target

        return run

    def _ret(self, item: Item, following: int) -> Control:
        def run() -> int:
            if not self._calls:
                raise UserError("malformed-program", "a ret without a call", where=item.where)
            return self._calls.pop()

        return run

    def _pass_by(self, item: Item, following: int) -> Control:
        return lambda: following

    def _halt(self, item: Item, following: int) -> Control:
        return lambda: HALTED


_CONTROLS: dict[str, Callable[[Sequencer, Item, int], Control]] = {
    "set": Sequencer._set,  # pyright: ignore[reportPrivateUsage]
    "add": Sequencer._add,  # pyright: ignore[reportPrivateUsage]
    "mul": Sequencer._mul,  # pyright: ignore[reportPrivateUsage]
    "param": Sequencer._param,  # pyright: ignore[reportPrivateUsage]
    "loop": Sequencer._loop,  # pyright: ignore[reportPrivateUsage]
    "end": Sequencer._end,  # pyright: ignore[reportPrivateUsage]
    "call": Sequencer._call,  # pyright: ignore[reportPrivateUsage]
    "ret": Sequencer._ret,  # pyright: ignore[reportPrivateUsage]
    "barrier": Sequencer._pass_by,  # pyright: ignore[reportPrivateUsage]
    "signal": Sequencer._pass_by,  # pyright: ignore[reportPrivateUsage]
    "halt": Sequencer._halt,  # pyright: ignore[reportPrivateUsage]
}


def _numbers(instruction: Instruction, *names: str) -> tuple[int, ...]:
    """Integer fields by name; 0 where left out."""
    return tuple(int(instruction.fields.get(name, 0)) for name in names)  # type: ignore[arg-type]


def _wrap(value: int) -> int:
    """The value of the low 64 bits, signed."""
    return (value + (1 << 63)) % (1 << 64) - (1 << 63)
