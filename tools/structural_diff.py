"""Structural differences of IR files and of programs: operations and commands, not lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from npuc.backends.elf import Program
from npuc.backends.machine import Machine
from npuc.ir.legality import module_path
from npuc.passes.ir_files import parse_ir
from npuc.tools.located_commands import located_commands, plain
from npuc.tools.sequence_diff import Edit, Item, edit_data, match
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.ir import BlockArgument, Operation, OpResult

Section = tuple[str, list[Operation]]


def diff_ir(before: Path, after: Path) -> dict[str, Any]:
    """The differences of two IR files, by function.

    Operations are the same where kind, types and attributes are, whatever their values are called.

    Raises:
        UserError: when a file is no valid IR.
    """
    old, new = (dict(_sections(parse_ir(path))) for path in (before, after))
    sections = [
        {"name": name, "edits": _diff_operations(old.get(name, []), new.get(name, []))}
        for name in dict.fromkeys([*old, *new])
    ]
    return _result("ir", sections)


def _result(kind: str, sections: Sequence[dict[str, Any]]) -> dict[str, Any]:
    different = [s for s in sections if s["edits"]]
    return {"kind": kind, "same": not different, "sections": different}


def _sections(module: ModuleOp) -> Iterator[Section]:
    """The operations of each function, by the symbols around it; those outside of functions by themselves."""
    loose: list[Operation] = []

    def visit(op: Operation, path: tuple[str, ...]) -> Iterator[Section]:
        for inner in (inner for region in op.regions for block in region.blocks for inner in block.ops):
            symbol = inner.get_attr_or_prop("sym_name")
            if inner.regions and isinstance(symbol, StringAttr):
                here = (*path, f"@{symbol.data}")
                if isinstance(inner, ModuleOp):
                    yield from visit(inner, here)
                else:
                    yield " ".join(here), list(inner.walk())
            else:
                loose.extend(inner.walk())

    yield from visit(module, ())
    yield "module", [module, *loose]


def _item(op: Operation) -> Item:
    attributes = {**op.attributes, **op.properties}
    properties = {name: str(value) for name, value in attributes.items()}
    properties |= {"operands": _types(op.operand_types), "results": _types(op.result_types)}
    blocks = (block for region in op.regions for block in region.blocks)
    properties |= {f"block {i}": _types(block.arg_types) for i, block in enumerate(blocks)}
    name = next((f"%{value.name_hint} = " for value in op.results if value.name_hint), "")
    symbol = attributes.get("sym_name")
    about = f" @{symbol.data}" if isinstance(symbol, StringAttr) else ""
    return Item(op.name, properties, f"{name}{op.name}{about} ({module_path(op)})")


def _types(types: Sequence[object]) -> str:
    return ", ".join(str(kind) for kind in types)


def _diff_operations(before: list[Operation], after: list[Operation]) -> list[dict[str, Any]]:
    old, new = ([_item(op) for op in ops] for ops in (before, after))
    edits, pairs = match(old, new)
    known = {edit.after for edit in edits}
    partner = {id(before[i]): after[j] for i, j in pairs.items()}
    for i, j in pairs.items():
        if j not in known and not _same_operands(before[i], after[j], partner):
            names = [_operand_names(op) for op in (before[i], after[j])]
            edits.append(Edit(i, j, {"operands": (names[0], names[1])}))
    edits.sort(key=lambda edit: edit.after if edit.after is not None else edit.before or 0)
    return [edit_data(edit, old, new) for edit in edits]


def _same_operands(before: Operation, after: Operation, partner: dict[int, Operation]) -> bool:
    """Whether both use the results of operations that correspond."""
    for old, new in zip(before.operands, after.operands, strict=True):
        if isinstance(old, OpResult) != isinstance(new, OpResult):
            return False
        if isinstance(old, OpResult) and isinstance(new, OpResult):
            if old.index != new.index or partner.get(id(old.op), new.op) is not new.op:
                return False
        elif isinstance(old, BlockArgument) and isinstance(new, BlockArgument) and old.index != new.index:
            return False
    return True


def _operand_names(op: Operation) -> str:
    return ", ".join(f"%{value.name_hint or '?'}" for value in op.operands)


def diff_programs(
    name: str, before: tuple[Program, Machine], after: tuple[Program, Machine]
) -> dict[str, Any]:
    """The differences of two programs: commands, with their fields, and bytes and cycles of all.

    Cycles are the sum of what each command costs once on an idle machine.

    Raises:
        UserError: ``malformed-program``.
    """
    old, new = ([*located_commands(name, *one)] for one in (before, after))
    items = [
        [
            Item(
                f"{c.instruction.queue} {c.instruction.command}",
                {
                    **{field: str(plain(value)) for field, value in c.instruction.fields.items()},
                    "wait": str([tuple(use) for use in c.instruction.waits]),
                    "signal": str([tuple(use) for use in c.instruction.signals]),
                    "module": c.module,
                },
                f"{c.offset:#x} {c.instruction.queue} {c.instruction.command} ({c.module or c.operation})",
            )
            for c in commands
        ]
        for commands in (old, new)
    ]
    edits, _ = match(items[0], items[1])
    return {
        "name": name,
        "edits": [edit_data(edit, items[0], items[1]) for edit in edits],
        "commands": [len(old), len(new)],
        "bytes": [len(before[0].text), len(after[0].text)],
        "cycles": [sum(c.cycles for c in old), sum(c.cycles for c in new)],
        "dram_bytes": [sum(c.dram_bytes for c in old), sum(c.dram_bytes for c in new)],
    }
