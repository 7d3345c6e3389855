"""Which dimensions of a module's tensors can be cut over ranks, found from the data flow alone.

Every operation ties dimensions of its operands to dimensions of its results: an elementwise operation those
at the same place, a linear layer its weight's rows to the last of its result, and so on. Dimensions that are
tied are cut together or not at all. A class of them can be cut where it begins at rows of weights and ends in
contractions, whose partial sums the ranks then add, or in the logits. Whatever else meets a class (a softmax
over it, a residual stream, an index) blocks it. So heads, their caches and the inner features of an MLP are
found, whatever the model calls them.

A dimension of a class consists of `blocks` equal parts, outermost first: heads · size of as many as it has
heads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from math import gcd, prod
from typing import Any

from npuc.ir import graph
from npuc.passes.algorithms.ties import Ties
from npuc.passes.roles import is_head
from npuc.passes.specialized import buckets_of
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import CallOp, FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue

Dimension = tuple[SSAValue, int]
Key = Dimension | str
"""A dimension of a value, or the name of a cache, which stands for its heads."""


@dataclass
class Cut:
    """A class of dimensions to be cut.

    Attributes:
        blocks: the parts that may not be cut.
        dims: of values.
        caches: names of caches whose heads are the blocks.
        contracted: linear layers that sum over it.
        keys: of the attention it is a class of heads of: the class of its keys' heads.
    """

    blocks: int
    dims: list[Dimension]
    caches: list[str]
    contracted: list[graph.LinearOp] = field(default_factory=list[graph.LinearOp])
    keys: Cut | None = None


@dataclass
class _Analysis:
    ties: Ties[Key] = field(default_factory=Ties[Key])
    begun: list[Dimension] = field(default_factory=list[Dimension])
    contracted: list[tuple[graph.LinearOp, Dimension]] = field(default_factory=list)
    ended: list[Dimension] = field(default_factory=list[Dimension])
    heads: list[tuple[Dimension, Dimension]] = field(default_factory=list[tuple[Dimension, Dimension]])

    def last(self, value: SSAValue) -> Dimension:
        """A value's last dimension."""
        return value, len(sizes(value)) - 1

    def tie_all(self, a: SSAValue, b: SSAValue, skip: Sequence[int] = ()) -> None:
        """Ties dimensions at the same place, counted from the last, where they have the same size."""
        shift = len(sizes(b)) - len(sizes(a))
        for dim, size in enumerate(sizes(a)):
            other = dim + shift
            if other >= 0 and other not in skip and sizes(b)[other] == size:
                self.ties.tie((a, dim), (b, other))

    def block_all(self, values: Sequence[SSAValue], reason: str) -> None:
        """Blocks every dimension of some values."""
        for value in values:
            for dim in range(len(sizes(value))):
                self.ties.block((value, dim), reason)


Rule = Callable[[_Analysis, Any], None]


def sizes(value: SSAValue) -> tuple[int, ...]:
    """The static shape of a value; nothing for what is no tensor."""
    return graph.static_shape(value) if isinstance(value.type, TensorType) else ()


def _elementwise(found: _Analysis, op: Operation) -> None:
    for operand in op.operands:
        found.tie_all(operand, op.results[0])


def _linear(found: _Analysis, op: graph.LinearOp) -> None:
    inner, outer = found.last(op.input), found.last(op.result)
    found.tie_all(op.input, op.result, [outer[1]])
    found.ties.tie((op.weight, 0), outer)
    found.ties.tie(inner, (op.weight, 1))
    found.contracted.append((op, inner))
    for vector in (op.bias, op.scale):
        if vector is not None and sizes(vector):
            found.ties.tie((vector, 0), outer)
    if isinstance(op.weight.owner, graph.ParamOp):
        found.begun.append(outer)


def _matmul(found: _Analysis, op: graph.MatmulOp) -> None:
    rank = len(sizes(op.result))
    for operand in op.operands:
        found.ties.block(found.last(operand), "a product of activations sums over it")
    found.tie_all(op.lhs, op.result, [rank - 1])
    found.ties.block((op.rhs, len(sizes(op.rhs)) - 2), "a product of activations sums over it")
    found.tie_all(op.rhs, op.result, [rank - 2])


def _embedding(found: _Analysis, op: graph.EmbeddingOp) -> None:
    found.ties.block((op.table, 0), "indices look it up")
    found.ties.tie((op.table, 1), found.last(op.result))
    found.block_all([op.ids], "it is an index")


