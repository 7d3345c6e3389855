"""Makes commands wait for what they depend on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from npuc.backends.instruction import Instruction, SemaphoreUse
from npuc.backends.machine import Machine
from npuc.backends.model import MAX_TOKENS
from npuc.ir import tile
from npuc.ir.npu import CONTROL, CommandOp, uses_attr
from npuc.passes.algorithms.hazards import Barrier, Command, Credit, Item, Loop
from npuc.passes.algorithms.synchronize import Limits, synchronize
from npuc.passes.command_fields import nothing
from npuc.passes.programs import callees_first, programs
from npuc.passes.queue_items import QueueItems
from npuc.passes.roots import Aliases
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation
from xdsl.passes import ModulePass


@dataclass(frozen=True)
class InsertSyncPass(ModulePass):
    """Sets `waits` and `signals` of passes and copies; inserts barriers, credits and relays as `npu.command`.

    Calls stand between barriers. Needs the attributes of select-commands and allocate-buffers.
    """

    name = "insert-sync"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        for program in programs(op):
            aliases = Aliases.of(program)
            for function in callees_first(program):
                _Function(machine, aliases).synchronize(function.body.block)


def limits_of(machine: Machine) -> Limits:
    """What all commands of the machine can say about semaphores."""
    formats = [c.format for c in machine.commands.values() if c.kind != "control"]
    waits, signals = min(f.waits for f in formats), min(f.signals for f in formats)
    return Limits(machine.semaphores, MAX_TOKENS, waits, signals)


@dataclass
class _Function:
    machine: Machine
    aliases: Aliases

    def synchronize(self, block: Block) -> None:
        program = list(QueueItems(self.machine, self.aliases).of(block))
        synchronize(program, limits_of(self.machine))
        self._write(program, block)

    def _write(self, items: Sequence[Item], block: Block) -> None:
        """Put what was found into the block; what has no operation yet goes before the next that has."""
        pending: list[Operation] = []
        for item in items:
            op = None if isinstance(item, Credit) else item.key
            if not isinstance(op, Operation):
                pending.append(CommandOp(self._instruction(item)))
                continue
            if isinstance(item, Barrier):
                pending.append(CommandOp(_barrier()))
            block.insert_ops_before(pending, op)
            pending = []
            if isinstance(item, Barrier):
                pending = [CommandOp(_barrier())]
            elif isinstance(item, Loop) and isinstance(op, tile.ForOp):
                self._write(item.body, op.body.block)
            elif isinstance(item, Command):
                _set_uses(op, item)
        last = block.last_op
        if last is not None and last.name == "func.return":
            block.insert_ops_before(pending, last)
        else:
            block.add_ops(pending)

    def _instruction(self, item: Item) -> Instruction:
        """The instruction of an item that stands for no operation."""
        if isinstance(item, Credit):
            return Instruction("signal", CONTROL, {"sem": item.semaphore, "n": item.count})
        if isinstance(item, Barrier):
            return _barrier()
        assert isinstance(item, Command)
        idle = nothing(self.machine, item.queue)
        return Instruction(idle.command, idle.queue, idle.fields, _uses(item.waits), _uses(item.signals))


def _barrier() -> Instruction:
    return Instruction("barrier", CONTROL)


def _uses(pairs: Iterable[tuple[int, int]]) -> tuple[SemaphoreUse, ...]:
    return tuple(SemaphoreUse(*pair) for pair in pairs)


def _set_uses(op: Operation, command: Command) -> None:
    for name, uses in (("waits", command.waits), ("signals", command.signals)):
        if uses:
            op.attributes[name] = uses_attr(uses)
