"""One static module per bucket: every size a number, the head separate from the body."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from npuc.ir import graph
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.buckets import Bucket, parse_bucket
from npuc.passes.live_bytes import live_bytes
from npuc.passes.pack_weights import storage_bits
from npuc.passes.rewriting import take_attributes
from npuc.passes.roles import BODY, HEADS
from npuc.passes.target_option import machine_of
from xdsl.context import Context
from xdsl.dialects.builtin import DictionaryAttr, FunctionType, IntegerAttr, ModuleOp, StringAttr, TensorType
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.transforms.dead_code_elimination import region_dce
from xdsl.utils.exceptions import PassFailedException


@dataclass(frozen=True)
class SpecializePass(ModulePass):
    """Clones the functions once per bucket with static shapes, split at `graph.select_rows`.

    Each bucket becomes a nested module named after it, holding the layer kinds, `body` (up to the
    hidden states), `head_all` and `head_last`, and the entries `all` and `last` that call them.
    """

    name = "specialize"
    target: str
    buckets: tuple[str, ...] = ()

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        functions = [f for f in op.body.block.ops if isinstance(f, FuncOp)]
        if not any(f.sym_name.data == "main" for f in functions):
            raise PassFailedException("specialize: the module has no function @main")
        geometry = geometry_of(machine_of(self.target))
        for text in self.buckets:
            kind, _, sizes = text.partition("_")
            op.body.block.add_op(_bucket_module(functions, parse_bucket(kind, sizes), geometry))
        for function in functions:
            function.detach()
            function.erase()
        op.attributes["npuc.buckets"] = StringAttr(",".join(self.buckets))


def _bucket_module(functions: list[FuncOp], bucket: Bucket, geometry: Geometry) -> ModuleOp:
    module = ModuleOp([], {}, StringAttr(bucket.name))
    values = {
        "batch": bucket.batch,
        "new_tokens": bucket.new_tokens,
        "length": bucket.attended,
    }
    module.attributes["npuc.bucket"] = DictionaryAttr(
        {"kind": StringAttr(bucket.kind), **{k: IntegerAttr(v, 64) for k, v in values.items()}}
    )
    for function in functions:
        clone = function.clone()
        _make_static(clone, tuple(values.values()), geometry)
        if clone.sym_name.data != "main":
            module.body.block.add_op(clone)
            continue
        module.body.block.add_ops(_split_at_head(clone))
    return module


def _make_static(function: FuncOp, sizes: tuple[int, ...], geometry: Geometry) -> None:
    """Replaces every symbolic size by its value for (batch, seq, ctx) = sizes; tiles of rows are shorter."""
    bodies = [op for op in function.walk() if isinstance(op, graph.RowsOp)]
    for rows in bodies:
        _make_block_static(rows.body.block, (sizes[0], rows_at_once(rows, sizes, geometry), sizes[2]))
    _make_block_static(function.body.block, sizes)
    function.update_function_type()


def _make_block_static(block: Block, sizes: tuple[int, ...]) -> None:
    values = [*block.args, *(result for op in block.ops for result in op.results)]
    for value in values:
        kind = value.type
        if isinstance(kind, TensorType):
            shape = [d if isinstance(d, int) else d.eval(sizes, []) for d in graph.shape_of(kind)]
            static = TensorType(kind.element_type, shape)
            if static != kind:
                Rewriter.replace_value_with_new_type(value, static)


def rows_at_once(op: graph.RowsOp, sizes: tuple[int, ...], geometry: Geometry) -> int:
    """The most rows, a divisor of the bucket's, whose intermediate values fit a third of a slice's memory."""
    batch, rows, length = sizes
    budget = geometry.local_bytes // 3
    for count in range(rows, 1, -1):
        if rows % count == 0 and _bytes_of_rows(op, (batch, count, length), geometry) <= budget:
            return count
    return 1


# Buffers of the result's size in f32 that lowering an operation needs beside its operands and its result.
BUFFERS: dict[type[Operation], int] = {
    graph.RopeOp: 2,
    graph.RmsNormOp: 2,
    graph.LayerNormOp: 2,
    graph.WhereOp: 3,
}


def _bytes_of_rows(op: graph.RowsOp, sizes: tuple[int, ...], geometry: Geometry) -> int:
    """An estimate of what the body needs at once in every slice, which holds whole rows."""

    def elements(value: SSAValue) -> int:
        return prod(d if isinstance(d, int) else d.eval(sizes, []) for d in graph.shape_of(value))

    def size(value: SSAValue) -> int:
        held = not isinstance(value.owner, graph.ParamOp | graph.ConstantOp)
        return elements(value) * storage_bits(graph.element_of(value)) // 8 if held else 0

    def beside(inner: Operation) -> int:
        if isinstance(inner, graph.AttentionOp):
            _, heads, rows, _ = graph.shape_of(inner.query)
            scores = prod(d if isinstance(d, int) else d.eval(sizes, []) for d in (heads, rows))
            return 3 * 4 * scores * geometry.chunk(sizes[2])
        return BUFFERS.get(type(inner), 0) * 4 * (elements(inner.results[0]) if inner.results else 0)

    tiles = sum(size(a) for a, d in zip(op.body.block.args, op.dims[0], strict=True) if d >= 0)
    live = live_bytes(op.body.block, size)
    return tiles + max((alive + beside(inner) for inner, alive in live.items()), default=0)


def _split_at_head(main: FuncOp) -> list[Operation]:
    """`body`, `head_all`, `head_last` and the entries, from @main split at its `graph.select_rows`."""
    block = main.body.block
    markers = [op for op in block.ops if isinstance(op, graph.SelectRowsOp)]
    if len(markers) != 1:
        raise PassFailedException(f"specialize: @main has {len(markers)} graph.select_rows, expected 1")
    marker = markers[0]
    head_ops = list(_ops_after(marker))
    hidden = marker.input
    heads = [_head(HEADS[rows], hidden, marker, head_ops, rows == "last") for rows in HEADS]
    logits = [head.function_type.outputs.data[0] for head in heads]
    for op in (marker, *head_ops)[::-1]:
        op.detach()
        op.erase()
    block.add_op(ReturnOp(hidden))
    region_dce(main.body)
    main.properties["sym_name"] = StringAttr(BODY)
    main.properties["sym_visibility"] = StringAttr("private")
    main.update_function_type()
    entries = [_entry(rows, main, logits[i]) for i, rows in enumerate(HEADS)]
    return [main, *heads, *entries]


def _ops_after(op: Operation) -> list[Operation]:
    found: list[Operation] = []
    following = op.next_op
    while following is not None:
        found.append(following)
        following = following.next_op
    return found


def _head(
    name: str, hidden: SSAValue, marker: graph.SelectRowsOp, ops: list[Operation], last: bool
) -> FuncOp:
    """The operations after the marker as a function of the hidden states."""
    hidden_type = hidden.type
    assert isinstance(hidden_type, TensorType)
    block = Block(arg_types=[hidden_type])
    block.args[0].name_hint = "hidden"
    batch, rows, size = graph.static_shape(hidden_type)
    selected = graph.SelectRowsOp(
        block.args[0], TensorType(hidden_type.element_type, (batch, 1 if last else rows, size))
    )
    take_attributes(selected, marker)
    block.add_op(selected)
    mapping: dict[SSAValue, SSAValue] = {marker.result: selected.result}
    for op in ops:
        for operand in op.operands:
            known = operand in mapping or operand.owner in ops
            if not known and not _clone_pure(operand, block, mapping):
                raise PassFailedException(
                    f"specialize: {op.name} after select_rows uses a value from before it"
                )
        clone = op.clone(mapping)
        if last:
            _fix_rows(clone, rows)
            mapping.update(zip(op.results, clone.results, strict=True))
        block.add_op(clone)
    terminator = block.last_op
    assert isinstance(terminator, ReturnOp)
    outputs = [value.type for value in terminator.operands]
    return FuncOp(name, FunctionType.from_lists([hidden_type], outputs), Region(block), "private")


def _clone_pure(value: SSAValue, block: Block, mapping: dict[SSAValue, SSAValue]) -> bool:
    """Copies from before the marker into the head what is made of weight references and constants alone."""
    owner = value.owner
    if not isinstance(owner, graph.ParamOp | graph.ConstantOp | graph.SliceOp | graph.ReshapeOp):
        return False
    if not all(v in mapping or _clone_pure(v, block, mapping) for v in owner.operands):
        return False
    block.add_op(owner.clone(mapping))
    return True


def _fix_rows(op: Operation, rows: int) -> None:
    """Results of the last-row head have one row where the body has `rows` (dimension 1)."""
    if isinstance(op, graph.ParamOp | graph.ConstantOp):
        return
    for value in op.results:
        kind = value.type
        if isinstance(kind, TensorType) and kind.get_num_dims() == 3 and kind.get_shape()[1] == rows:
            shape = (kind.get_shape()[0], 1, kind.get_shape()[2])
            Rewriter.replace_value_with_new_type(value, TensorType(kind.element_type, shape))


def _entry(rows: str, body: FuncOp, logits: Attribute) -> FuncOp:
    inputs = body.function_type.inputs.data
    block = Block(arg_types=inputs)
    for argument, original in zip(block.args, body.args, strict=True):
        argument.name_hint = original.name_hint
    hidden = CallOp(BODY, block.args, body.function_type.outputs.data)
    head = CallOp(HEADS[rows], hidden.results, [logits])
    block.add_ops([hidden, head, ReturnOp(*head.results)])
    return FuncOp(rows, FunctionType.from_lists(inputs, [logits]), Region(block))