def _reshape(found: _Analysis, op: graph.ReshapeOp) -> None:
    """The outermost of the dimensions that become one, or that one becomes, is cut; the others stay whole."""
    source, target = sizes(op.input), sizes(op.result)
    for before, after in _groups(source, target):
        wide = [[d for d in dims if shape[d] > 1] for dims, shape in ((before, source), (after, target))]
        firsts = [dims[0] for dims in wide if dims]
        if len(firsts) == 2:
            found.ties.tie((op.input, firsts[0]), (op.result, firsts[1]))
        for value, dims in ((op.input, wide[0]), (op.result, wide[1])):
            for dim in dims[1:]:
                found.ties.block((value, dim), "it is the inner part of a dimension")


def _groups(source: Sequence[int], target: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Runs of dimensions, of as many elements on both sides."""
    i = j = 0
    while i < len(source) or j < len(target):
        before, after = [i] if i < len(source) else [], [j] if j < len(target) else []
        i, j = i + len(before), j + len(after)
        while (a := prod(source[d] for d in before)) != (b := prod(target[d] for d in after)):
            if a < b:
                before.append(i)
                i += 1
            else:
                after.append(j)
                j += 1
        yield before, after


def _transpose(found: _Analysis, op: graph.TransposeOp) -> None:
    for dim, source in enumerate(graph.ints(op.perm)):
        found.ties.tie((op.input, source), (op.result, dim))


def _same_sizes(found: _Analysis, op: Operation) -> None:
    """Where a dimension is taken apart or grows, it is not cut."""
    for operand in op.operands:
        for dim, (size, new) in enumerate(zip(sizes(operand), sizes(op.results[0]), strict=True)):
            if size == new:
                found.ties.tie((operand, dim), (op.results[0], dim))
            else:
                found.ties.block((operand, dim), f"{op.name} takes part of it")
                found.ties.block((op.results[0], dim), f"{op.name} makes it of parts")


def _reduce(found: _Analysis, op: graph.ReduceOp) -> None:
    dims, result = graph.ints(op.dims), 0
    for dim in range(len(sizes(op.input))):
        if dim in dims:
            found.ties.block((op.input, dim), f"graph.reduce {op.kind.data} runs over it")
            result += int(bool(op.keepdims.value.data))
        else:
            found.ties.tie((op.input, dim), (op.result, result))
            result += 1


def _over(dim: Callable[[Any], int]) -> Rule:
    """Elementwise but along one dimension."""

    def rule(found: _Analysis, op: Operation) -> None:
        _elementwise(found, op)
        found.ties.block((op.results[0], dim(op) % len(sizes(op.results[0]))), f"{op.name} runs over it")

    return rule


def _rope(found: _Analysis, op: graph.RopeOp) -> None:
    found.tie_all(op.input, op.result)
    found.ties.block(found.last(op.result), "graph.rope turns pairs of it")
    found.block_all([op.cos, op.sin], "it is a table")


def _kv_update(found: _Analysis, op: graph.KvUpdateOp) -> None:
    for operand, result in ((op.key, op.keys), (op.value, op.values)):
        flat = len(sizes(operand)) == 3
        found.ties.tie((operand, 2 if flat else 1), (result, 1))
        found.ties.tie((result, 1), op.cache.string_value())


def _attention(found: _Analysis, op: graph.AttentionOp) -> None:
    found.ties.tie((op.query, 1), (op.result, 2))
    found.ties.tie((op.keys, 1), (op.values, 1))
    for value in (op.query, op.keys, op.values, op.result):
        found.ties.block(found.last(value), "it is within a head")
    if op.mask is not None and sizes(op.mask)[1] > 1:
        found.ties.tie((op.mask, 1), (op.query, 1))
    found.heads.append(((op.query, 1), (op.keys, 1)))


def _rows(found: _Analysis, op: graph.RowsOp) -> None:
    for outside, inside in zip(op.inputs, op.body.block.args, strict=True):
        found.tie_all(outside, inside)
    for outside, inside in zip(op.outputs, op.yielded.values, strict=True):
        found.tie_all(outside, inside)


def _return(found: _Analysis, op: ReturnOp) -> None:
    """Logits may be gathered; whatever else a function gives is whole."""
    function = op.parent_op()
    assert isinstance(function, FuncOp)
    for value in op.operands:
        if not is_head(function):
            found.block_all([value], "it is carried from layer to layer")
            continue
        found.ended.append(found.last(value))
        for dim in range(len(sizes(value)) - 1):
            found.ties.block((value, dim), "it is a row of logits")


def _whole(found: _Analysis, op: Operation) -> None:
    found.block_all([*op.operands, *op.results], f"{op.name} takes it as a whole")


def _nothing(found: _Analysis, op: Operation) -> None:
    """A weight can be cut along any dimension."""


def _constant(found: _Analysis, op: Operation) -> None:
    found.block_all(op.results, "it is a table")


RULES: dict[type[Operation], Rule] = {
    **dict.fromkeys(graph.UNARY.values(), _elementwise),
    **dict.fromkeys(graph.BINARY.values(), _elementwise),
    **dict.fromkeys((graph.WhereOp, graph.CastOp, graph.GatedOp, graph.BroadcastOp), _elementwise),
    **dict.fromkeys((graph.SliceOp, graph.PadOp, graph.ConcatOp, graph.SelectRowsOp), _same_sizes),
    **dict.fromkeys((graph.RmsNormOp, graph.LayerNormOp), _over(lambda op: -1)),
    **dict.fromkeys((graph.ConstantOp, graph.IotaOp), _constant),
    **dict.fromkeys((graph.ParamOp, graph.YieldOp), _nothing),
    graph.SoftmaxOp: _over(lambda op: op.dim.value.data),
    graph.LinearOp: _linear,
    graph.MatmulOp: _matmul,
    graph.EmbeddingOp: _embedding,
    graph.ReshapeOp: _reshape,
    graph.TransposeOp: _transpose,
    graph.ReduceOp: _reduce,
    graph.RopeOp: _rope,
    graph.KvUpdateOp: _kv_update,
    graph.AttentionOp: _attention,
    graph.RowsOp: _rows,
    ReturnOp: _return,
}


def cuts(module: ModuleOp) -> list[Cut]:
    """The classes of dimensions to cut in all static programs of a module, queries' before their keys'."""
    found = _Analysis()
    for bucket in buckets_of(module):
        for function in bucket.body.block.ops:
            if isinstance(function, FuncOp) and not any(isinstance(op, CallOp) for op in function.walk()):
                found.block_all(function.body.block.args, "it is carried from layer to layer")
                for op in list(function.walk())[1:]:
                    RULES.get(type(op), _whole)(found, op)
    return _chosen(found)


def _chosen(found: _Analysis) -> list[Cut]:
    """The classes that begin at weights, end in sums or logits, and are not blocked."""
    ties = found.ties
    begun = {ties.root(key) for key in found.begun}
    ended = {ties.root(key) for key in found.ended} | {ties.root(key) for _, key in found.contracted}
    result: dict[Key, Cut] = {}
    for keys in ties.classes():
        root = ties.root(keys[0])
        dims = [key for key in keys if not isinstance(key, str)]
        blocks = reduce(gcd, (sizes(value)[dim] for value, dim in dims), 0)
        if root in begun and not ties.reason(root) and blocks > 1:
            result[root] = Cut(blocks, dims, [key for key in keys if isinstance(key, str)])
    _link_heads(found, result, ended)
    for op, key in found.contracted:
        if ties.root(key) in result:
            result[ties.root(key)].contracted.append(op)
    return list(_apart(sorted(result.values(), key=lambda cut: cut.keys is None)))


def _apart(found: Sequence[Cut]) -> Iterator[Cut]:
    """Those classes that do not cut a tensor a second time, keys' with their queries'."""
    held: set[SSAValue] = set()
    dropped: list[Cut] = []
    for cut in found:
        own = {value for value, _ in cut.dims} | {value for value, _ in (cut.keys.dims if cut.keys else ())}
        if cut in dropped or (own & held and all(other.keys is not cut for other in found)):
            dropped += [] if cut.keys is None else [cut.keys]
            continue
        held |= {value for value, _ in cut.dims}
        yield cut


def _link_heads(found: _Analysis, result: dict[Key, Cut], ended: set[Key]) -> None:
    """Queries and keys are cut together, unless one head of keys serves all; nothing else may end nowhere."""
    for query, keys in found.heads:
        a, b = found.ties.root(query), found.ties.root(keys)
        whole_keys = sizes(keys[0])[1] == 1
        fits = a == b or (a in result and result[a].blocks == sizes(query[0])[1])
        fits = fits and (whole_keys or (b in result and (a == b or result[b].blocks == sizes(keys[0])[1])))
        if not fits or a not in ended:
            result.pop(a, None)
            result.pop(b, None)
        elif a != b and not whole_keys:
            result[a].keys = result[b]
    linked = [cut.keys for cut in result.values()]
    for root in list(result):
        if root not in ended and all(result[root] is not keys for keys in linked):
            del result[root]
