"""Lowerings of ATen operators that make, view, cut and join tensors."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from npuc.frontends.fx_import import LOWERINGS, FxImporter, FxNode, Result, lowers
from npuc.ir import graph
from npuc.ir.graph import element_of, shape_of, static_shape
from npuc.ir.shapes import Dim, size_text
from torch.fx import Node
from xdsl.dialects.builtin import i32
from xdsl.ir import SSAValue


@lowers(
    "aten.view.default", "aten.reshape.default", "aten._unsafe_view.default", "aten.unsqueeze.default",
    "aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", "aten.flatten.using_ints",
)  # fmt: skip
def lower_view(imp: FxImporter, node: FxNode) -> SSAValue:
    return imp.reshape(imp.value(node.args[0]), imp.sizes(node))


@lowers(
    "aten.clone.default", "aten.contiguous.default", "aten.alias.default", "aten.detach.default",
    "aten.lift_fresh_copy.default", "aten.dropout.default", "aten.native_dropout.default",
)  # fmt: skip
def lower_identity(imp: FxImporter, node: FxNode) -> SSAValue:
    return imp.value(node.args[0])


@lowers("aten.copy.default")
def lower_copy(imp: FxImporter, node: FxNode) -> SSAValue:
    value = imp.cast(imp.value(node.args[1]), imp.element(node))
    return imp.broadcast(value, imp.sizes(node))


@lowers("aten.permute.default", "aten.transpose.int", "aten.t.default")
def lower_permute(imp: FxImporter, node: FxNode) -> SSAValue:
    source: Any = node.args[0]
    rank = source.meta["val"].ndim
    perm = list(range(rank))
    match str(node.target).split(".")[1]:
        case "permute":
            perm = [d % rank for d in node.args[1]]
        case "t":
            perm.reverse()
        case _:
            a, b = (d % rank for d in node.args[1:3])
            perm[a], perm[b] = perm[b], perm[a]
    return imp.transpose(imp.value(source), imp.dims(source, *perm))


@lowers("aten.expand.default")
def lower_expand(imp: FxImporter, node: FxNode) -> SSAValue:
    return imp.broadcast(imp.aligned(node.args[0], node), imp.sizes(node))


def cut(imp: FxImporter, value: SSAValue, dim: int, start: int, stop: int, step: int = 1) -> SSAValue:
    """``value[…, start:stop:step, …]`` along one dimension; a stop of −1 means the end."""
    shape = shape_of(value)
    dim %= len(shape)
    if start == 0 and step == 1 and stop in (-1, shape[dim]):
        return value
    starts, stops, steps = [0] * len(shape), [-1] * len(shape), [1] * len(shape)
    starts[dim], stops[dim], steps[dim] = start, stop, step
    return imp.emit(graph.SliceOp(value, starts, stops, steps))


def _bound(imp: FxImporter, argument: Any, size: Dim, default: int) -> int:
    """A start or stop: from the front, and −1 for the end of a symbolic size."""
    value = default if argument is None else imp.size(argument)
    if value == size or (isinstance(value, int) and value >= torch.iinfo(torch.int64).max):
        return size if isinstance(size, int) else -1
    if not isinstance(value, int) or (value < 0 and not isinstance(size, int)):
        raise imp.unsupported(f"a slice up to {size_text(value)} of {size_text(size)}")
    if isinstance(size, int):
        value = max(0, min(value + size if value < 0 else value, size))
    return value


@lowers("aten.slice.Tensor")
def lower_slice(imp: FxImporter, node: FxNode) -> SSAValue:
    raw = imp.value(node.args[0])
    fx_dim, start, stop, step = (*node.args[1:], *(None,) * 4)[:4]
    found = imp.dims(node.args[0], int(fx_dim or 0))
    if len(found) == 2 and str(node.meta["val"].shape) == str(node.args[0].meta["val"].shape):
        return raw  # all rows
    dim = imp.dim(node.args[0], int(fx_dim or 0))
    size = shape_of(raw)[dim]
    bounds = _bound(imp, start, size, 0), _bound(imp, stop, size, torch.iinfo(torch.int64).max)
    return cut(imp, raw, dim, *bounds, int(step or 1))


@lowers("aten.select.int")
def lower_select(imp: FxImporter, node: FxNode) -> SSAValue:
    value = imp.value(node.args[0])
    dim, index = imp.dim(node.args[0], int(node.args[1])), imp.size(node.args[2])
    size = shape_of(value)[dim]
    if isinstance(index, int) and index < 0 and isinstance(size, int):
        index += size
    if not isinstance(index, int) or index < 0:
        raise imp.unsupported(f"selecting element {index} of a dimension of {size}")
    return imp.reshape(cut(imp, value, dim, index, index + 1), imp.sizes(node))


def _pieces(imp: FxImporter, value: SSAValue, sizes: Sequence[Dim], dim: int) -> list[SSAValue]:
    pieces: list[SSAValue] = []
    start = 0
    for size in sizes:
        if not isinstance(size, int):
            raise imp.unsupported(f"a piece of symbolic size {size}")
        pieces.append(cut(imp, value, dim, start, start + size))
        start += size
    return pieces


@lowers(
    "aten.split_with_sizes.default", "aten.split.Tensor", "aten.split.sizes", "aten.chunk.default",
    "aten.split_with_sizes_copy.default", "aten.split_copy.Tensor",
)  # fmt: skip
def lower_split(imp: FxImporter, node: FxNode) -> Result:
    fx_dim: Any = node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0)
    dim = imp.dim(node.args[0], fx_dim)
    sizes = [imp.size(part.shape[fx_dim]) for part in node.meta["val"]]
    return _pieces(imp, imp.value(node.args[0]), sizes, dim)


@lowers("aten.unbind.int")
def lower_unbind(imp: FxImporter, node: FxNode) -> Result:
    value = imp.value(node.args[0])
    dim = imp.dim(node.args[0], int(node.args[1]) if len(node.args) > 1 else 0)
    pieces = _pieces(imp, value, [1] * len(node.meta["val"]), dim)
    return [imp.reshape(p, imp.sizes(node, i)) for i, p in enumerate(pieces)]


def lower_getitem(imp: FxImporter, node: FxNode) -> Result:
    source = imp.env[node.args[0]]
    if isinstance(source, tuple | list):
        return source[int(node.args[1])]
    return source  # operators of several results of which only the first is lowered


LOWERINGS[str(operator.getitem)] = lower_getitem


@lowers("aten.cat.default")
def lower_cat(imp: FxImporter, node: FxNode) -> SSAValue:
    fx_dim: Any = node.args[1] if len(node.args) > 1 else 0
    nodes: Any = [x for x in node.args[0] if tuple(x.meta["val"].shape) != (0,)]
    values = [imp.cast(imp.value(x), imp.element(node)) for x in nodes]
    return values[0] if len(values) == 1 else imp.emit(graph.ConcatOp(values, imp.dim(nodes[0], fx_dim)))


@lowers("aten.stack.default")
def lower_stack(imp: FxImporter, node: FxNode) -> SSAValue:
    shape = list(imp.sizes(node))
    dim = imp.dim(node, int(node.args[1]) if len(node.args) > 1 else 0)
    shape[dim] = 1
    values = [imp.reshape(imp.cast(imp.value(x), imp.element(node)), shape) for x in node.args[0]]
    return imp.emit(graph.ConcatOp(values, dim))


@lowers("aten.repeat.default")
def lower_repeat(imp: FxImporter, node: FxNode) -> SSAValue:
    """Copies along a dimension of size 1; other repetitions interleave a new dimension."""
    value = imp.value(node.args[0])
    if any(imp.is_rows(d) for d in node.args[0].meta["val"].shape):
        raise imp.unsupported("repeating a flattened batch")
    counts = [imp.size(x) for x in node.args[1]]
    shape = [1] * (len(counts) - len(shape_of(value))) + list(shape_of(value))
    if all(c == 1 or s == 1 for c, s in zip(counts, shape, strict=True)):
        return imp.broadcast(imp.reshape(value, shape), imp.sizes(node))
    split = [d for s in shape for d in (1, s)]
    wide = [d for c, s in zip(counts, shape, strict=True) for d in (c, s)]
    return imp.reshape(imp.broadcast(imp.reshape(value, split), wide), imp.sizes(node))


@lowers(
    "aten.full.default", "aten.zeros.default", "aten.ones.default", "aten.scalar_tensor.default",
    "aten.full_like.default", "aten.zeros_like.default", "aten.ones_like.default", "aten.new_ones.default",
    "aten.new_zeros.default", "aten.new_full.default",
)  # fmt: skip
def lower_full(imp: FxImporter, node: FxNode) -> SSAValue:
    match str(node.target).split(".")[1].removeprefix("new_").removesuffix("_like"):
        case "zeros":
            fill: Any = 0
        case "ones":
            fill = 1
        case "scalar_tensor":
            fill = node.args[0]
        case _:
            fill = node.args[-1]
    if isinstance(fill, Node):
        raise imp.unsupported("a tensor filled with a size")
    return imp.broadcast(imp.scalar(fill, imp.element(node)), imp.sizes(node))


@lowers(
    "aten.empty.memory_format", "aten.empty_like.default", "aten.new_empty.default",
    "aten.empty_permuted.default",
)  # fmt: skip
def lower_empty(imp: FxImporter, node: FxNode) -> SSAValue:
    """Uninitialized memory, which the model is about to overwrite: zeros."""
    return imp.broadcast(imp.scalar(0, imp.element(node)), imp.sizes(node))


@lowers("aten.slice_scatter.default")
def lower_slice_scatter(imp: FxImporter, node: FxNode) -> SSAValue:
    """``value`` with ``value[…, start:stop, …]`` replaced."""
    value, part = imp.value(node.args[0]), imp.value(node.args[1])
    fx_dim, start, stop, step = (*node.args[2:], *(None,) * 4)[:4]
    dim = imp.dim(node.args[0], int(fx_dim or 0))
    size = shape_of(value)[dim]
    a, b = _bound(imp, start, size, 0), _bound(imp, stop, size, torch.iinfo(torch.int64).max)
    if step not in (None, 1):
        raise imp.unsupported(f"writing a slice of step {step}")
    before = [cut(imp, value, dim, 0, a)] if a else []
    after = [cut(imp, value, dim, b, -1)] if b not in (-1, size) else []
    parts = [*before, imp.cast(part, element_of(value)), *after]
    return parts[0] if len(parts) == 1 else imp.emit(graph.ConcatOp(parts, dim))


@lowers("aten.arange.start_step", "aten.arange.default", "aten.arange.start")
def lower_arange(imp: FxImporter, node: FxNode) -> SSAValue:
    name = str(node.target).split(".")[2]
    start: Any = 0 if name == "default" else node.args[0]
    step: Any = node.args[2] if len(node.args) > 2 else 1
    result = imp.emit(graph.IotaOp(imp.sizes(node), 0))
    element = imp.element(node)
    if not all(isinstance(x, int) for x in (start, step)):
        if isinstance(start, Node) or isinstance(step, Node):
            raise imp.unsupported("a range from a symbolic start")
        result = imp.cast(result, element)
    for number, mnemonic, neutral in ((step, "mul", 1), (start, "add", 0)):
        if number != neutral:
            result = imp.emit(graph.binary(mnemonic, result, imp.scalar(number, element_of(result))))
    return imp.cast(result, element)


@lowers("aten.index.Tensor")
def lower_index(imp: FxImporter, node: FxNode) -> SSAValue:
    """Rows of a table by an index tensor, or fixed positions of one dimension."""
    value = imp.value(node.args[0])
    places = [(d, imp.value(x)) for d, x in enumerate(node.args[1]) if x is not None]
    shape = shape_of(value)
    if len(places) == 1:
        dim, index = places[0]
        if isinstance(index.owner, graph.ConstantOp) and len(shape_of(index)) == 1:
            return _positions(imp, value, imp.dim(node.args[0], dim), index.owner)
        if dim == 0 and len(shape) in (1, 2):
            table = value if len(shape) == 2 else imp.reshape(value, (shape[0], 1))
            rows = imp.emit(graph.EmbeddingOp(table, imp.cast(index, i32)))
            return imp.reshape(rows, imp.sizes(node))
    raise imp.unsupported(f"indexing a tensor of rank {len(shape)} by {len(places)} tensors")


def _positions(imp: FxImporter, value: SSAValue, dim: int, index: graph.ConstantOp) -> SSAValue:
    """The slices of one dimension at constant positions."""
    size = shape_of(value)[dim]
    places = [int(v) for v in index.value.get_values() if not isinstance(v, tuple)]
    places = places * static_shape(index.result)[0] if len(places) == 1 else places
    if min(places) < 0 and not isinstance(size, int):
        raise imp.unsupported("indexing a symbolic dimension from its end")
    starts = [p + size if p < 0 and isinstance(size, int) else p for p in places]
    pieces = [cut(imp, value, dim, start, start + 1) for start in starts]
    return pieces[0] if len(pieces) == 1 else imp.emit(graph.ConcatOp(pieces, dim))


def _matches(imp: FxImporter, index: SSAValue, size: int) -> SSAValue:
    """index[…, k] → predicate[…, k, size], true where an index names the position."""
    ids = imp.reshape(imp.cast(index, i32), (*shape_of(index), 1))
    return imp.emit(graph.binary("eq", ids, imp.emit(graph.IotaOp((size,), 0))))


def _last_size(imp: FxImporter, node: FxNode) -> int:
    """The size of the last dimension, along which alone the operator must work."""
    source, dim = node.args[0], node.args[2 if "topk" in str(node.target) else 1]
    shape = source.meta["val"].shape
    if int(dim) % len(shape) != len(shape) - 1 or not isinstance(shape[-1], int):
        raise imp.unsupported("the operator along another dimension than the last")
    return shape[-1]


@lowers("aten.topk.default")
def lower_topk(imp: FxImporter, node: FxNode) -> Result:
    """The k largest of the last dimension and their places: k times the first maximum, then without it."""
    if len(node.args) > 3 and not node.args[3]:
        raise imp.unsupported("the smallest elements")
    rest, count = imp.value(node.args[0]), int(node.args[1])
    size = node.args[0].meta["val"].shape[-1]
    if len(node.args) > 2:
        size = _last_size(imp, node)
    last = len(shape_of(rest)) - 1
    places = imp.emit(graph.IotaOp((size,), 0))
    none, lowest = imp.scalar(size, i32), imp.scalar(-math.inf, element_of(rest))
    values: list[SSAValue] = []
    indices: list[SSAValue] = []
    for _ in range(count):
        best = imp.emit(graph.ReduceOp(rest, "max", [last], True))
        equal = imp.emit(graph.binary("eq", rest, best))
        first = imp.emit(graph.ReduceOp(imp.emit(graph.WhereOp(equal, places, none)), "min", [last], True))
        rest = imp.emit(graph.WhereOp(imp.emit(graph.binary("eq", places, first)), lowest, rest))
        values.append(best)
        indices.append(first)
    return _side_by_side(imp, values), _side_by_side(imp, indices)


def _side_by_side(imp: FxImporter, columns: Sequence[SSAValue]) -> SSAValue:
    """Tensors [..., 1] as the columns of one, chosen by place: a machine may not write one element alone."""
    places = imp.emit(graph.IotaOp((len(columns),), 0))
    row = columns[0]
    for place, column in enumerate(columns[1:], 1):
        here = imp.emit(graph.binary("eq", places, imp.scalar(place, i32)))
        row = imp.emit(graph.WhereOp(here, column, row))
    return row


@lowers("aten.max.dim")
def lower_max(imp: FxImporter, node: FxNode) -> Result:
    """The maximum along a dimension, and its place in the last one if anyone asks."""
    value = imp.value(node.args[0])
    dim = imp.dim(node.args[0], int(node.args[1]))
    keep = bool(node.args[2]) if len(node.args) > 2 else False
    best = imp.emit(graph.ReduceOp(value, "max", [dim], True))
    found = imp.reshape(best, imp.sizes(node, 0))
    if not any(user.args[1] == 1 for user in node.users):
        return found, found
    places = imp.emit(graph.IotaOp(shape_of(value)[dim:], 0))
    none = imp.scalar(torch.iinfo(torch.int32).max, i32)
    equal = imp.emit(graph.binary("eq", value, best))
    first = imp.emit(graph.WhereOp(equal, places, none))
    return found, imp.emit(graph.ReduceOp(first, "min", [dim], keep))


def _unrepeated(value: SSAValue, dims: tuple[int, ...]) -> SSAValue | None:
    """What is repeated along some dimensions to make a value; the value if there are none."""
    if not dims:
        return value
    if not isinstance(value.owner, graph.BroadcastOp):
        return None
    source = value.owner.input
    shape = (*(1,) * (len(shape_of(value)) - len(shape_of(source))), *shape_of(source))
    changed = {d for d, (a, b) in enumerate(zip(shape, shape_of(value), strict=True)) if a != b}
    return source if changed == set(dims) else None


@lowers("aten.gather.default")
def lower_gather(imp: FxImporter, node: FxNode) -> SSAValue:
    """Elements of the last dimension by index: the sum of the one that matches.

    Along the second dimension, rows of a table that is the same for all of the batch.
    """
    value, index = imp.value(node.args[0]), imp.value(node.args[2])
    table, ids = _unrepeated(value, (0,)), _unrepeated(index, tuple(range(2, len(shape_of(index)))))
    if node.args[1] == 1 and table is not None and ids is not None:
        places, *rest = shape_of(value)[1:]
        rows = imp.reshape(table, (places, *(rest or (1,))))
        return imp.reshape(
            imp.emit(graph.EmbeddingOp(rows, imp.cast(imp.reshape(ids, shape_of(index)[:2]), i32))),
            imp.sizes(node),
        )
    size = _last_size(imp, node)
    shape = shape_of(value)
    rows = imp.reshape(value, (*shape[:-1], 1, shape[-1]))
    zero = imp.scalar(0, element_of(value))
    picked = imp.emit(graph.WhereOp(_matches(imp, index, size), rows, zero))
    return imp.emit(graph.ReduceOp(picked, "sum", [len(shape)], False))


@lowers("aten.scatter.value", "aten.scatter.src")
def lower_scatter(imp: FxImporter, node: FxNode) -> SSAValue:
    """The last dimension with the elements at some indices replaced."""
    size = _last_size(imp, node)
    value, matches = imp.value(node.args[0]), _matches(imp, imp.value(node.args[2]), size)
    rank, element = len(shape_of(value)), imp.element(node)
    hit = imp.emit(graph.ReduceOp(matches, "any", [rank - 1], False))
    source: Any = node.args[3]
    if not isinstance(source, Node):
        return imp.emit(graph.WhereOp(hit, imp.scalar(source, element), value))
    column = imp.reshape(imp.cast(imp.value(source), element), (*shape_of(imp.value(source)), 1))
    spread = imp.emit(graph.WhereOp(matches, column, imp.scalar(0, element)))
    return imp.emit(graph.WhereOp(hit, imp.emit(graph.ReduceOp(spread, "sum", [rank - 1], False)), value))


@lowers("aten.constant_pad_nd.default")
def lower_pad(imp: FxImporter, node: FxNode) -> SSAValue:
    value = imp.value(node.args[0])
    if any(imp.is_rows(d) for d in node.args[0].meta["val"].shape):
        raise imp.unsupported("padding a flattened batch")
    amounts = [int(p) for p in node.args[1]]
    fill = float(node.args[2]) if len(node.args) > 2 else 0.0
    rank = len(shape_of(value))
    low, high = [0] * rank, [0] * rank
    for i, (before, after) in enumerate(zip(amounts[::2], amounts[1::2], strict=True)):
        low[rank - 1 - i], high[rank - 1 - i] = before, after
    if min(low + high) < 0:
        raise imp.unsupported("padding by a negative amount")
    return imp.emit(graph.PadOp(value, low, high, fill))
