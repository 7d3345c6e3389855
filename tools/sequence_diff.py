"""Differences of two sequences of things that have a kind and properties. No IR in here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple


class Item(NamedTuple):
    """A thing that is compared.

    Attributes:
        kind: things of different kind are never the same thing changed.
        properties: what can change.
        label: how it is called for people.
    """

    kind: str
    properties: Mapping[str, str]
    label: str


class Edit(NamedTuple):
    """An item that was removed (`after` is None), added (`before` is None) or changed."""

    before: int | None
    after: int | None
    changes: Mapping[str, tuple[str, str]]


def match(before: Sequence[Item], after: Sequence[Item]) -> tuple[list[Edit], dict[int, int]]:
    """The edits that lead from one sequence to the other, and the pairs (before → after) of what stays.

    Where stretches differ, items of one kind are paired in order and count as changed.
    """
    keys = [[(item.kind, *sorted(item.properties.items())) for item in items] for items in (before, after)]
    edits: list[Edit] = []
    pairs: dict[int, int] = {}
    for tag, i, j, k, m in SequenceMatcher(None, keys[0], keys[1], autojunk=False).get_opcodes():
        if tag == "equal":
            pairs.update(zip(range(i, j), range(k, m), strict=True))
            continue
        kinds = [[item.kind for item in before[i:j]], [item.kind for item in after[k:m]]]
        for inner, a, b, c, d in SequenceMatcher(None, kinds[0], kinds[1], autojunk=False).get_opcodes():
            if inner == "equal":
                for old, new in zip(range(i + a, i + b), range(k + c, k + d), strict=True):
                    pairs[old] = new
                    changes = changed(before[old].properties, after[new].properties)
                    edits += [Edit(old, new, changes)] if changes else []
            else:
                edits += [Edit(old, None, {}) for old in range(i + a, i + b)]
                edits += [Edit(None, new, {}) for new in range(k + c, k + d)]
    return edits, pairs


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """The properties that differ, from and to; what one lacks is `-`."""
    names = dict.fromkeys([*before, *after])
    values = {name: (before.get(name, "-"), after.get(name, "-")) for name in names}
    return {name: pair for name, pair in values.items() if pair[0] != pair[1]}


def edit_data(edit: Edit, before: Sequence[Item], after: Sequence[Item]) -> dict[str, Any]:
    """An edit for programs."""
    item = after[edit.after] if edit.after is not None else before[edit.before or 0]
    what = "removed" if edit.after is None else "added" if edit.before is None else "changed"
    return {
        "edit": what,
        "kind": item.kind,
        "label": item.label,
        "changes": {name: list(pair) for name, pair in edit.changes.items()},
    }


def edit_text(edit: Mapping[str, Any]) -> list[str]:
    """An edit for people: ``+``, ``-`` or ``~``, and what changed."""
    sign = {"removed": "-", "added": "+", "changed": "~"}[edit["edit"]]
    changes: Mapping[str, Sequence[str]] = edit["changes"]
    return [f"{sign} {edit['label']}", *(f"      {n}: {a} → {b}" for n, (a, b) in changes.items())]
