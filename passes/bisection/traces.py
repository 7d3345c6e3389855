"""What a state computes, operation by operation, and which of its values are not those of the state before.

The operations of the state before are numbered in their locations, which passes hand on to what they make of
them. So every operation of the state after says which one it was made from; where a pass makes a new one
without a location, the checkpoint module and the value's name say it. Of a graph operation that became passes
and copies, the buffer that the last of them wrote holds the result.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch
from npuc.ir import graph, tile
from npuc.ir.interpret_tile import POISON
from npuc.ir.tile_placements import GridAttr, HostAttr, SlicedAttr, SpreadAttr
from npuc.passes.checking import Figures, compare
from npuc.passes.evaluation import Call, Evaluator, Place, on_grid, written_buffer
from npuc.passes.placing import placement_of
from torch import Tensor
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, ModuleOp, StringAttr, TensorType
from xdsl.ir import Operation, SSAValue

FILE = StringAttr("bisect")
UNWRITTEN = int.from_bytes([POISON] * 4, "little")

Key = tuple[object, ...]


@dataclass(frozen=True)
class Event:
    """A value that came about.

    Attributes:
        op: that made it.
        place: the checkpoint module, with the layer if that is known, and names.
        number: which of the operation's results it is.
        value: a tensor, or the content of the buffer that was written.
    """

    op: Operation
    place: Place
    number: int
    value: Tensor


class Wrong(NamedTuple):
    """A value that may not be what it was.

    Attributes:
        before: where it was right.
        after: where it is now; the last of what the operation became, if that is several.
        figures: how wrong it is there.
    """

    before: Event
    after: Event
    figures: Figures


def number_operations(module: ModuleOp) -> dict[int, Operation]:
    """Gives each operation a number, in its location."""
    numbered = dict(enumerate(module.walk()))
    for number, op in numbered.items():
        op.location = FileLineColLoc(FILE, IntAttr(number), IntAttr(0))
    return numbered


def number_of(op: Operation) -> int | None:
    """The number of the operation that this one was made from."""
    found = op.location
    return found.line.data if isinstance(found, FileLineColLoc) and found.filename == FILE else None


def trace(evaluator: Evaluator, module: ModuleOp, call: Call, entry: str, events: list[Event]) -> None:
    """Adds all values of a call of a module above commands, in the order in which they come about."""

    def watch(op: Operation, layer: int | None, results: Sequence[Tensor]) -> None:
        own = isinstance(op, graph.KvUpdateOp)  # caches change later
        for number, value in enumerate(results):
            events.append(Event(op, Place.of(op, number, layer), number, value.clone() if own else value))

    evaluator.run(module, call, watch, (entry,))


def first_wrong(before: Sequence[Event], after: Sequence[Event], tolerance: float) -> Wrong | None:
    """The first value of the state after that is not that of the state before."""
    return next((pair for pair in pairs(before, after) if pair.figures.max_rel_error > tolerance), None)


def pairs(before: Sequence[Event], after: Sequence[Event]) -> Iterator[Wrong]:
    """Values of both states that belong together, and how they differ; some come twice."""
    if before and after:
        lowered = any(_is_command(event.op) for event in after) and not _is_command(before[0].op)
        yield from _lowered_pairs(before, after) if lowered else _equal_pairs(before, after)


def first_unlike(before: Sequence[Event], after: Sequence[Event], tolerance: float) -> Wrong | None:
    """The same of two modules, neither made from the other: what each checkpoint module gives counts too.

    Names need not be the same in both; the last value of a checkpoint module is what it gives.
    """
    results = [{event.place.module: event for event in events} for events in (before, after)]
    outputs = (
        Wrong(
            results[0][path], event, compare(*(numbers(e.value).flatten() for e in (event, results[0][path])))
        )
        for path, event in results[1].items()
        if path in results[0] and results[0][path].value.numel() == event.value.numel()
    )
    unlike = next((pair for pair in outputs if pair.figures.max_rel_error > tolerance), None)
    found = [pair for pair in (first_wrong(before, after, tolerance), unlike) if pair is not None]
    order = {id(event): number for number, event in enumerate(after)}
    return min(found, key=lambda pair: order[id(pair.after)], default=None)


def _is_command(op: Operation) -> bool:
    return isinstance(op, tile.PassOp | tile.CopyOp)


def _equal_pairs(before: Sequence[Event], after: Sequence[Event]) -> Iterator[Wrong]:
    """Both states are of one level: values are compared as they are."""
    for key_of in (_by_number, _by_name):
        known, found = _occurrences(before, key_of), _occurrences(after, key_of)
        seen: Counter[Key] = Counter()
        for event in after:
            key = key_of(event)
            if key is None:
                continue
            number, seen[key] = seen[key], seen[key] + 1
            if len(known.get(key, ())) != len(found[key]):
                continue
            other = known[key][number]
            if other.value.numel() == event.value.numel():
                figures = compare(numbers(event.value).flatten(), numbers(other.value).flatten())
                yield Wrong(other, event, figures)


def _by_number(event: Event) -> Key | None:
    number = number_of(event.op)
    return None if number is None else (number, event.number)


def _by_name(event: Event) -> Key | None:
    return (event.place.module, event.place.value) if event.place.value else None


def _occurrences(events: Sequence[Event], key_of: Callable[[Event], Key | None]) -> dict[Key, list[Event]]:
    found: dict[Key, list[Event]] = defaultdict(list)
    for event in events:
        key = key_of(event)
        if key is not None:
            found[key].append(event)
    return found


def _lowered_pairs(before: Sequence[Event], after: Sequence[Event]) -> Iterator[Wrong]:
    """The state before is of tensors, the one after of buffers."""
    made = _occurrences(after, lambda event: _made_from(event.op))
    times = Counter((number_of(event.op), event.number) for event in before)
    seen: Counter[Key] = Counter()
    for event in before:
        number = number_of(event.op)
        turn, seen[number, event.number] = seen[number, event.number], seen[number, event.number] + 1
        steps = made.get((number,), [])
        share, rest = divmod(len(steps), times[number, event.number])
        if not share or rest:
            continue
        run = steps[turn * share : (turn + 1) * share]
        found = _stored(event, run)
        if found is None:
            continue
        as_is, ordered = compare(*found), compare(*map(_sorted, found))
        yield Wrong(event, run[-1], min(as_is, ordered, key=lambda figures: figures.max_rel_error))


def _sorted(values: Tensor) -> Tensor:
    """The elements of a buffer in order, because a transposition may be part of its layout."""
    return values.flatten(1).sort(dim=1).values if values.dim() > 1 else values.sort().values


def numbers(value: Tensor) -> Tensor:
    """Values as f32; integers that nothing was written to are not numbers."""
    if value.dtype != torch.int32:
        return value.float()
    return value.float().masked_fill(value == UNWRITTEN, torch.nan)


def _made_from(op: Operation) -> Key | None:
    number = number_of(op)
    return None if number is None else (number,)


def _stored(event: Event, run: Sequence[Event]) -> tuple[Tensor, Tensor] | None:
    """What the buffer that an operation's commands wrote last holds, and what it should; None if unclear."""
    kind = event.op.results[event.number].type
    assert isinstance(kind, TensorType)
    if isinstance(event.op, graph.KvUpdateOp):
        return _cached(event, run)
    value, placement, content = event.value, placement_of(kind), run[-1].value
    if isinstance(placement, HostAttr):
        return (content.float(), value.flatten().float()) if content.numel() == value.numel() else None
    slices = _slices(run[-1].op)
    if isinstance(placement, SlicedAttr):
        chunk = placement.chunk.data
        lead = value.shape[:-1]
        if content.numel() != slices * prod(lead) * chunk:
            return None
        logical = content.view(slices, *lead, chunk).movedim(0, -2).reshape(*lead, slices * chunk)
        return logical[..., : value.shape[-1]].float(), value.float()
    if isinstance(placement, SpreadAttr):
        value = value.unflatten(placement.dim.data, (-1, slices)).movedim(placement.dim.data + 1, 0)
        same = content.numel() == value.numel()
        return (content.float(), value.flatten().float()) if same else None
    if isinstance(placement, GridAttr):
        parts = on_grid(value, placement, slices).flatten(1)
        held = content.view(slices, -1)[:, : parts.shape[1]]
        return (held.float(), parts.float()) if content.numel() >= parts.numel() else None
    count = value.numel()
    if content.numel() % slices or not count <= content.numel() // slices < count + 64:
        return None
    return content.view(slices, -1)[:, :count].float(), value.reshape(1, count).expand(slices, count).float()


