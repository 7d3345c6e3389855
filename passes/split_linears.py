"""Takes linear layers apart whose results are only used in parts: fused queries, keys and values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from npuc.ir import graph
from npuc.passes.rewriting import take_attributes
from npuc.passes.weight_variants import WeightVariants, step
from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, TensorType
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

Part = tuple[int, int]


@dataclass(frozen=True)
class SplitLinearsPass(ModulePass):
    """Replaces a linear layer of which only slices are used by one for each, with its rows of the weight.

    Each part can then be shared by ranks in its own way.
    """

    name = "split-linears"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        variants = WeightVariants(op)
        for inner in list(op.walk()):
            if isinstance(inner, graph.LinearOp):
                users = list(_users(inner.result))
                parts = [part for _, part in users]
                if len({*parts}) > 1 and None not in parts and _has_own_weights(inner):
                    _split(inner, {s: p for s, p in users if p is not None}, variants)
        variants.finish()


def _has_own_weights(op: graph.LinearOp) -> bool:
    own = all(isinstance(v.owner, graph.ParamOp) for v in (op.weight, op.bias) if v is not None)
    return own and op.scale is None


def _users(value: SSAValue) -> Iterator[tuple[SSAValue, Part | None]]:
    """What uses a value: a slice's input or an argument of rows that only one slice uses, and its part."""
    for use in value.uses:
        if isinstance(use.operation, graph.RowsOp):
            argument = use.operation.body.block.args[use.index]
            parts = {_part(inner.operation) for inner in argument.uses}
            yield argument, parts.pop() if len(parts) == 1 else None
        else:
            part = _part(use.operation)
            yield (use.operation.results[0] if part else value), part


def _part(op: object) -> Part | None:
    """First and last + 1 element of the last dimension, if that is all that an operation takes a part of."""
    if not isinstance(op, graph.SliceOp):
        return None
    shape, result = graph.static_shape(op.input), graph.static_shape(op.result)
    start = graph.ints(op.starts)[-1]
    if shape[:-1] != result[:-1] or graph.ints(op.steps)[-1] != 1:
        return None
    return start, start + result[-1]


def _split(op: graph.LinearOp, users: dict[SSAValue, Part], variants: WeightVariants) -> None:
    block = op.parent_block()
    assert block is not None
    made: dict[Part, SSAValue] = {}
    for user, part in users.items():
        if part not in made:
            made[part] = _linear(op, part, block, variants)
        if isinstance(user.owner, Block):
            _narrow(user, made[part])
        else:
            _replace_slice(user, made[part])
    weights = [v.owner for v in (op.weight, op.bias) if v is not None]
    for old in (op, *weights):
        if isinstance(old, Operation) and not any(result.uses for result in old.results):
            old.detach()
            old.erase()


def _linear(op: graph.LinearOp, part: Part, block: Block, variants: WeightVariants) -> SSAValue:
    """The linear layer that gives a part of the result."""
    weights: list[SSAValue] = []
    for value in (op.weight, op.bias):
        if value is None:
            continue
        assert isinstance(value.owner, graph.ParamOp)
        param = value.owner.clone()
        block.insert_ops_before([param], op)
        shape = (part[1] - part[0], *graph.static_shape(value)[1:])
        variants.change(param, {f"rows {part}": lambda source: _rows_of(source, part)}, shape)
        weights.append(param.result)
    linear = graph.LinearOp(op.input, weights[0], weights[1] if len(weights) > 1 else None)
    take_attributes(linear, op)
    block.insert_ops_before([linear], op)
    return linear.result


def _rows_of(source: DictionaryAttr, part: Part) -> DictionaryAttr:
    return step("slice", source, dim=0, start=part[0], stop=part[1])


def _narrow(argument: SSAValue, value: SSAValue) -> None:
    """Lets an argument of rows carry the part alone."""
    assert isinstance(argument.owner, Block)
    rows = argument.owner.parent_op()
    assert isinstance(rows, graph.RowsOp)
    number = rows.body.block.args.index(argument)  # pyright: ignore[reportArgumentType]
    rows.operands[number] = value
    shape = (*graph.static_shape(argument)[:-1], graph.static_shape(value)[-1])
    kind = TensorType(graph.element_of(value), shape)
    argument = Rewriter.replace_value_with_new_type(argument, kind)
    for use in list(argument.uses):
        _replace_slice(use.operation.results[0], argument)


def _replace_slice(result: SSAValue, value: SSAValue) -> None:
    op = result.owner
    assert isinstance(op, graph.SliceOp)
    result.replace_all_uses_with(value)
    op.detach()
    op.erase()
