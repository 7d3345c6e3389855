"""Small parameters that a function reads become one, since every copy has a price of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from npuc.frontends.recipes import recipe
from npuc.ir import graph
from npuc.ir.graph import element_of, static_shape
from npuc.passes.rewriting import take_attributes
from npuc.passes.weight_variants import step
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass


@dataclass(frozen=True)
class JoinParametersPass(ModulePass):
    """Joins the scalars, and the vectors of one length, of each function: scales, weights of norms.

    What is made has one more dimension, and each parameter becomes a slice of it. Vectors that linear layers
    take stay by themselves: they are cut as the layer's results are.
    """

    name = "join-parameters"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        weights = {w.sym_name.data: w for w in op.body.block.ops if isinstance(w, graph.WeightOp)}
        for function in op.body.block.ops:
            if isinstance(function, FuncOp):
                for params in _alike(function, weights):
                    _join(params, weights)
        read = {inner.symbol.string_value() for inner in op.walk() if isinstance(inner, graph.ParamOp)}
        for name, weight in weights.items():
            if name not in read:
                weight.detach()
                weight.erase()


def _alike(function: FuncOp, weights: dict[str, graph.WeightOp]) -> list[list[graph.ParamOp]]:
    """Parameters of several symbols that can be joined, in the order in which they are read."""
    groups: dict[object, list[graph.ParamOp]] = defaultdict(list)
    for op in function.body.block.ops:
        if isinstance(op, graph.ParamOp) and _is_small(op):
            groups[op.result.type, weights[op.symbol.string_value()].layer_list].append(op)
    return [ops for ops in groups.values() if len({op.symbol for op in ops}) > 1]


def _is_small(op: graph.ParamOp) -> bool:
    shape = static_shape(op.result)
    of_linear = any(isinstance(use.operation, graph.LinearOp) for use in op.result.uses)
    return not shape or (len(shape) == 1 and not of_linear)


def _join(params: Sequence[graph.ParamOp], weights: dict[str, graph.WeightOp]) -> None:
    symbols = list(dict.fromkeys(op.symbol.string_value() for op in params))
    joined = _joined([weights[symbol] for symbol in symbols], weights)
    first = params[0]
    whole = graph.ParamOp(joined.sym_name.data, joined.type)
    take_attributes(whole, first)
    block = first.parent_block()
    assert block is not None
    block.insert_op_before(whole, first)
    for param in params:
        shape, number = static_shape(param.result), symbols.index(param.symbol.string_value())
        starts = (number, *(0 for _ in shape))
        own = graph.SliceOp(whole.result, starts, (number + 1, *shape))
        value = graph.ReshapeOp(own.result, shape)
        for new in (own, value):
            take_attributes(new, param)
        block.insert_ops_before([own, value], param)
        param.result.replace_all_uses_with(value.result)
        param.detach()
        param.erase()


def _joined(parts: Sequence[graph.WeightOp], weights: dict[str, graph.WeightOp]) -> graph.WeightOp:
    """The weight whose rows are the parts; functions that join the same read the same."""
    name = f"{parts[0].sym_name.data}+{len(parts) - 1}"
    while name in weights:
        name += "'"
    shape = static_shape(parts[0].type)
    rows = [[step("reshape", source, shape=(1, *shape)) for source in part.sources] for part in parts]
    sources = [recipe("concat", list(column), dim=0) for column in zip(*rows, strict=True)]
    kind = TensorType(element_of(parts[0].type), (len(parts), *shape))
    joined = graph.WeightOp(name, kind, sources, parts[0].layer_list)
    joined.location = parts[0].location
    block = parts[0].parent_block()
    assert block is not None
    block.insert_ops_before([joined], parts[0])
    weights[name] = joined
    return joined
