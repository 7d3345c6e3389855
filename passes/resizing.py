"""Changes the sizes of tensors throughout a module of static programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from npuc.ir import graph
from npuc.ir.graph_types import int_array
from npuc.passes.specialized import buckets_of
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import CallOp, FuncOp
from xdsl.ir import OpResult, SSAValue
from xdsl.rewriter import Rewriter


def resize(shapes: Mapping[SSAValue, Sequence[int]]) -> dict[SSAValue, SSAValue]:
    """Gives values new shapes, and slices of whole dimensions their new ends; results of weights stay.

    Returns:
        what each value has become.
    """
    found: dict[SSAValue, SSAValue] = {}
    for value, shape in shapes.items():
        owner = value.owner
        if isinstance(owner, graph.ParamOp):
            found[value] = value
            continue
        kind = value.type
        assert isinstance(kind, TensorType)
        if isinstance(value, OpResult) and isinstance(owner, graph.SliceOp):
            stops = zip(graph.ints(owner.stops), kind.get_shape(), shape, strict=True)
            owner.attributes["stops"] = int_array([new if new != n else s for s, n, new in stops])
        wanted = TensorType(kind.element_type, shape, kind.encoding)
        found[value] = Rewriter.replace_value_with_new_type(value, wanted)
    return found


def update_signatures(module: ModuleOp) -> None:
    """Function types, and the results of calls, after values were resized."""
    for bucket in buckets_of(module):
        functions = {f.sym_name.data: f for f in bucket.body.block.ops if isinstance(f, FuncOp)}
        calling = [f for f in functions.values() if any(isinstance(op, CallOp) for op in f.walk())]
        for function in [*(f for f in functions.values() if f not in calling), *calling]:
            for op in function.walk():
                if isinstance(op, CallOp):
                    outputs = functions[op.callee.string_value()].function_type.outputs
                    for result, kind in zip(list(op.results), outputs, strict=True):
                        Rewriter.replace_value_with_new_type(result, kind)
            function.update_function_type()
