"""Random functions of static sizes over all operations of `graph` on tensors, of `nquant` and of `dist`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod

from hypothesis import strategies as st
from npuc.ir import dist, graph
from npuc.ir.graph_elementwise import ARITHMETIC_NAMES, COMPARISON_NAMES, UNARY_NAMES
from npuc.ir.graph_types import element_of, static_shape
from npuc.ir.nquant import DequantizeOp, QuantizedType, QuantizeOp, SchemeAttr
from xdsl.dialects.builtin import (
    DenseIntOrFPElementsAttr,
    Float8E4M3FNType,
    Float8E5M2Type,
    FunctionType,
    IntegerType,
    ModuleOp,
    Signedness,
    TensorType,
    bf16,
    f32,
    i1,
    i8,
    i32,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue

SIZES = st.sampled_from([2, 1, 3, 4, 6, 7])
SHAPES = st.lists(SIZES, min_size=1, max_size=4).map(tuple)
MESH = dist.MeshAttr.of(dp=2, tp=2)
AXES = (["tp"], ["dp"], ["dp", "tp"])
UI4, UI8 = (IntegerType(width, Signedness.UNSIGNED) for width in (4, 8))
STORAGES = (i8, IntegerType(4), UI8, UI4, Float8E4M3FNType(), Float8E5M2Type())


@dataclass
class Function:
    """A function under construction, and the values that it may use."""

    draw: st.DrawFn
    block: Block = field(default_factory=Block)
    values: list[SSAValue] = field(default_factory=list[SSAValue])

    def add(self, op: Operation) -> SSAValue:
        self.block.add_op(op)
        return op.results[0]

    def choose(self, *choices: object) -> object:
        return self.draw(st.sampled_from(choices))

    def flag(self) -> bool:
        return self.draw(st.booleans())

    def value(self, shape: tuple[int, ...], element: Attribute) -> SSAValue:
        """A value of a type: one that there is, or an argument."""
        kind = TensorType(element, shape)
        known = [v for v in self.values if v.type == kind]
        if known and self.flag():
            return self.draw(st.sampled_from(known))
        argument = self.block.insert_arg(kind, len(self.block.args))
        self.values.append(argument)
        return argument

    def some(self, *elements: Attribute) -> SSAValue:
        """Any tensor of one of some types."""
        known = [v for v in self.values if element_of(v) in elements and static_shape(v)]
        if known and self.draw(st.integers(0, 3)):
            return self.draw(st.sampled_from(known))
        return self.value(self.draw(SHAPES), self.draw(st.sampled_from(elements)))

    def constant(self, values: list[float], shape: tuple[int, ...], element: Attribute) -> SSAValue:
        kind: TensorType[Attribute] = TensorType(element, shape)
        return self.add(graph.ConstantOp(DenseIntOrFPElementsAttr.from_list(kind, values)))  # pyright: ignore


def _unary(f: Function) -> SSAValue:
    name = f.draw(st.sampled_from(UNARY_NAMES))
    return f.add(graph.unary(name, f.some(*((i1,) if name == "not" else (f32, bf16)))))


def _binary(f: Function) -> SSAValue:
    name = f.draw(st.sampled_from((*ARITHMETIC_NAMES, *COMPARISON_NAMES)))
    whole = name in ("and", "or", "floordiv", "mod")
    lhs = f.some(*((i32,) if whole else (f32, bf16, i32) if name not in ("div", "pow") else (f32, bf16)))
    shape, element = static_shape(lhs), element_of(lhs)
    if whole:
        return f.add(graph.binary(name, lhs, f.constant([f.draw(st.integers(1, 5))], (), i32)))
    drop = f.draw(st.integers(0, len(shape)))
    other = tuple(1 if f.flag() else n for n in shape[drop:])
    return f.add(graph.binary(name, lhs, f.value(other, element)))


def _where(f: Function) -> SSAValue:
    a = f.some(f32, bf16, i32)
    shape, element = static_shape(a), element_of(a)
    return f.add(graph.WhereOp(f.value(shape, i1), a, f.value(shape[1:] if f.flag() else shape, element)))


def _cast(f: Function) -> SSAValue:
    return f.add(graph.CastOp(f.some(f32, bf16, i32, i1), f.choose(f32, bf16, i32)))  # pyright: ignore


def _made(f: Function) -> SSAValue:
    shape = f.draw(SHAPES)
    if f.flag():
        return f.add(graph.IotaOp(shape, f.draw(st.integers(0, len(shape) - 1))))
    values = [f.draw(st.sampled_from([0.0, 1.0, -2.5, 0.125]))] * (1 if f.flag() else prod(shape))
    return f.constant(values, shape, f.choose(f32, bf16))  # pyright: ignore


def _reduce(f: Function) -> SSAValue:
    kind = str(f.choose(*graph.REDUCE_KINDS))
    x = f.some(*((i1,) if kind in ("any", "all") else (f32, bf16)))
    dims = f.draw(st.sets(st.integers(0, len(static_shape(x)) - 1), min_size=1))
    return f.add(graph.ReduceOp(x, kind, sorted(dims), f.flag() or len(dims) == len(static_shape(x))))


def _shape(f: Function) -> SSAValue:
    x = f.some(f32, bf16, i32)
    shape = static_shape(x)
    match f.choose("reshape", "transpose", "broadcast", "slice", "pad", "concat", "flat"):
        case "reshape":
            return f.add(graph.ReshapeOp(x, f.draw(st.permutations([*shape, 1]))))
        case "flat":
            return f.add(graph.ReshapeOp(x, [prod(shape)]))
        case "transpose":
            return f.add(graph.TransposeOp(x, f.draw(st.permutations(range(len(shape))))))
        case "broadcast":
            return f.add(
                graph.BroadcastOp(x, [f.draw(SIZES), *(n if n > 1 else f.draw(SIZES) for n in shape)])
            )
        case "slice":
            ranges = [sorted(f.draw(st.tuples(st.integers(0, n - 1), st.integers(1, n)))) for n in shape]
            starts = [min(a, b - 1) for a, b in ranges]
            stops = [-1 if f.flag() else b for _, b in ranges]
            return f.add(graph.SliceOp(x, starts, stops, [f.draw(st.integers(1, 3)) for _ in shape]))
        case "pad":
            low, high = ([f.draw(st.integers(0, 2)) for _ in shape] for _ in range(2))
            return f.add(graph.PadOp(x, low, high, float(f.draw(st.integers(-1, 2)))))
        case _:
            dim = f.draw(st.integers(0, len(shape) - 1))
            other = (*shape[:dim], f.draw(SIZES), *shape[dim + 1 :])
            return f.add(graph.ConcatOp([x, f.value(other, element_of(x))], dim))


def _product(f: Function) -> SSAValue:
    x = f.some(f32, bf16)
    shape, element, n = static_shape(x), element_of(x), f.draw(SIZES)
    if len(shape) > 1 and f.flag():
        return f.add(graph.MatmulOp(x, f.value((*shape[:-2], shape[-1], n), element)))
    bias = f.value((n,), element) if f.flag() else None
    scale = f.value((n,) if f.flag() else (), f32) if f.flag() else None
    return f.add(graph.LinearOp(x, f.value((n, list(shape)[-1]), element), bias, scale, element))


def _norm(f: Function) -> SSAValue:
    x = f.some(f32, bf16)
    size, element = static_shape(x)[-1:][0], element_of(x)
    match f.choose("softmax", "rms", "layer", "gated"):
        case "softmax":
            return f.add(graph.SoftmaxOp(x, f.draw(st.integers(0, len(static_shape(x)) - 1))))
        case "rms":
            return f.add(graph.RmsNormOp(x, f.value((size,), element), 1e-5, float(f.flag())))
        case "layer":
            weight, bias = (f.value((size,), element) if f.flag() else None for _ in range(2))
            return f.add(graph.LayerNormOp(x, weight, bias, 1e-5))
        case _:
            up = f.value(static_shape(x), element)
            return f.add(graph.GatedOp(x, up, str(f.choose("silu", "gelu", "gelu_tanh", "relu"))))


def _embedding(f: Function) -> SSAValue:
    rows = f.draw(SIZES)
    ids = f.add(graph.binary("mod", f.some(i32), f.constant([rows], (), i32)))
    return f.add(graph.EmbeddingOp(f.value((rows, f.draw(SIZES)), f.choose(f32, bf16)), ids))  # pyright: ignore


def _heads(f: Function) -> SSAValue:
    element: Attribute = f.choose(f32, bf16)  # pyright: ignore
    batch, rows, ctx = f.draw(SIZES), f.draw(SIZES), f.draw(SIZES)
    groups, each, size = f.draw(st.integers(1, 2)), f.draw(st.integers(1, 3)), 2 * f.draw(st.integers(1, 4))
    query = f.value((batch, groups * each, rows, size), element)
    if f.flag():
        table = (batch if f.flag() else 1, rows, 2 * f.draw(st.integers(1, size // 2)))
        return f.add(graph.RopeOp(query, f.value(table, element), f.value(table, element), f.flag()))
    keys, values = (f.value((batch, groups, ctx, n), element) for n in (size, f.draw(SIZES)))
    mask_shape = (batch if f.flag() else 1, groups * each if f.flag() else 1, rows, ctx)
    mask = f.value(mask_shape, i1) if f.flag() else None
    softcap = float(f.draw(st.sampled_from([0, 3])))
    return f.add(graph.AttentionOp(query, keys, values, mask, size**-0.5, softcap))


def _rows(f: Function) -> SSAValue:
    """Elementwise work on tiles of a tensor's rows."""
    x = f.value((f.draw(SIZES), 6, f.draw(SIZES)), f32)
    tile = list(static_shape(x))
    tile[1] = f.draw(st.sampled_from([1, 2, 3, 6]))
    vector = f.value((tile[2],), f32)
    body = Block(arg_types=[TensorType(f32, tile), vector.type])
    scaled = graph.binary("mul", *body.args)
    bounded = graph.unary("tanh", scaled.results[0])
    body.add_ops([scaled, bounded, graph.YieldOp([bounded.result])])
    return f.add(graph.RowsOp([x, vector], [1, -1], [1], body, [x.type]))


