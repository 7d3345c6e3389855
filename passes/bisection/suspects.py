"""From the first wrong value to the operation that is to blame for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from npuc.ir import tile
from npuc.passes.bisection.traces import Event, Wrong, number_of, removed
from npuc.passes.checking import Figures
from npuc.passes.evaluation import Place, written_buffer
from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Attribute, Operation, SSAValue


@dataclass(frozen=True)
class Suspect:
    """Who is to blame.

    Attributes:
        place: where it is in the checkpoint, and names.
        figures: how wrong the first wrong value is.
        reason: what is wrong, in words.
        before: the operation in the state before, if it is there.
        after: the operation in the state after, if it is there.
    """

    place: Place
    figures: Figures
    reason: str
    before: Operation | None
    after: Operation | None


def culprit(
    wrong: Wrong | None,
    before: Sequence[Event],
    after: Sequence[Event],
    numbered: Mapping[int, Operation],
) -> Suspect | None:
    """The operation to blame for the first wrong value.

    That is, in this order: one that the step dropped, one that it added in front of the wrong one, a buffer
    that shares its bytes with one still in use, or else the one whose result is wrong.
    """
    if wrong is None:
        return None
    return (
        _dropped(wrong, before, after)
        or _added(wrong, after)
        or _overwritten(wrong, before, after)
        or _itself(wrong, numbered)
    )


def _dropped(wrong: Wrong, before: Sequence[Event], after: Sequence[Event]) -> Suspect | None:
    """What came before the wrong one and is gone: a pass or copy, or what an unchanged operation read."""
    if not _is_command(wrong.before.op):
        return _unread(wrong, before, after)
    gone = removed(before, after)
    earlier = before[: _index(before, wrong.before)]
    found = next((event for event in earlier if event.op in gone.values()), None)
    if found is None:
        return None
    reason = f"it is gone, so {_shown(wrong.after.place)} is wrong"
    return Suspect(found.place, wrong.figures, reason, found.op, None)


def _unread(wrong: Wrong, before: Sequence[Event], after: Sequence[Event]) -> Suspect | None:
    kept = {number_of(event.op) for event in after}
    if not _unchanged(wrong.before.op, wrong.after.op):
        return None
    for event in before:
        if number_of(event.op) not in kept and _feeds(event.op, wrong.before.op):
            reason = f"it is gone, so {_shown(wrong.after.place)} reads something else"
            return Suspect(event.place, wrong.figures, reason, event.op, None)
    return None


def _added(wrong: Wrong, after: Sequence[Event]) -> Suspect | None:
    """An operation made from nothing whose result an unchanged one reads."""
    op = wrong.after.op
    if not _unchanged(wrong.before.op, op):
        return None
    earlier = after[: _index(after, wrong.after)]
    for event in reversed(earlier):
        if number_of(event.op) is None and _feeds(event.op, op):
            reason = f"it was added, and {_shown(wrong.after.place)} reads what it writes"
            return Suspect(event.place, wrong.figures, reason, None, event.op)
    return None


def _overwritten(wrong: Wrong, before: Sequence[Event], after: Sequence[Event]) -> Suspect | None:
    """A buffer that was given bytes of another one that the wrong operation still reads."""
    if not _is_command(wrong.after.op) or any(_address(event.op) is not None for event in before[:1]):
        return None
    earlier = after[: _index(after, wrong.after)]
    for value in dict.fromkeys(_buffers(wrong.after.op)):
        mine = _bytes_of(value)
        if mine is None:
            continue
        last = max((i for i, event in enumerate(earlier) if _target(event.op) is value), default=-1)
        for event in reversed(earlier[last + 1 :]):
            theirs = _bytes_of(_target(event.op))
            if theirs is not None and _target(event.op) is not value and _meet(mine, theirs):
                return _overlap(wrong, event, value, mine, theirs)
    return None


def _overlap(
    wrong: Wrong, event: Event, value: SSAValue, mine: tuple[str, int, int], theirs: tuple[str, int, int]
) -> Suspect:
    other = _target(event.op)
    reason = (
        f"%{other.name_hint} ({_range(theirs)}) overlaps %{value.name_hint} ({_range(mine)}), which "
        f"{_shown(wrong.after.place)} reads after {event.op.name} has overwritten it"
    )
    place = Place(event.place.module, other.name_hint or "", "tile.alloc")
    owner = other.owner if isinstance(other.owner, Operation) else None
    return Suspect(place, wrong.figures, reason, None, owner)


def _itself(wrong: Wrong, numbered: Mapping[int, Operation]) -> Suspect:
    place = wrong.before.place
    lowered = _is_command(wrong.after.op) and not _is_command(wrong.before.op)
    if lowered:
        reason = "the passes and copies that it became do not compute what it does"
    elif _unchanged(wrong.before.op, wrong.after.op):
        reason = "it is unchanged, but what it reads"
        reason += ", or the buffer it writes a part of," if _is_command(wrong.after.op) else ""
        reason += " is not what it should be"
    else:
        place = wrong.after.place
        reason = "it was changed"
        if wrong.before.op.name != wrong.after.op.name:
            reason = f"it was made from {wrong.before.op.name}"
    return Suspect(place, wrong.figures, reason, wrong.before.op, wrong.after.op)


def _index(events: Sequence[Event], event: Event) -> int:
    return next(i for i, other in enumerate(events) if other is event)


def _unchanged(before: Operation, after: Operation) -> bool:
    same = before.name == after.name and before.properties == after.properties
    return same and before.attributes == after.attributes and before.result_types == after.result_types


def _feeds(op: Operation, reader: Operation) -> bool:
    if _is_command(op):
        return _target(op) in _buffers(reader)
    return any(operand.owner is op for operand in reader.operands)


def _is_command(op: Operation) -> bool:
    return isinstance(op, tile.PassOp | tile.CopyOp)


def _buffers(op: Operation) -> Sequence[SSAValue]:
    assert isinstance(op, tile.PassOp | tile.CopyOp)
    return op.buffers


def _target(op: Operation) -> SSAValue:
    assert isinstance(op, tile.PassOp | tile.CopyOp)
    return op.buffers[written_buffer(op)]


def _address(op: Operation) -> Attribute | None:
    owner = _target(op).owner if _is_command(op) else None
    return owner.attributes.get("address") if isinstance(owner, Operation) else None


def _bytes_of(value: SSAValue) -> tuple[str, int, int] | None:
    """Memory, first and last byte + 1 of a buffer that has an address."""
    owner, kind = value.owner, value.type
    if not isinstance(owner, tile.AllocOp) or "address" not in owner.attributes:
        return None
    assert isinstance(kind, MemRefType)
    shape = kind.get_shape()
    count = 1
    for size in shape[1:]:
        count *= size
    item = -(-int(kind.element_type.bitwidth) // 8)  # type: ignore[union-attr]
    start = tile.integer(owner.attributes["address"])
    return tile.memory_of(kind), start, start + count * item


def _meet(a: tuple[str, int, int], b: tuple[str, int, int]) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]


def _range(found: tuple[str, int, int]) -> str:
    return f"{found[0]} {found[1]:#x} to {found[2] - 1:#x}"


def _shown(place: Place) -> str:
    name = f"%{place.value} of " if place.value else ""
    return f"{name}{place.operation}{f' ({place.module})' if place.module else ''}"
