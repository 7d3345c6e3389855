"""Orders commands so that loads run ahead of the work that needs them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.passes.algorithms.allocate import lifetimes
from npuc.passes.algorithms.geometry import geometry_of
from npuc.passes.algorithms.order import Node, Space, order, peaks, reordered
from npuc.passes.frames import fits_on_chip, steps_of
from npuc.passes.multi_buffer import COPIES
from npuc.passes.partition import ranks_of
from npuc.passes.programs import buffer_bytes, callees_first, calls_of, programs
from npuc.passes.roots import Aliases, Touched, accesses
from npuc.passes.select_commands import choice_of, cycles_of
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass

Command = tile.PassOp | tile.CopyOp
SHARES = ((0.75, 1.0), (0.75, 0.75), (0.5, 0.5))
"""Of the bytes that callers leave, how much reordered buffers may take: the rest is lost between buffers.

The second number is for the stationary memory, of whose halves none need be lost. Tried in turn; if the
buffers cannot be placed with any, the given order stays."""
LOOP_SHARE = 0.8
"""How much of what the code around a loop may take the loop's own buffers may take, in one copy."""


@dataclass(frozen=True)
class OrderCommandsPass(ModulePass):
    """Reorders passes, copies and loops within each stretch between calls.

    Dependences, the machine's costs, and the memory that callers leave decide. Buffers move next to their
    first use, so that their lifetimes follow.
    """

    name = "order-commands"
    target: str

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        machine = machine_of(self.target)
        geometry = geometry_of(machine)
        separate = geometry.stationary != geometry.local
        for program in programs(op):
            given = {op: list(b.ops) for op in program.walk() for r in op.regions for b in r.blocks}
            for share, stationary in SHARES:
                shares = {memory: share for memory in machine.memories}
                if separate:
                    shares[geometry.stationary] = stationary
                _order_program(machine, program, shares, ranks_of(op))
                if fits_on_chip(machine, callees_first(program)):
                    break
                _restore(given)


def _order_program(machine: Machine, program: ModuleOp, shares: Mapping[str, float], ranks: int) -> None:
    aliases = Aliases.of(program)
    functions = callees_first(program)
    held = _held_by_callers(machine, functions)
    for function in functions:
        own = held[function.sym_name.data]
        room = {m.name: int(shares[m.name] * (m.size - own[m.name])) for m in machine.memories.values()}
        whole = {memory for memory, share in shares.items() if share == 1.0}
        _Scheduler(machine, aliases, room, whole, ranks).schedule(function.body.block, 1.0)


def _restore(given: Mapping[Operation, Sequence[Operation]]) -> None:
    """Put the operations of each block back in their order."""
    for parent, ops in given.items():
        if isinstance(parent, FuncOp | tile.ForOp):
            for op in ops:
                op.detach()
            parent.body.block.add_ops(ops)


def _held_by_callers(machine: Machine, functions: Sequence[FuncOp]) -> dict[str, Counter[str]]:
    """Per function and memory the most bytes that are alive in its callers while it runs."""
    held = {f.sym_name.data: Counter[str]() for f in functions}
    for function in reversed(functions):
        allocs = [op.result for op in function.walk() if isinstance(op, tile.AllocOp)]
        roots: dict[SSAValue, str] = {value: str(number) for number, value in enumerate(allocs)}
        keys = {op: f"call {number}" for number, op in enumerate(calls_of(function))}
        live = lifetimes(list(steps_of(function.body.block, roots, keys)))
        for call, key in keys.items():
            total = Counter(held[function.sym_name.data])
            for value, name in roots.items():
                if live.buffers[name].meets(live.steps[key]):
                    total[tile.memory_of(value)] += buffer_bytes(machine, value)
            held[call.callee.string_value()] |= total
    return held


