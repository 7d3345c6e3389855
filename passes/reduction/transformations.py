"""Ways to make a module smaller. Each has numbered candidates, tried one after the other on copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from npuc.ir import graph, tile
from npuc.passes.allocate_buffers import MEMORY_ATTRIBUTE, memory_map
from npuc.passes.inline_calls import inline_call
from npuc.passes.reduction.modules import functions, inner, mentioned, retype, symbols_in
from npuc.passes.reduction.shrinking import (
    dimensions,
    forget_modules,
    make_static,
    noted,
    shrink,
    symbolic_types,
)
from npuc.passes.specialized import buckets_of
from xdsl.dialects.builtin import (
    ArrayAttr,
    DenseArrayBase,
    DictionaryAttr,
    IntegerAttr,
    ModuleOp,
    TensorType,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, BlockArgument, Operation, OpResult, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter


@dataclass(frozen=True)
class Transformation:
    """A way to make a module smaller.

    Attributes:
        name: for people.
        candidates: how many there are in a module.
        apply: makes the candidate of a number, valid or not; False if the module is as it was.
    """

    name: str
    candidates: Callable[[ModuleOp], int]
    apply: Callable[[ModuleOp, int], bool]


# Functions and programs


def _parts(module: ModuleOp) -> list[Operation]:
    nested = buckets_of(module)
    return [*nested, *functions(module)]


def _keep_alone(module: ModuleOp, number: int) -> bool:
    """Removes what is beside a program or function and not used by it."""
    kept = _parts(module)[number]
    needed = set(_reached(module, kept))
    removed = [op for op in _parts(module) if op not in needed and not _contains(op, kept)]
    for op in removed:
        if not any(_contains(other, op) for other in removed if other is not op):
            op.detach()
            op.erase()
    return bool(removed)


def _contains(outer: Operation, op: Operation) -> bool:
    return op is outer or outer.is_ancestor(op)


def _reached(module: ModuleOp, op: Operation) -> Iterator[Operation]:
    """A part, what is in it, and the functions it calls."""
    by_name = {f.sym_name.data: f for f in functions(module)}
    waiting, seen = [op], set[Operation]()
    while waiting:
        part = waiting.pop()
        if part in seen:
            continue
        seen.add(part)
        yield part
        for other in part.walk():
            if isinstance(other, FuncOp):
                waiting.append(other)
            waiting += [by_name[name] for name in symbols_in(other) if name in by_name]


# Layers and loops


def _repeated(module: ModuleOp) -> list[Operation]:
    found = (graph.LayersOp, tile.ForOp)
    return [op for op in module.walk() if isinstance(op, found) and _times(op) > 1]


def _times(op: Operation) -> int:
    if isinstance(op, graph.LayersOp):
        return len(op.layer_list)
    assert isinstance(op, tile.ForOp)
    return tile.integer(op.count)


def _run_once(module: ModuleOp, number: int) -> bool:
    op = _repeated(module)[number]
    if isinstance(op, graph.LayersOp):
        op.attributes["layers"] = DenseArrayBase.from_list(i64, [op.layer_list[0]])
    else:
        op.attributes["count"] = IntegerAttr(1, 64)
    return True


def _loops(module: ModuleOp) -> list[tile.ForOp]:
    return [op for op in module.walk() if isinstance(op, tile.ForOp)]


def _only_first_iteration(module: ModuleOp, number: int) -> bool:
    """Puts a loop's body in its place, as its first iteration runs it."""
    op = _loops(module)[number]
    index = tile.ConstantOp(tile.integer(op.start))
    op.induction.replace_all_uses_with(index.result)
    Rewriter.insert_op(index, InsertPoint.before(op))
    for inside in list(op.body.block.ops):
        inside.detach()
        inside.attributes.pop("copies", None)
        Rewriter.insert_op(inside, InsertPoint.before(op))
    op.detach()
    op.erase()
    return True


def _rows(module: ModuleOp) -> list[graph.RowsOp]:
    return [op for op in module.walk() if isinstance(op, graph.RowsOp)]


