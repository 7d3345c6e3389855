"""Lookup of symbols for verifiers: from an operation outwards through the enclosing modules."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import DenseArrayBase, StringAttr, SymbolRefAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation
from xdsl.traits import SymbolTable
from xdsl.utils.exceptions import VerifyException


def find_symbol(op: Operation, name: str) -> Operation | None:
    """The operation that defines a symbol in the nearest enclosing symbol table that has it."""
    anchor = op.parent_op()
    while anchor is not None:
        if anchor.has_trait(SymbolTable):
            for candidate in anchor.regions[0].block.ops:
                defined = candidate.properties.get("sym_name") or candidate.attributes.get("sym_name")
                if isinstance(defined, StringAttr) and defined.data == name:
                    return candidate
        anchor = anchor.parent_op()
    return None


def require_symbol(op: Operation, reference: SymbolRefAttr, what: str, kinds: Sequence[str]) -> Operation:
    """The operation that a reference names.

    Args:
        what: how messages call it, e.g. "weight".
        kinds: names of the operations that it may be.

    Raises:
        VerifyException: when there is none, or it is something else.
    """
    name = reference.string_value()
    found = find_symbol(op, name)
    if found is None:
        raise VerifyException(f"{what} @{name} does not exist")
    if found.name not in kinds:
        raise VerifyException(f"{what} @{name} is a {found.name}, expected {' or '.join(kinds)}")
    return found


def require_function(op: Operation, reference: SymbolRefAttr, arguments: Sequence[Attribute]) -> FuncOp:
    """The function that a reference names, which must take arguments of these types.

    Raises:
        VerifyException: when there is none, or its signature is another.
    """
    function = require_symbol(op, reference, "function", (FuncOp.name,))
    assert isinstance(function, FuncOp)
    inputs, name = function.function_type.inputs.data, reference.string_value()
    if len(inputs) != len(arguments):
        raise VerifyException(f"@{name} takes {len(inputs)} arguments, got {len(arguments)}")
    for number, (wanted, got) in enumerate(zip(inputs, arguments, strict=True)):
        if wanted != got:
            raise VerifyException(f"argument {number} of @{name} is {wanted}, got {got}")
    return function


def require_layers(what: str, declared: Attribute | None, used: Sequence[int]) -> None:
    """Raises VerifyException when a declaration per layer lacks some layers that it is used for."""
    if isinstance(declared, DenseArrayBase):
        missing = sorted({*used} - {int(v) for v in declared.get_values()})
        if missing:
            raise VerifyException(f"{what} has no layer {', '.join(map(str, missing))}")
