"""Decides which machine command and queue runs each pass and copy."""

from __future__ import annotations

from dataclasses import dataclass

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.passes.command_fields import NoSuchCommand
from npuc.passes.costs import choices, operands_of, prototype
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import Operation
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException


@dataclass(frozen=True)
class SelectCommandsPass(ModulePass):
    """Sets the attributes `command` and `queue` of every `tile.pass` and `tile.copy`.

    Of the commands and queues that the machine accepts for an operation the cheapest is taken. Loads of
    memories that only operands are read from run beside the contractions where a queue allows it.
    """

    name = "select-commands"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        problems: list[str] = []
        for inner in op.walk():
            if isinstance(inner, tile.PassOp | tile.CopyOp):
                problems += _select(machine, inner)
        if problems:
            raise PassFailedException("select-commands: " + "; ".join(problems))


def choice_of(op: Operation) -> tuple[str, str]:
    """The command and queue that this pass chose.

    Raises:
        PassFailedException: it has not run.
    """
    chosen = tuple(op.attributes.get(name) for name in ("command", "queue"))
    match chosen:
        case StringAttr() as command, StringAttr() as queue:
            return command.data, queue.data
        case _:
            raise PassFailedException(f"{op.name} has no command; run select-commands first")


def module_path(op: Operation) -> str:
    """The checkpoint module an operation came from, "" if unknown."""
    module = op.attributes.get("module")
    return module.data if isinstance(module, StringAttr) else ""


def _select(machine: Machine, op: tile.PassOp | tile.CopyOp) -> list[str]:
    """Set the best choice; if there is none, say why for each command."""
    accepted: list[tuple[bool, int, int, tuple[str, str]]] = []
    refused: list[str] = []
    busy = _contracting_queues(machine)
    operands = operands_of(machine, op.spec, op.buffers)
    for number, choice in enumerate(choices(machine, op.spec)):
        try:
            instruction = prototype(machine, op.spec, choice, operands)
        except NoSuchCommand as error:
            refused.append(f"{choice[0]} on {choice[1]}: {error}")
            continue
        if found := machine.check(instruction):
            refused.append(f"{choice[0]} on {choice[1]}: {found[0]}")
            continue
        beside = _loads_operand_memory(machine, op) and choice[1] not in busy
        accepted.append((not beside, machine.cost(instruction).cycles, number, choice))
    if not accepted:
        where = f" ({module_path(op)})" if module_path(op) else ""
        reasons = " / ".join(refused) or f"{machine.name} has no such command"
        return [f"no command runs {op.name}{where}: {reasons}"]
    command, queue = min(accepted)[-1]
    op.attributes["command"], op.attributes["queue"] = StringAttr(command), StringAttr(queue)
    return []


def _contracting_queues(machine: Machine) -> set[str]:
    """Each contracting command's first queue: where contractions will run."""
    return {c.queues[0] for c in machine.commands.values() if "stationary" in c.ports}


def _loads_operand_memory(machine: Machine, op: tile.PassOp | tile.CopyOp) -> bool:
    """Whether a pass fills a memory that no stream is fetched from."""
    if isinstance(op, tile.CopyOp):
        return False
    streamed = {
        m for c in machine.commands.values() if "stream" in c.ports for m in c.ports["stream"].memories
    }
    return tile.memory_of(op.buffers[op.spec.ports["out"].buffer]) not in streamed


def cycles_of(machine: Machine, op: tile.PassOp | tile.CopyOp) -> int:
    """What a pass or copy costs as the command chosen for it."""
    operands = operands_of(machine, op.spec, op.buffers)
    return machine.cost(prototype(machine, op.spec, choice_of(op), operands)).cycles