def _slices(op: Operation) -> int:
    assert isinstance(op, tile.PassOp | tile.CopyOp)
    kind = op.buffers[written_buffer(op)].type
    return int(kind.get_shape()[0])  # type: ignore[union-attr]


def _cached(event: Event, run: Sequence[Event]) -> tuple[Tensor, Tensor] | None:
    """Keys or values [rows, heads, ctx, size]: a row's are in the slot that its copy wrote."""
    part = ("key", "value")[event.number]
    slots: dict[SSAValue, Event] = {}
    for step in run:
        assert isinstance(step.op, tile.PassOp | tile.CopyOp)
        buffer = step.op.buffers[written_buffer(step.op)]
        if isinstance(buffer.owner, tile.CacheSlotOp) and buffer.owner.part.data == part:
            slots[buffer] = step
    rows, heads, ctx, size = event.value.shape
    if len(slots) != rows:
        return None
    for value, (buffer, step) in zip(event.value, slots.items(), strict=True):
        length = buffer.type.get_shape()[0]  # type: ignore[union-attr]
        found = step.value.view(length, heads, size)[:ctx].transpose(0, 1)
        if not (found == value).all():
            return found.float(), value.float()
    return event.value.float(), event.value.float()


def removed(before: Sequence[Event], after: Sequence[Event]) -> Mapping[int, Operation]:
    """Passes and copies of the state before of which nothing is left."""
    kept = {number_of(event.op) for event in after}
    found: dict[int, Operation] = {}
    for event in before:
        number = number_of(event.op)
        if number is not None and number not in kept and _is_command(event.op):
            found[number] = event.op
    return found
