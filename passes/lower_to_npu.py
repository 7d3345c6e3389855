"""From passes and copies over buffers to the machine's commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from npuc.backends.instruction import Instruction, Reg
from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.ir.npu import CONTROL, CommandOp, LabelOp, ProgramOp, uses
from npuc.passes.addresses import Addresses, Copies, argument_address
from npuc.passes.algorithms.registers import OutOfRegisters, Registers, Sum
from npuc.passes.allocate_buffers import main_memory_bytes
from npuc.passes.command_fields import Address, NoSuchCommand, Operand, operand_of
from npuc.passes.costs import instruction_of
from npuc.passes.multi_buffer import copies_of
from npuc.passes.programs import callees_first, calls_of, entries, programs
from npuc.passes.select_commands import choice_of, module_path
from npuc.passes.target_option import machine_of
from npuc.passes.timing_only import is_timing_only
from xdsl.context import Context
from xdsl.dialects.builtin import LocationAttr, MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException

SHOWN_PROBLEMS = 8
FIRST_REGISTER = 1


@dataclass(frozen=True)
class LowerToNpuPass(ModulePass):
    """Replaces the functions of each program by one `npu.program` with the program's name.

    A function's arguments come in registers; a callee's registers lie below its callers'. Every command is
    checked against the machine; all violations are reported together.
    """

    name = "lower-to-npu"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        if is_timing_only(op):
            machine = machine.with_main_memory(main_memory_bytes(op))
        addresses = Addresses.of(machine, op)
        for program in programs(op):
            _Program(machine, addresses, program).lower()


@dataclass
class _Frame:
    """Registers of a lowered function: those of its arguments, and the first that callers may use."""

    arguments: list[int]
    top: int


@dataclass
class _Program:
    machine: Machine
    addresses: Addresses
    program: ModuleOp
    frames: dict[str, _Frame] = field(default_factory=dict[str, _Frame])
    problems: list[str] = field(default_factory=list[str])

    def lower(self) -> None:
        """Entries first, then the functions they call."""
        functions = callees_first(self.program)
        starts = entries(self.program)
        code = {f: _Function(self, f, f in starts).lower() for f in functions}
        if self.problems:
            shown = "; ".join(self.problems[:SHOWN_PROBLEMS])
            more = len(self.problems) - SHOWN_PROBLEMS
            raise PassFailedException(f"lower-to-npu: {shown}" + (f"; and {more} more" if more > 0 else ""))
        block = Block()
        for function in (*starts, *(f for f in functions if f not in starts)):
            block.add_ops(code[function])
        name = self.program.sym_name.data if self.program.sym_name is not None else "program"
        for function in [op for op in self.program.body.block.ops if isinstance(op, FuncOp)]:
            function.detach()
            function.erase()
        self.program.body.block.add_op(ProgramOp(name, Region(block)))


class _Function:
    """Lowers one function to a label and commands."""

    def __init__(self, program: _Program, function: FuncOp, is_entry: bool) -> None:
        self.program = program
        self.machine = program.machine
        self.addresses = program.addresses
        self.function = function
        self.is_entry = is_entry
        self.origin = ("", "")
        self.location: LocationAttr = function.location
        self.code: list[Operation] = [LabelOp(function.sym_name.data)]
        frames = [program.frames[call.callee.string_value()] for call in calls_of(function)]
        first = max((frame.top for frame in frames), default=FIRST_REGISTER)
        self.registers = Registers(self.control, first, self.machine.registers)

    def lower(self) -> list[Operation]:
        """The function's code; its frame is noted in the program."""
        name = self.function.sym_name.data
        try:
            arguments = [a for a in self.function.body.block.args if argument_address(a) is None]
            if self.is_entry and arguments:
                raise PassFailedException(
                    f"lower-to-npu: argument {arguments[0].index} of entry @{name} is not in main memory"
                )
            held = [self.registers.atom(argument) for argument in arguments]
            self._block(self.function.body.block)
        except OutOfRegisters as error:
            raise PassFailedException(f"lower-to-npu: in @{name} {error}") from None
        self.origin = ("", "")
        if self.is_entry:
            self.control("barrier", {})
        self.control("halt" if self.is_entry else "ret", {})
        self.program.frames[name] = _Frame(held, self.registers.top)
        return self.code

    def control(self, command: str, fields: dict[str, int]) -> None:
        """Append a command of the sequencer."""
        kept = {name: value for name, value in fields.items() if value or name in ("rd", "imm")}
        self._append(Instruction(command, CONTROL, dict(kept)))

    def _append(self, instruction: Instruction) -> None:
        op = CommandOp(instruction, *self.origin)
        op.location = self.location
        self.code.append(op)

    def _block(self, block: Block) -> None:
        for op in block.ops:
            self.origin, self.location = (module_path(op), op.name), op.location
            if isinstance(op, tile.PassOp | tile.CopyOp):
                self._command(op)
            elif isinstance(op, tile.ForOp):
                self._loop(op)
            elif isinstance(op, tile.CallOp):
                self._call(op)
            elif isinstance(op, CommandOp):
                self.code.append(op.clone())

    def _loop(self, op: tile.ForOp) -> None:
        allocs = [a for a in op.body.block.ops if isinstance(a, tile.AllocOp) and copies_of(a) > 1]
        atoms = list(dict.fromkeys(Copies(op, tile.integer(a.attributes["copy_stride"])) for a in allocs))
        self.registers.enter()
        for atom in atoms:
            self.control("set", {"rd": self.registers.atom(atom), "imm": 0})
        self.registers.enter()
        counter = self.registers.atom(op.induction)
        self.control("loop", {"rd": counter, "count": tile.integer(op.count)})
        self._block(op.body.block)
        self.origin, self.location = (module_path(op), op.name), op.location
        for atom in atoms:
            register = self.registers.terms(((atom, 1),))
            self.control("mul", {"rd": register, "rs": register, "imm": -1})
            self.control("add", {"rd": register, "rs": register, "imm": atom.stride})
        self.control("end", {})
        self.registers.leave()
        self.registers.leave()

    def _call(self, op: tile.CallOp) -> None:
        name = op.callee.string_value()
        for target, operand in zip(self.program.frames[name].arguments, op.arguments, strict=True):
            value = self.addresses.buffer(operand) if _is_buffer(operand) else self.addresses.index(operand)
            fields = {"rd": target, "rs": self.registers.terms(value.terms), "imm": value.constant}
            self.control("add", fields)
            self.registers.release()
        self._append(Instruction("call", CONTROL, {"offset": name}))

    def _command(self, op: tile.PassOp | tile.CopyOp) -> None:
        choice = choice_of(op)
        spec = op.spec
        operands: dict[str, Operand] = {}
        for name, port in spec.ports.items():
            value = op.buffers[port.buffer]
            address = self.addresses.port(port, value, list(op.indices))
            operands[name] = operand_of(
                self.machine, value, self._address(choice[0], f"{name}.base", address)
            )
        limits: dict[str, Address] = {}
        if isinstance(spec, tile.PassSpec) and spec.mask is not None:
            limits["mask"] = self._limit(choice[0], "mask.limit", spec.mask, op.indices)
        if spec.limit is not None:
            field_name = "limit" if isinstance(spec, tile.CopySpec) else "limit.limit"
            limits["limit"] = self._limit(choice[0], field_name, spec.limit, op.indices)
        try:
            plain = instruction_of(self.machine, spec, choice, operands, limits)
        except NoSuchCommand as error:
            self._report(op, [f"{choice[0]}: {error}"])
            return
        waits, signals = (uses(op.attributes.get(name)) for name in ("waits", "signals"))
        instruction = Instruction(plain.command, plain.queue, plain.fields, waits, signals)
        self._report(op, self.machine.check(instruction))
        self._append(instruction)
        self.registers.release()

    def _limit(self, command: str, name: str, limit: tile.Limit, indices: Sequence[SSAValue]) -> Address:
        value = Sum(limit.limit) if limit.index < 0 else self.addresses.index(indices[limit.index])
        return self._address(command, name, value)

    def _address(self, command: str, name: str, value: Sum) -> Address:
        """A field's value: a constant where it can be, its constant part in the field if that fits."""
        declared = self.machine.commands[command].fields.get(name)
        fits = declared is None or declared.low <= value.constant <= declared.high
        if fits and not value.terms:
            return value.constant
        if fits:
            return Reg(value.constant, self.registers.terms(value.terms))
        return Reg(0, self.registers.value(value))

    def _report(self, op: tile.PassOp | tile.CopyOp, problems: Sequence[str]) -> None:
        where = f"{op.name} in @{self.function.sym_name.data}"
        path = f" ({module_path(op)})" if module_path(op) else ""
        self.program.problems += [f"{where}: {problem}{path}" for problem in problems]


def _is_buffer(value: SSAValue) -> bool:
    return isinstance(value.type, MemRefType)
