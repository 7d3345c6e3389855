"""Functions of their own for layers of one kind that a pass is to treat differently."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import groupby

from npuc.ir import graph
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.rewriter import InsertPoint, Rewriter


def layers_of(module: ModuleOp) -> dict[str, tuple[int, ...]]:
    """The model's layers that each function is run for, in order."""
    found: dict[str, tuple[int, ...]] = {}
    for op in module.walk():
        if isinstance(op, graph.LayersOp):
            name = op.callee.string_value()
            found[name] = found.get(name, ()) + op.layer_list
    return found


def separate_layers(module: ModuleOp, key: Callable[[FuncOp, int], Hashable]) -> None:
    """Splits layer functions such that all layers of one have the same key.

    The first key keeps the function, the others get copies; weights and caches go by layer anyway.
    """
    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)}
    for name, layers in layers_of(module).items():
        keys = {layer: key(functions[name], layer) for layer in layers}
        distinct = list(dict.fromkeys(keys.values()))
        if len(distinct) > 1:
            names = {k: f"{name}.{number}" if number else name for number, k in enumerate(distinct)}
            for copy in reversed(list(names.values())[1:]):
                clone = functions[name].clone()
                clone.properties["sym_name"] = StringAttr(copy)
                Rewriter.insert_op(clone, InsertPoint.after(functions[name]))
            _divide(module, name, {layer: names[keys[layer]] for layer in layers})


def _divide(module: ModuleOp, name: str, callees: dict[int, str]) -> None:
    """Runs the layers of a function, in their order, by several."""
    for op in [op for op in module.walk() if isinstance(op, graph.LayersOp)]:
        if op.callee.string_value() != name:
            continue
        carried: Sequence[SSAValue] = op.carried
        parts: list[graph.LayersOp] = []
        for callee, layers in groupby(op.layer_list, key=callees.__getitem__):
            part = graph.LayersOp(callee, list(layers), carried, op.extras)
            part.attributes |= {k: v for k, v in op.attributes.items() if k not in part.attributes}
            part.location = op.location
            for result, old in zip(part.results, op.results, strict=True):
                result.name_hint = old.name_hint
            carried = part.results
            parts.append(part)
        Rewriter.replace_op(op, parts, carried)