def _quantized(f: Function) -> SSAValue:
    """There and back through a random scheme."""
    x = f.some(f32, bf16)
    shape, storage = static_shape(x), f.draw(st.sampled_from(STORAGES))
    granularity, axis = str(f.choose("tensor", "channel", "group")), f.draw(st.integers(0, len(shape) - 1))
    group = f.draw(st.sampled_from([n for n in range(1, shape[axis] + 1) if shape[axis] % n == 0]))
    points = storage in (UI4, UI8)
    axis, group = (0 if granularity == "tensor" else axis), (group if granularity == "group" else 0)
    scheme = SchemeAttr.of(storage, element_of(x), granularity, axis, group, zero_point=points)
    parameters = tuple(n for n in scheme.scale_shape(shape) if isinstance(n, int))
    scale = f.constant([0.125] * prod(parameters), parameters, f32)
    zero = f.value(parameters, i32) if points else None
    stored = f.add(QuantizeOp(x, scale, TensorType(QuantizedType(scheme), shape), zero))
    if f.flag():
        stored = f.add(graph.ReshapeOp(stored, shape))
    return f.add(DequantizeOp(stored, scale, TensorType(element_of(x), shape), zero))


def _collective(f: Function) -> SSAValue:
    x = f.some(f32)
    shape, over = static_shape(x), f.draw(st.sampled_from(AXES))
    dim, ranks = f.draw(st.integers(0, len(shape) - 1)), MESH.size_over(over)
    kind = str(f.choose(*dist.KINDS))

    def resized(size: int) -> TensorType[Attribute]:
        return TensorType(f32, (*shape[:dim], size, *shape[dim + 1 :]))

    gathered = f.add(dist.AllGatherOp(x, dim, over, MESH, resized(shape[dim] * ranks)))
    match f.choose("reduce", "gather", "scatter", "slice"):
        case "reduce":
            return f.add(dist.AllReduceOp(x, kind, over, MESH))
        case "gather":
            return gathered
        case "scatter":
            return f.add(dist.ReduceScatterOp(gathered, kind, dim, over, MESH, resized(shape[dim])))
        case _:
            return f.add(dist.ShardSliceOp(gathered, dim, over, MESH, resized(shape[dim])))


