"""Decides which machine command and queue runs each pass and copy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.passes.command_fields import NoSuchCommand
from npuc.passes.costs import choices, operands_of, prototype, time_together
from npuc.passes.programs import buffer_bytes
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.utils.exceptions import PassFailedException


@dataclass(frozen=True)
class SelectCommandsPass(ModulePass):
    """Sets the attributes `command` and `queue` of every `tile.pass` and `tile.copy`.

    Of the commands and queues that the machine accepts for an operation the cheapest is taken. Loads of
    memories that only operands are read from go beside the contractions if these would have to wait for
    them: if together they are more than any other queue has to do in that block. What a pass has computed
    is loaded as fast as possible, for there is nothing that it could run beside.
    """

    name = "select-commands"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        selector = _Selector(machine)
        for inner in op.walk():
            if isinstance(inner, tile.AllocOp):
                _check_size(machine, inner)
            elif isinstance(inner, FuncOp):
                selector.computed = _computed(inner)
                selector.select(inner.body.block)
        if selector.problems:
            first, *more = dict.fromkeys(selector.problems)
            others = f" (and {len(more)} more kinds of operation)" if more else ""
            raise PassFailedException(f"select-commands: {first}{others}")


def _check_size(machine: Machine, op: tile.AllocOp) -> None:
    """A buffer that no order of commands makes room for is told before commands refuse to address it.

    Raises:
        PassFailedException: it is larger than its memory.
    """
    memory, needed = machine.memories[tile.memory_of(op.result)], buffer_bytes(machine, op.result)
    if memory.main or needed <= memory.size:
        return
    name = f"%{op.result.name_hint}" if op.result.name_hint else "a buffer"
    modules = [path for use in op.result.uses if (path := module_path(use.operation))]
    where = f" ({modules[0]})" if modules else ""
    each = "each slice of " if memory.slices > 1 else ""
    raise PassFailedException(
        f"select-commands: {name}{where} takes {needed} bytes in {each}{memory.name}, which has "
        f"{memory.size}; compile for fewer tokens at a time, or share the layers among more cores: "
        "--tensor-parallel"
    )


Option = tuple[int, int, tuple[str, str]]
"""Cycles, number (the machine's order decides between equals), command and queue."""


@dataclass
class _Selector:
    machine: Machine
    problems: list[str] = field(default_factory=list[str])
    computed: set[SSAValue] = field(default_factory=set[SSAValue])

    def select(self, block: Block) -> Counter[str]:
        """Chooses for the commands of a block, inner loops first; returns the cycles of each queue."""
        fixed = Counter[str]()
        loads: list[tuple[Operation, list[Option]]] = []
        for op in block.ops:
            if isinstance(op, tile.ForOp):
                inner = self.select(op.body.block)
                fixed.update({queue: n * tile.integer(op.count) for queue, n in inner.items()})
            elif isinstance(op, tile.PassOp | tile.CopyOp):
                options, refused = _options(self.machine, op)
                if not options:
                    self.problems.append(_refusal(self.machine, op, refused))
                elif _loads_operand_memory(self.machine, op) and not self._computes(op):
                    loads.append((op, options))
                else:
                    _choose(op, options, fixed)
        busy = _contracting_queues(self.machine)
        beside = [(op, [o for o in found if o[2][1] not in busy] or found) for op, found in loads]
        least = _busiest(fixed, beside)
        for op, options in loads if _busiest(fixed, loads) <= least else beside:
            _choose(op, options, fixed)
        return fixed

    def _computes(self, op: tile.PassOp | tile.CopyOp) -> bool:
        """Whether an operation changes values on the way, or moves what a pass has made."""
        source = op.spec.ports.get("stream") if isinstance(op, tile.PassOp) else None
        changes = isinstance(op, tile.PassOp) and bool(op.spec.chain)
        return changes or (source is not None and op.buffers[source.buffer] in self.computed)


def _computed(function: FuncOp) -> set[SSAValue]:
    """The buffers that passes write."""
    passes = (op for op in function.walk() if isinstance(op, tile.PassOp))
    return {op.buffers[op.spec.ports["out"].buffer] for op in passes}


def _choose(op: Operation, options: Sequence[Option], totals: Counter[str]) -> None:
    cycles, _, (command, queue) = min(options)
    op.attributes["command"], op.attributes["queue"] = StringAttr(command), StringAttr(queue)
    totals[queue] += cycles


def _busiest(fixed: Counter[str], loads: Sequence[tuple[Operation, Sequence[Option]]]) -> int:
    """The cycles of the busiest queue when each load takes its cheapest option."""
    totals = Counter(fixed)
    for _, options in loads:
        cycles, _, (_, queue) = min(options)
        totals[queue] += cycles
    return max(totals.values(), default=0)


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


Refused = dict[str, list[str]]
"""Reasons, and the commands and queues that each holds for."""


def _options(machine: Machine, op: tile.PassOp | tile.CopyOp) -> tuple[list[Option], Refused]:
    """The commands and queues that run an operation, and why the others do not."""
    accepted: list[Option] = []
    refused: Refused = {}
    operands = operands_of(machine, op.spec, op.buffers)
    for number, choice in enumerate(choices(machine, op.spec)):
        try:
            instruction = prototype(machine, op.spec, choice, operands)
        except NoSuchCommand as error:
            refused.setdefault(str(error), []).append(" on ".join(choice))
            continue
        if found := machine.check(instruction):
            refused.setdefault(found[0], []).append(" on ".join(choice))
            continue
        accepted.append((machine.cost(instruction).cycles, number, choice))
    return accepted, refused


def _refusal(machine: Machine, op: Operation, refused: Refused) -> str:
    where = f" ({module_path(op)})" if module_path(op) else ""
    reasons = " / ".join(f"{', '.join(choices)}: {reason}" for reason, choices in refused.items())
    reasons = reasons or f"{machine.name} has no such command"
    return f"no command runs {op.name}{where}: {reasons}"


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


def cycles_of(machine: Machine, op: tile.PassOp | tile.CopyOp, cores: int = 1) -> int:
    """What a pass or copy costs as the command chosen for it, while so many cores do the same."""
    operands = operands_of(machine, op.spec, op.buffers)
    cost = machine.cost(prototype(machine, op.spec, choice_of(op), operands))
    return int(time_together(machine, cost, cores))