class _Scheduler:
    """Reorders the blocks of one function.

    Args:
        room: bytes per memory that the function's buffers may take.
        whole: the memories of which loops may take as much as the code around them.
        ranks: how many cores run it at the same time.
    """

    def __init__(
        self, machine: Machine, aliases: Aliases, room: Mapping[str, int], whole: Set[str], ranks: int
    ) -> None:
        self.machine, self.ranks, self.whole = machine, ranks, whole
        self.aliases = aliases
        self.room = room
        self.inside: dict[tile.ForOp, dict[str, int]] = {}  # bytes that a loop's own buffers take

    def schedule(self, block: Block, share: float) -> dict[str, int]:
        """Reorder a block, inner loops first, within a share of the room; returns the bytes it takes."""
        for op in block.ops:
            if isinstance(op, tile.ForOp):
                self.inside[op] = self.schedule(op.body.block, share * LOOP_SHARE)
        stretch: list[Operation] = []
        used: Counter[str] = Counter()
        for op in list(block.ops):
            if any(isinstance(inner, tile.CallOp) for inner in op.walk()):
                used |= self._reorder(block, stretch, share)
                stretch = []
            elif op.name != "func.return":
                stretch.append(op)
        return used | self._reorder(block, stretch, share)

    def _reorder(self, block: Block, stretch: Sequence[Operation], share: float) -> Counter[str]:
        """Reorder a stretch; returns the bytes that are in use at once."""
        nodes = [op for op in stretch if isinstance(op, Command | tile.ForOp)]
        allocs = [op for op in block.ops if isinstance(op, tile.AllocOp)]
        users = {op: _users(op, block) for op in allocs}
        own = {op: str(n) for n, op in enumerate(allocs) if users[op] and users[op] <= set(nodes)}
        outside = Counter[str]()
        for op in allocs:
            if op not in own:
                outside[tile.memory_of(op.result)] += self._size(op)
        spaces = {name: Space(tile.memory_of(op.result), self._size(op)) for op, name in own.items()}
        spaces |= {
            f"{n}.{memory}": Space(memory, COPIES * size)
            for n, op in enumerate(nodes)
            if isinstance(op, tile.ForOp)
            for memory, size in self.inside[op].items()
        }
        plain = self._nodes(nodes, own, users)
        budgets = peaks(plain, spaces)
        for memory, size in self.room.items():
            own_share = 1.0 if memory in self.whole else share
            budgets[memory] = max(budgets.get(memory, 0), int(size * own_share) - outside[memory])
        chosen = order(plain, spaces, budgets)
        if len(nodes) > 1:
            _rewrite(stretch, [nodes[i] for i in chosen], {op: users[op] for op in own})
        return Counter(peaks(reordered(plain, chosen), spaces)) + outside

    def _size(self, op: tile.AllocOp) -> int:
        return buffer_bytes(self.machine, op.result)

    def _nodes(
        self,
        nodes: Sequence[Operation],
        names: Mapping[tile.AllocOp, str],
        users: Mapping[tile.AllocOp, set[Operation]],
    ) -> list[Node]:
        history: dict[object, list[tuple[int, Touched, bool]]] = defaultdict(list)
        found: list[Node] = []
        for number, op in enumerate(nodes):
            before: set[int] = set()
            for what, writes in self._accesses(op):
                for earlier, other, wrote in history[what.root]:
                    meets = other.start < what.stop and what.start < other.stop
                    if (writes or wrote) and meets and earlier != number:
                        before.add(earlier)
                history[what.root].append((number, what, writes))
            buffers = [name for alloc, name in names.items() if op in users[alloc]]
            if isinstance(op, tile.ForOp):
                buffers += [f"{number}.{memory}" for memory in self.inside[op]]
            work = self._work(op)
            cycles = max(work.values(), default=0)
            found.append(Node(tuple(work), cycles, tuple(sorted(before)), tuple(buffers)))
        return found

    def _accesses(self, op: Operation) -> Iterator[tuple[Touched, bool]]:
        """What a node touches, and whether it writes it."""
        for inner in op.walk():
            if isinstance(inner, Command):
                yield from accesses(self.machine, self.aliases, inner)

    def _work(self, op: Operation) -> Counter[str]:
        """Cycles per queue."""
        total = Counter[str]()
        if isinstance(op, Command):
            total[choice_of(op)[1]] = cycles_of(self.machine, op, self.ranks)
        elif isinstance(op, tile.ForOp):
            for inner in op.body.block.ops:
                for queue, cycles in self._work(inner).items():
                    total[queue] += cycles * tile.integer(op.count)
        return total


def _users(alloc: tile.AllocOp, block: Block) -> set[Operation]:
    """The operations of the block that use the buffer, inside themselves or directly."""
    found: set[Operation] = set()
    for use in alloc.result.uses:
        op = block.find_ancestor_op_in_block(use.operation)
        assert op is not None
        found.add(op)
    return found


def _rewrite(
    stretch: Sequence[Operation], nodes: Sequence[Operation], users: Mapping[tile.AllocOp, set[Operation]]
) -> None:
    """Put the nodes in order, each behind the buffers it is the first to use; all else comes before.

    A buffer of theirs may come from an earlier stretch.
    """
    anchor = stretch[-1].next_op
    block = stretch[0].parent_block()
    assert block is not None
    waiting = dict(users)
    ordered = [op for op in stretch if op not in set(nodes) and op not in waiting]
    for node in nodes:
        begun = [alloc for alloc, uses in waiting.items() if node in uses]
        ordered += [*begun, node]
        for alloc in begun:
            del waiting[alloc]
    for op in ordered:
        op.detach()
    if anchor is None:
        block.add_ops(ordered)
    else:
        block.insert_ops_before(ordered, anchor)
