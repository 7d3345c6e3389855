"""Lowerings of products, reductions, normalizations and of the operators in `trace_ops`."""

from __future__ import annotations

import math
from typing import Any

import torch
from npuc.frontends.aten_elementwise import as_type
from npuc.frontends.fx_import import FxImporter, FxNode, Result, lowers
from npuc.ir import graph
from npuc.ir.graph import element_of, shape_of, static_shape
from torch.fx import Node
from xdsl.dialects.builtin import i32
from xdsl.ir import SSAValue


@lowers("aten.linear.default")
def lower_linear(imp: FxImporter, node: FxNode) -> SSAValue:
    bias = imp.value(node.args[2]) if len(node.args) > 2 and node.args[2] is not None else None
    return imp.emit(graph.LinearOp(imp.value(node.args[0]), imp.value(node.args[1]), bias))


@lowers("aten.addmm.default", "aten.mm.default", "aten.matmul.default", "aten.bmm.default")
def lower_matmul(imp: FxImporter, node: FxNode) -> SSAValue:
    """A product; with a weight matrix on the right it is a linear of the transposed weight."""
    bias, x, w = (None, *node.args[:2]) if len(node.args) == 2 else node.args[:3]
    if any(node.kwargs.get(k, 1) != 1 for k in ("alpha", "beta")):
        raise imp.unsupported("addmm with alpha or beta")
    left, right = imp.value(x), imp.value(w)
    added = None if bias is None else imp.value(bias)
    matrix = len(shape_of(right)) == 2 and w.meta["val"].ndim == 2
    transposed = imp.rearranged(right, ("permute", (1, 0))) if matrix else None
    if transposed is None and matrix and isinstance(right.owner, graph.TransposeOp):
        transposed = right.owner.input
    if transposed is not None and len(shape_of(left)) > 1:
        return imp.emit(graph.LinearOp(left, transposed, added))
    result = _matmul(imp, left, right)
    return result if added is None else imp.emit(graph.binary("add", result, added))


def _matmul(imp: FxImporter, a: SSAValue, b: SSAValue) -> SSAValue:
    """torch.matmul, where vectors get a dimension of size 1."""
    left, right = len(shape_of(a)) == 1, len(shape_of(b)) == 1
    a = imp.reshape(a, (1, *shape_of(a))) if left else a
    b = imp.reshape(b, (*shape_of(b), 1)) if right else b
    result = imp.emit(graph.MatmulOp(a, b))
    shape = list(shape_of(result))
    if right:
        del shape[-1]
    if left:
        del shape[-1 if right else -2]
    return imp.reshape(result, shape)