def _inline_rows(module: ModuleOp, number: int) -> bool:
    """Puts what is done to tiles of rows where all rows are."""
    op = _rows(module)[number]
    body = op.body.block
    for argument, operand in zip(list(body.args), op.operands, strict=True):
        argument.replace_all_uses_with(operand)
    last = body.last_op
    assert last is not None
    results = list(last.operands)
    for inside in list(body.ops):
        inside.detach()
        if inside is not last:
            Rewriter.insert_op(inside, InsertPoint.before(op))
    Rewriter.replace_op(op, [], results)
    return True


def _calls(module: ModuleOp) -> list[tile.CallOp]:
    return [op for op in module.walk() if isinstance(op, tile.CallOp)]


def _inline(module: ModuleOp, number: int) -> bool:
    """Puts what a call runs in its place."""
    call = _calls(module)[number]
    holder, name = _module_of(call), call.callee.string_value()
    callee = next(op for op in holder.ops if isinstance(op, FuncOp) and op.sym_name.data == name)
    if sum(other.callee == call.callee for other in _calls(holder)) > 1:
        copy = callee.clone()
        Rewriter.insert_op(copy, InsertPoint.before(callee))
        callee = copy
    inline_call(call, callee)
    return True


def _module_of(op: Operation) -> ModuleOp:
    """The module around an operation."""
    holder = op.parent_op()
    while not isinstance(holder, ModuleOp):
        assert holder is not None
        holder = holder.parent_op()
    return holder


# Values


def _free(module: ModuleOp) -> list[FuncOp]:
    """Functions that nothing calls: their arguments and results may change."""
    used = mentioned(module)
    return [function for function in functions(module) if function.sym_name.data not in used]


def _returnable(module: ModuleOp) -> list[tuple[FuncOp, Operation]]:
    """Operations of functions that nothing calls, with tensors as results."""
    return [
        (function, op)
        for function in _free(module)
        for op in function.body.block.ops
        if op.results and all(isinstance(result.type, TensorType) for result in op.results)
    ]


def _return_only(module: ModuleOp, number: int) -> bool:
    """Makes a function return an operation's results and nothing else."""
    function, op = _returnable(module)[number]
    last = function.body.block.last_op
    if not isinstance(last, ReturnOp) or list(last.operands) == list(op.results):
        return False
    Rewriter.replace_op(last, ReturnOp(*list(op.results)), [])
    _erase_after(function.body.block, op)
    retype(function)
    return True


def _erase_after(block: Block, op: Operation) -> None:
    """Erases what follows an operation, but the terminator."""
    for other in reversed(list(block.ops)):
        if other is op:
            return
        if other is not block.last_op and not any(result.uses for result in other.results):
            other.detach()
            other.erase()


def _cut(function: FuncOp, values: Sequence[SSAValue]) -> None:
    """Makes values arguments of their function."""
    block = function.body.block
    for value in values:
        argument = block.insert_arg(value.type, len(block.args))
        argument.name_hint = value.name_hint
        known = function.arg_attrs.data if function.arg_attrs is not None else ()
        known = known or [DictionaryAttr({})] * argument.index
        function.arg_attrs = ArrayAttr([*known, _placed(function, value)])
        value.replace_all_uses_with(argument)
    retype(function)


def _placed(function: FuncOp, value: SSAValue) -> DictionaryAttr:
    """Where an argument lies that was a weight of the first layer, once weights lie somewhere."""
    root = _module_of(function)
    while root.parent_op() is not None:
        root = _module_of(root)
    if not isinstance(value.owner, tile.WeightOp) or MEMORY_ATTRIBUTE not in root.attributes:
        return DictionaryAttr({})
    name = value.owner.symbol
    packed = next(
        op for op in root.ops if isinstance(op, tile.PackedOp) and op.sym_name.data == name.string_value()
    )
    address = memory_map(root)["weights"][0] + tile.integer(packed.offset)
    return DictionaryAttr({"tile.address": IntegerAttr(address, i64)})


def _cut_far(module: ModuleOp, number: int) -> bool:
    """Makes everything arguments that is more than `number` operations away from a result."""
    cut = False
    for function in _free(module):
        near: set[SSAValue] = set()
        last = function.body.block.last_op
        border = set[SSAValue](last.operands if last is not None else ())
        for _ in range(number + 1):
            near |= border
            owners = {value.op for value in border if isinstance(value, OpResult)}
            border = {operand for owner in owners for operand in _reads(owner)}
        far = [value for value in border - near if isinstance(value, OpResult)]
        _cut(function, sorted(far, key=_position))
        cut |= bool(far)
    return cut


