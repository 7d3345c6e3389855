"""What reductions need to know of a module and do to it."""

from __future__ import annotations

from collections.abc import Iterator

from npuc.ir import graph, tile
from xdsl.dialects.builtin import ArrayAttr, DictionaryAttr, FunctionType, ModuleOp, StringAttr, SymbolRefAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation


def size(module: ModuleOp) -> int:
    """Operations, but for modules, functions and terminators."""
    skipped = ("builtin.module", "func.func", "func.return", "graph.yield")
    return sum(op.name not in skipped for op in module.walk())


def functions(module: ModuleOp) -> list[FuncOp]:
    """All functions with a body."""
    return [op for op in module.walk() if isinstance(op, FuncOp) and op.body.blocks]


def inner(module: ModuleOp) -> list[Operation]:
    """All operations within functions, but terminators."""
    skipped = ("func.func", "func.return", "graph.yield")
    return [op for function in functions(module) for op in function.walk() if op.name not in skipped]


def mentioned(module: ModuleOp) -> set[str]:
    """All symbols that are used."""
    return {name for op in module.walk() for name in symbols_in(op)}


def symbols_in(op: Operation) -> Iterator[str]:
    """The symbols that an operation names."""
    for attr in (*op.attributes.values(), *op.properties.values()):
        if isinstance(attr, SymbolRefAttr):
            yield attr.string_value()


def tidy(module: ModuleOp) -> None:
    """Removes what nothing uses: values, declarations, arguments of functions that nothing calls."""
    changed = True
    while changed:
        changed = False
        used = mentioned(module)
        for op in reversed(list(module.walk())):
            unused = bool(op.results) and not any(result.uses for result in op.results)
            symbol = op.attributes.get("sym_name")
            declared = isinstance(op, graph.WeightOp | graph.CacheDeclOp | tile.PackedOp | tile.CacheOp)
            dead = declared and isinstance(symbol, StringAttr) and symbol.data not in used
            if dead or (unused and not isinstance(op, ModuleOp)):
                op.detach()
                op.erase()
                changed = True
        for function in functions(module):
            if function.sym_name.data not in used:
                changed |= _drop_arguments(function)


def _drop_arguments(function: FuncOp) -> bool:
    unused = [a for a in function.body.block.args if not a.uses]
    for argument in reversed(unused):
        if function.arg_attrs is not None:
            kept = [a for i, a in enumerate(function.arg_attrs.data) if i != argument.index]
            function.arg_attrs = ArrayAttr[DictionaryAttr](kept)
        function.body.block.erase_arg(argument)
    if unused:
        retype(function)
    return bool(unused)


def retype(function: FuncOp) -> None:
    """Makes a function's type that of its arguments and results."""
    last = function.body.block.last_op
    outputs = list(last.operand_types) if isinstance(last, ReturnOp) else []
    inputs = [argument.type for argument in function.body.block.args]
    function.properties["function_type"] = FunctionType.from_lists(inputs, outputs)