STEPS: dict[str, Callable[[Function], SSAValue]] = {
    "unary": _unary,
    "binary": _binary,
    "shape": _shape,
    "cast": _cast,
    "where": _where,
    "made": _made,
    "reduce": _reduce,
    "product": _product,
    "norm": _norm,
    "embedding": _embedding,
    "heads": _heads,
    "rows": _rows,
}


@st.composite
def functions(draw: st.DrawFn, dialect: str) -> ModuleOp:
    """A module with one function, with operations of `graph` and, if it is another one, of the dialect."""
    f = Function(draw)
    own = {"graph": {}, "nquant": {"quantized": _quantized}, "dist": {"collective": _collective}}[dialect]
    names = list(own) * 4 + list(STEPS)
    for name in draw(st.lists(st.sampled_from(names), min_size=1, max_size=8)):
        made = ({**STEPS, **own})[name](f)
        if prod(static_shape(made)) <= 4096:
            f.values.append(made)
    results = [v for v in f.values if v.owner is not f.block] or f.values
    chosen = results[-draw(st.integers(1, 3)) :]
    f.block.add_op(ReturnOp(*chosen))
    kind = FunctionType.from_lists([a.type for a in f.block.args], [v.type for v in chosen])
    module = ModuleOp([FuncOp("main", kind, Region(f.block))])
    module.verify()
    return module