def _reads(op: Operation) -> Iterator[SSAValue]:
    """The operands of an operation and of what is in it, from outside."""
    inside = set(op.walk())
    for other in op.walk():
        for operand in other.operands:
            if not (isinstance(operand, OpResult) and operand.op in inside):
                if isinstance(operand, BlockArgument) and operand.block.parent_op() in inside:
                    continue
                yield operand


def _position(value: SSAValue) -> tuple[int, int]:
    assert isinstance(value, OpResult)
    block = value.op.parent_block()
    assert block is not None
    return next(i for i, op in enumerate(block.ops) if op is value.op), value.index


def _results_to_arguments(module: ModuleOp, number: int) -> bool:
    """Makes one operation's results arguments."""
    function, op = _returnable(module)[number]
    _cut(function, op.results)
    return True


def _held(module: ModuleOp) -> list[tuple[FuncOp, Operation]]:
    """Buffers, weights, caches and indices that a function that nothing calls could be given instead."""
    kinds = (tile.AllocOp, tile.WeightOp, tile.CacheSlotOp, tile.ConstantOp, tile.RuntimeOp)
    return [(f, op) for f in _free(module) for op in f.body.block.ops if isinstance(op, kinds)]


def _give(module: ModuleOp, number: int) -> bool:
    """Makes a share of the buffers arguments: all, halves, …, each alone."""
    found = _held(module)
    chunk, start = _share(len(found), number)
    for function, op in found[start : start + chunk]:
        _cut(function, op.results)
    return True


def _bypassed(module: ModuleOp) -> list[tuple[Operation, SSAValue]]:
    """Operations with an operand of their result's type."""
    return [
        (op, operand)
        for op in inner(module)
        if len(op.results) == 1
        for operand in dict.fromkeys(op.operands)
        if operand.type == op.results[0].type
    ]


def _bypass(module: ModuleOp, number: int) -> bool:
    op, operand = _bypassed(module)[number]
    op.results[0].replace_all_uses_with(operand)
    op.detach()
    op.erase()
    return True


def _without_results(module: ModuleOp) -> list[Operation]:
    """Operations that only do something: from the last, so that none is needed by another."""
    return [op for op in reversed(inner(module)) if not op.results]


def _erase(module: ModuleOp, number: int) -> bool:
    """Erases a share of the operations that only do something: all, halves, …, each alone."""
    found = _without_results(module)
    chunk, start = _share(len(found), number)
    for op in found[start : start + chunk]:
        if op.parent is not None:
            op.detach()
            op.erase()
    return True


def _share(count: int, number: int) -> tuple[int, int]:
    """Length and start of share `number` of `count` things: the whole, two halves, four quarters, …"""
    level = (number + 1).bit_length() - 1
    chunk = -(-count // (1 << level))
    return chunk, (number + 1 - (1 << level)) * chunk


def _shares(count: int) -> int:
    return 2 * (1 << (count - 1).bit_length()) - 1 if count else 0


TRANSFORMATIONS = (
    Transformation("one part alone", lambda m: len(_parts(m)), _keep_alone),
    Transformation("once, not often", lambda m: len(_repeated(m)), _run_once),
    Transformation("first iteration", lambda m: len(_loops(m)), _only_first_iteration),
    Transformation("rows at once", lambda m: len(_rows(m)), _inline_rows),
    Transformation("return early", lambda m: len(_returnable(m)), _return_only),
    Transformation("cut what is far", lambda m: len(inner(m)), _cut_far),
    Transformation("buffer to argument", lambda m: _shares(len(_held(m))), _give),
    Transformation("drop effects", lambda m: _shares(len(_without_results(m))), _erase),
    Transformation("result to argument", lambda m: len(_returnable(m)), _results_to_arguments),
    Transformation("bypass", lambda m: len(_bypassed(m)), _bypass),
    Transformation("call in place", lambda m: len(_calls(m)), _inline),
    Transformation("static sizes", lambda m: min(len(symbolic_types(m)), 1), make_static),
    Transformation("smaller sizes", lambda m: len(dimensions(m)), shrink),
    Transformation("forget checkpoint modules", lambda m: min(len(noted(m)), 1), forget_modules),
)
"""In the order in which they are tried: what makes much smaller comes first."""
