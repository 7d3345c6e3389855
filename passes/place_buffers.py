"""Addresses of a program's buffers: that all fit, then that as few commands as possible wait for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from npuc.backends.machine import Machine
from npuc.backends.model import Memory
from npuc.ir import tile
from npuc.passes.algorithms.allocate import DoesNotFit, peak, place
from npuc.passes.algorithms.hazards import Access, Command, Item, commands_of
from npuc.passes.algorithms.reuse import Form, cost_of_one_copy, settle
from npuc.passes.algorithms.timeline import lives, timeline
from npuc.passes.frames import Frame, lowest_peaks
from npuc.passes.multi_buffer import copies_of
from npuc.passes.queue_items import QueueItems
from npuc.passes.roots import Aliases
from npuc.passes.select_commands import cycles_of
from xdsl.dialects.builtin import IntegerAttr
from xdsl.ir import Operation
from xdsl.utils.exceptions import PassFailedException


def make_fit(frames: Sequence[Frame], memory: Memory, capacity: int) -> None:
    """Reduce buffers with several copies to one until all buffers of a memory fit.

    First those that have their like in the same loop, which can take turns with them; then those of outer
    loops, where least is to be gained; of them the largest.

    Raises:
        PassFailedException: the memory is too small for one copy of each.
    """
    while True:
        try:
            lowest_peaks(frames, memory, capacity)
            return
        except DoesNotFit as error:
            copied = [(f, op) for f in frames for op in f.of(memory) if copies_of(op) > 1]
            if not copied:
                raise PassFailedException(f"allocate-buffers: {error}") from None
            kinds = Counter((op.parent_block(), op.result.type) for _, op in copied)
            _, dropped = max(
                copied,
                key=lambda pair: (
                    kinds[pair[1].parent_block(), pair[1].result.type] > 1,
                    -_depth(pair[1]),
                    pair[0].stride(pair[1]),
                ),
            )
            del dropped.attributes["copies"]


def _depth(op: Operation) -> int:
    """How many loops are around an operation."""
    parent = op.parent_op()
    return 0 if parent is None else _depth(parent) + isinstance(parent, tile.ForOp)


class Settler:
    """Sets the address of each buffer of a program, memory by memory.

    What has an address already counts in the times from which the costs of the next memory's follow. So small
    memories come first: how far loads can run ahead in a large one depends on them.

    Args:
        frames: of the program's functions, callees first; all buffers fit.
        ranks: how many cores run the program at the same time.
    """

    def __init__(self, machine: Machine, aliases: Aliases, frames: Sequence[Frame], ranks: int) -> None:
        self.machine, self.frames, self.ranks = machine, frames, ranks
        self.items: dict[Frame, list[Item]] = {}
        self.spaces: dict[tile.AllocOp, str] = {}
        self.cycles: dict[object, int] = {}
        for frame in frames:
            made = QueueItems(machine, aliases)
            self.items[frame] = list(made.of(frame.function.body.block))
            self.spaces |= made.unplaced

    def place(self, memory: Memory, base: int, capacity: int) -> int:
        """Place the buffers of one memory behind ``base``, callers first; returns the bytes that they take.

        A callee has the bytes below those buffers of its callers that live on.
        """
        lowest = lowest_peaks(self.frames, memory, capacity)
        limits = dict.fromkeys(lowest, capacity)
        end = 0
        for frame in reversed(self.frames):
            limit = limits[frame.name]
            addresses = self._settle(frame, memory, limit, lowest)
            for op, address in addresses.items():
                op.attributes["copy_stride"] = IntegerAttr(frame.stride(op), 64)
                op.attributes["address"] = IntegerAttr(base + address, 64)
                end = max(end, address + frame.buffer(op).size)
            self._move(frame, memory)
            for call in frame.calls:
                alive = {b.name for b in frame.alive_during(call, memory)}
                callee = call.callee.string_value()
                above = (a for op, a in addresses.items() if frame.allocs[op] in alive)
                limits[callee] = min([limit, limits[callee], *above])
        return end

    def _settle(
        self, frame: Frame, memory: Memory, limit: int, lowest: Mapping[str, int]
    ) -> dict[tile.AllocOp, int]:
        """The addresses of a function's buffers; such as lose a copy are told."""
        own = frame.of(memory)
        choices = self._choices(frame, own)
        alive = {b.name: b for call in frame.calls for b in frame.alive_during(call, memory)}.values()
        room = limit - peak(alive, place(list(alive), memory.name, limit))
        generous = {name: max(room, size) for name, size in lowest.items()}
        try:
            found = settle([*choices, *([Form(b)] for b in frame.called(generous))], memory.name, limit)
        except DoesNotFit:
            found = settle([*choices, *([Form(b)] for b in frame.called(lowest))], memory.name, limit)
        for op, forms, (form, _) in zip(own, choices, found, strict=False):
            if form is not forms[0]:
                del op.attributes["copies"]
        return {op: address for op, (_, address) in zip(own, found, strict=False)}

    def _choices(self, frame: Frame, own: Sequence[tile.AllocOp]) -> list[list[Form]]:
        """The forms of each buffer: with all its copies, and with one."""
        runs = timeline(self.items[frame], self._cycles) if len(own) > 1 else []
        depths = {self.spaces[op]: _depth(op) for op in own if op in self.spaces}
        copied = {self.spaces[op] for op in own if op in self.spaces and copies_of(op) > 1}
        single = lives(runs, depths)
        alternating = lives(runs, {space: depths[space] - 1 for space in copied})
        choices: list[list[Form]] = []
        for op in own:
            space = self.spaces.get(op, "")
            one = single.get(space, [])
            choices.append([Form(frame.buffer(op, 1), one, cost_of_one_copy(one))])
            if copies_of(op) > 1:
                choices[-1].insert(0, Form(frame.buffer(op), alternating.get(space, [])))
        return choices

    def _cycles(self, command: Command) -> int:
        op = command.key
        assert isinstance(op, tile.PassOp | tile.CopyOp)
        if op not in self.cycles:
            self.cycles[op] = cycles_of(self.machine, op, self.ranks)
        return self.cycles[op]

    def _move(self, frame: Frame, memory: Memory) -> None:
        """From now on the memory's buffers lie where they have been placed."""
        placed = {self.spaces[op]: op for op in frame.of(memory) if op in self.spaces}
        for command, _ in commands_of(self.items[frame]):
            command.reads = tuple(_moved(access, placed) for access in command.reads)
            command.writes = tuple(_moved(access, placed) for access in command.writes)


def _moved(access: Access, placed: Mapping[str, tile.AllocOp]) -> Access:
    op = placed.get(access.space)
    if op is None:
        return access
    address, memory = tile.integer(op.attributes["address"]), tile.memory_of(op.result)
    start, stop = address + access.start, address + access.stop
    if copies_of(op) == 1:
        return Access(memory, start, stop)
    return Access(memory, start, stop, access.copies, tile.integer(op.attributes["copy_stride"]), access.loop)