@lowers("aten.convolution.default")
def lower_convolution(imp: FxImporter, node: FxNode) -> SSAValue:
    """Patches that do not overlap: each is a row of a linear."""
    x, w, bias, stride, padding, dilation, transposed, _, groups = node.args
    value, weight = imp.value(x), imp.value(w)
    kernel, sizes = static_shape(weight)[2:], shape_of(value)[2:]
    plain = not any(padding) and all(d == 1 for d in dilation) and not transposed and groups == 1
    grid = [n // k for n, k in zip(sizes, kernel, strict=True) if isinstance(n, int) and n % k == 0]
    if not plain or tuple(stride) != kernel or len(grid) < len(kernel):
        raise imp.unsupported("a convolution whose patches overlap or are padded")
    batch, channels, rank = shape_of(value)[0], static_shape(weight)[1], len(kernel)
    split = [d for pair in zip(grid, kernel, strict=True) for d in pair]
    patches = imp.reshape(value, (batch, channels, *split))
    order = [0, *range(2, 2 + 2 * rank, 2), 1, *range(3, 3 + 2 * rank, 2)]
    inner = math.prod((channels, *kernel))
    rows = imp.reshape(imp.transpose(patches, order), (batch, *grid, inner))
    matrix = imp.reshape(weight, (shape_of(weight)[0], inner))
    result = imp.emit(graph.LinearOp(rows, matrix, None if bias is None else imp.value(bias)))
    return imp.transpose(result, [0, rank + 1, *range(1, rank + 1)])


@lowers("aten.embedding.default")
def lower_embedding(imp: FxImporter, node: FxNode) -> SSAValue:
    return imp.emit(graph.EmbeddingOp(imp.value(node.args[0]), imp.cast(imp.value(node.args[1]), i32)))


_REDUCTIONS = {
    "mean": "mean", "sum": "sum", "amax": "max", "amin": "min", "any": "any", "all": "all",
}  # fmt: skip


@lowers(
    "aten.mean.dim", "aten.sum.dim_IntList", "aten.amax.default", "aten.amin.default", "aten.any.dim",
    "aten.any.dims", "aten.all.dim", "aten.mean.default", "aten.sum.default", "aten.any.default",
    "aten.all.default", "aten.max.default", "aten.min.default",
)  # fmt: skip
def lower_reduce(imp: FxImporter, node: FxNode) -> SSAValue:
    name = str(node.target).split(".")[1]
    kind = _REDUCTIONS.get(name, name)
    value = as_type(imp, imp.value(node.args[0]), imp.element(node))
    dims: Any = node.args[1] if len(node.args) > 1 else None
    if not dims and dims != 0:
        dims = list(range(node.args[0].meta["val"].ndim))
    dims = imp.dims(node.args[0], *([dims] if isinstance(dims, int) else dims))
    keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    return imp.reshape(imp.emit(graph.ReduceOp(value, kind, dims, keep)), imp.sizes(node))


@lowers("aten.var.correction")
def lower_var(imp: FxImporter, node: FxNode) -> SSAValue:
    value = imp.value(node.args[0])
    dims = imp.dims(node.args[0], *node.args[1])
    keep = bool(node.kwargs.get("keepdim", False))
    correction: Any = node.kwargs.get("correction", 1)
    centred = imp.emit(graph.binary("sub", value, imp.emit(graph.ReduceOp(value, "mean", dims, True))))
    square = imp.emit(graph.binary("mul", centred, centred))
    result = imp.emit(graph.ReduceOp(square, "mean", dims, keep))
    if not correction:
        return result
    count = 1
    for d in dims:
        size = shape_of(value)[d]
        if not isinstance(size, int):
            raise imp.unsupported("an unbiased variance over a symbolic size")
        count *= size
    factor = imp.scalar(count / (count - correction), element_of(value))
    return imp.emit(graph.binary("mul", result, factor))


@lowers("aten._softmax.default", "aten.softmax.int")
def lower_softmax(imp: FxImporter, node: FxNode) -> SSAValue:
    value = imp.cast(imp.value(node.args[0]), imp.element(node))
    return imp.emit(graph.SoftmaxOp(value, imp.dim(node.args[0], int(node.args[1]))))


def _norm_arguments(imp: FxImporter, node: FxNode, count: int) -> tuple[SSAValue, list[SSAValue | None], Any]:
    """The input, the optional vectors and eps of a norm over the last dimension."""
    value = imp.value(node.args[0])
    if len(node.args[1]) != 1:
        raise imp.unsupported("a normalization over several dimensions")
    rest = (*node.args[2:], *(None,) * 3)
    vectors = [imp.value(v) if isinstance(v, Node) else None for v in rest[:count]]
    return value, vectors, rest[count]


@lowers("aten.layer_norm.default")
def lower_layer_norm(imp: FxImporter, node: FxNode) -> SSAValue:
    value, (weight, bias), eps = _norm_arguments(imp, node, 2)
    eps = 1e-5 if eps is None else float(eps)
    return imp.emit(graph.LayerNormOp(value, weight, bias, eps))


@lowers("aten.rms_norm.default")
def lower_rms_norm(imp: FxImporter, node: FxNode) -> SSAValue:
    value, (weight,), eps = _norm_arguments(imp, node, 1)
    if weight is None:
        one = imp.scalar(1.0, imp.element(node))
        weight = imp.broadcast(one, [imp.size(node.meta["val"].shape[-1])])
    eps = torch.finfo(node.meta["val"].dtype).eps if eps is None else float(eps)
    return imp.emit(graph.RmsNormOp(value, weight, eps))


@lowers("npuc.kv_update.default")
def lower_kv_update(imp: FxImporter, node: FxNode) -> Result:
    if imp.cache is None:
        raise imp.unsupported("a cache update outside the repeated layers")
    op = graph.KvUpdateOp(imp.value(node.args[0]), imp.value(node.args[1]), imp.cache)
    imp.emit(op)
    op.keys.name_hint, op.values.name_hint = "keys", "values"
    return tuple(op.results)


@lowers("npuc.attention.default")
def lower_attention(imp: FxImporter, node: FxNode) -> SSAValue:
    query, keys, values, mask, scale, softcap = node.args
    where = None if mask is None else imp.value(mask)
    tensors = imp.value(query), imp.value(keys), imp.value(values)
    return imp.emit(graph.AttentionOp(*tensors, where, float(scale), float(softcap)))


@lowers("npuc.select_rows.default")
def lower_select_rows(imp: FxImporter, node: FxNode) -> SSAValue:
    return imp.emit(graph.SelectRowsOp(imp.value(node.args[0])))


@lowers("npuc.layers.default")
def lower_layers(imp: FxImporter, node: FxNode) -> Result:
    if imp.layers is None:
        raise imp.unsupported("repeated layers inside a repeated layer")
    return tuple(imp.layers(imp, node))
