"""The `graph` dialect: tensor programs as the frontends import them.

Operations, attributes and the meaning of symbolic dimensions are tabulated in docs/design.md,
section 3; their values are defined by the kernel table (`npuc.ir.kernels`).
"""

from __future__ import annotations

from collections.abc import Sequence

from npuc.ir.graph_rows import RowsOp as RowsOp
from npuc.ir.graph_rows import YieldOp as YieldOp
from npuc.ir.shapes import Dim, broadcast_shapes
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AffineMapAttr,
    AnyFloat,
    ArrayAttr,
    BoolAttr,
    DenseArrayBase,
    DenseIntOrFPElementsAttr,
    DictionaryAttr,
    FlatSymbolRefAttrConstr,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    SymbolNameConstraint,
    SymbolRefAttr,
    TensorType,
    f32,
    i1,
    i32,
    i64,
)
from xdsl.ir import Attribute, Dialect, Operation, ParametrizedAttribute, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineExpr, AffineMap
from xdsl.irdl import (
    AttrSizedOperandSegments,
    IRDLOperation,
    attr_def,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    opt_attr_def,
    opt_operand_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import MemoryReadEffect, MemoryWriteEffect, Pure, SymbolOpInterface
from xdsl.utils.exceptions import VerifyException

BATCH, SEQ, CTX = (AffineExpr.dimension(i) for i in range(3))


@irdl_attr_definition
class DimsAttr(ParametrizedAttribute):
    """Symbolic sizes of a tensor: a map (batch, seq, ctx) → one size per dimension."""

    name = "graph.dims"
    map: AffineMapAttr


def tensor_type(shape: Sequence[Dim], element: Attribute) -> TensorType[Attribute]:
    """The tensor type of this shape; symbolic sizes go to the encoding."""
    if all(isinstance(d, int) for d in shape):
        return TensorType(element, [d for d in shape if isinstance(d, int)])
    exprs = tuple(AffineExpr.constant(d) if isinstance(d, int) else d for d in shape)
    sizes = [d if isinstance(d, int) else DYNAMIC_INDEX for d in shape]
    return TensorType(element, sizes, DimsAttr(AffineMapAttr(AffineMap(3, 0, exprs))))


def shape_of(value: SSAValue | Attribute) -> tuple[Dim, ...]:
    """Sizes of a tensor value or type: integers, or affine expressions over (batch, seq, ctx)."""
    kind = value.type if isinstance(value, SSAValue) else value
    assert isinstance(kind, TensorType)
    if isinstance(kind.encoding, DimsAttr):
        results = kind.encoding.map.data.results
        return tuple(e.value if isinstance(e, AffineConstantExpr) else e for e in results)
    return kind.get_shape()


def static_shape(value: SSAValue | Attribute) -> tuple[int, ...]:
    """Sizes of a tensor that has no symbolic dimensions.

    Raises:
        VerifyException: when a size is symbolic.
    """
    shape = shape_of(value)
    if not all(isinstance(d, int) for d in shape):
        raise VerifyException(f"expected a static shape, got {shape}")
    return tuple(d for d in shape if isinstance(d, int))


def element_of(value: SSAValue | Attribute) -> Attribute:
    """The element type of a tensor value or type."""
    kind = value.type if isinstance(value, SSAValue) else value
    assert isinstance(kind, TensorType)
    return kind.element_type


class GraphOp(IRDLOperation):
    """Base of the pure operations with one tensor result."""

    traits = traits_def(Pure())


class UnaryOp(GraphOp):
    """Elementwise, shape and element type preserved."""

    input = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue) -> None:
        super().__init__(operands=[value], result_types=[value.type])

    def verify_(self) -> None:
        if shape_of(self.input) != shape_of(self.result):
            raise VerifyException(
                f"{self.name}: result shape {shape_of(self.result)} differs from {shape_of(self.input)}"
            )


class BinaryOp(GraphOp):
    """Elementwise with numpy broadcasting; comparisons give i1."""

    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, lhs: SSAValue, rhs: SSAValue) -> None:
        shape = broadcast_shapes(shape_of(lhs), shape_of(rhs))
        element = i1 if self.name.removeprefix("graph.") in COMPARISON_NAMES else element_of(lhs)
        super().__init__(operands=[lhs, rhs], result_types=[tensor_type(shape, element)])

    def verify_(self) -> None:
        expected = broadcast_shapes(shape_of(self.lhs), shape_of(self.rhs))
        if expected != shape_of(self.result):
            raise VerifyException(
                f"{self.name}: result shape {shape_of(self.result)} differs from the broadcast {expected}"
            )
        if element_of(self.lhs) != element_of(self.rhs):
            raise VerifyException(
                f"{self.name}: element types differ: lhs has {element_of(self.lhs)}, "
                f"rhs has {element_of(self.rhs)}"
            )


UNARY_NAMES = (
    "neg", "abs", "exp", "log", "sqrt", "rsqrt", "reciprocal", "sin", "cos", "tanh", "sigmoid", "erf",
    "floor", "relu", "silu", "gelu", "gelu_tanh", "not",
)  # fmt: skip
ARITHMETIC_NAMES = ("add", "sub", "mul", "div", "pow", "maximum", "minimum", "floordiv", "mod", "and", "or")
COMPARISON_NAMES = ("eq", "ne", "lt", "le", "gt", "ge")


def _define(base: type[GraphOp], mnemonic: str) -> type[GraphOp]:
    """The operation class of an elementwise mnemonic, e.g. ``gelu_tanh`` → ``GeluTanhOp``."""
    class_name = "".join(part.capitalize() for part in mnemonic.split("_")) + "Op"
    body = {"name": f"graph.{mnemonic}", "__doc__": f"Elementwise {mnemonic}."}
    return irdl_op_definition(type(class_name, (base,), body))


UNARY: dict[str, type[UnaryOp]] = {n: _define(UnaryOp, n) for n in UNARY_NAMES}  # pyright: ignore
BINARY: dict[str, type[BinaryOp]] = {
    n: _define(BinaryOp, n) for n in (*ARITHMETIC_NAMES, *COMPARISON_NAMES)  # pyright: ignore
}


def unary(mnemonic: str, value: SSAValue) -> UnaryOp:
    """An elementwise unary operation by its mnemonic."""
    return UNARY[mnemonic](value)


def binary(mnemonic: str, lhs: SSAValue, rhs: SSAValue) -> BinaryOp:
    """An elementwise binary operation by its mnemonic."""
    return BINARY[mnemonic](lhs, rhs)


@irdl_op_definition
class WeightOp(IRDLOperation):
    """Declares a weight: type, and where its bytes are (one source, or one per listed layer)."""

    name = "graph.weight"
    sym_name = attr_def(SymbolNameConstraint())
    type = attr_def(TensorType)
    sources = attr_def(ArrayAttr[DictionaryAttr])
    layers = opt_attr_def(DenseArrayBase)
    traits = traits_def(SymbolOpInterface())

    def __init__(
        self,
        name: str,
        type: TensorType[Attribute],
        sources: Sequence[DictionaryAttr],
        layers: Sequence[int] | None = None,
    ) -> None:
        attributes: dict[str, Attribute] = {
            "sym_name": StringAttr(name),
            "type": type,
            "sources": ArrayAttr(sources),
        }
        if layers is not None:
            attributes["layers"] = _ints(layers)
        super().__init__(attributes=attributes)

    @property
    def layer_list(self) -> tuple[int, ...] | None:
        """Model layer of each source, or None for a weight outside the layers."""
        return None if self.layers is None else tuple(int(v) for v in self.layers.get_values())

    def verify_(self) -> None:
        expected = 1 if self.layer_list is None else len(self.layer_list)
        if len(self.sources) != expected:
            raise VerifyException(f"{self.sym_name}: has {len(self.sources)} sources, expected {expected}")


@irdl_op_definition
class CacheDeclOp(IRDLOperation):
    """Declares the key/value cache of the listed layers: per layer and slot [heads, ctx, size] each."""

    name = "graph.cache_decl"
    sym_name = attr_def(SymbolNameConstraint())
    layers = attr_def(DenseArrayBase)
    heads = attr_def(IntegerAttr)
    key_size = attr_def(IntegerAttr)
    value_size = attr_def(IntegerAttr)
    type = attr_def(AnyFloat)
    traits = traits_def(SymbolOpInterface())

    def __init__(
        self, name: str, layers: Sequence[int], heads: int, key_size: int, value_size: int, type: Attribute
    ) -> None:
        super().__init__(
            attributes={
                "sym_name": StringAttr(name),
                "layers": _ints(layers),
                "heads": IntegerAttr(heads, 64),
                "key_size": IntegerAttr(key_size, 64),
                "value_size": IntegerAttr(value_size, 64),
                "type": type,
            }
        )


@irdl_op_definition
class ParamOp(GraphOp):
    """The value of a weight; of a per-layer weight, the current layer's."""

    name = "graph.param"
    symbol = attr_def(FlatSymbolRefAttrConstr)
    result = result_def(TensorType)

    def __init__(self, symbol: str, type: TensorType[Attribute]) -> None:
        super().__init__(attributes={"symbol": SymbolRefAttr(symbol)}, result_types=[type])


@irdl_op_definition
class ConstantOp(GraphOp):
    """A small constant tensor."""

    name = "graph.constant"
    value = attr_def(DenseIntOrFPElementsAttr)
    result = result_def(TensorType)

    def __init__(self, value: DenseIntOrFPElementsAttr, type: TensorType[Attribute] | None = None) -> None:
        super().__init__(attributes={"value": value}, result_types=[type or value.type])


@irdl_op_definition
class IotaOp(GraphOp):
    """Each element is its own index along ``dim``."""

    name = "graph.iota"
    dim = attr_def(IntegerAttr)
    result = result_def(TensorType)

    def __init__(self, shape: Sequence[Dim], dim: int, element: Attribute = i32) -> None:
        super().__init__(attributes={"dim": IntegerAttr(dim, 64)}, result_types=[tensor_type(shape, element)])


@irdl_op_definition
class WhereOp(GraphOp):
    """Elementwise choice with broadcasting: ``a`` where ``condition`` holds, else ``b``."""

    name = "graph.where"
    condition = operand_def(TensorType)
    a = operand_def(TensorType)
    b = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, condition: SSAValue, a: SSAValue, b: SSAValue) -> None:
        shape = broadcast_shapes(shape_of(condition), broadcast_shapes(shape_of(a), shape_of(b)))
        super().__init__(operands=[condition, a, b], result_types=[tensor_type(shape, element_of(a))])


@irdl_op_definition
class CastOp(GraphOp):
    """Conversion to another element type, rounding to nearest even."""

    name = "graph.cast"
    input = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, element: Attribute) -> None:
        super().__init__(operands=[value], result_types=[tensor_type(shape_of(value), element)])


REDUCE_KINDS = ("sum", "mean", "max", "min", "any", "all")


@irdl_op_definition
class ReduceOp(GraphOp):
    """Reduction over ``dims``."""

    name = "graph.reduce"
    input = operand_def(TensorType)
    kind = attr_def(StringAttr)
    dims = attr_def(DenseArrayBase)
    keepdims = attr_def(BoolAttr)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, kind: str, dims: Sequence[int], keepdims: bool) -> None:
        shape = shape_of(value)
        axes = {d % len(shape) for d in dims}
        kept = [1 if i in axes else d for i, d in enumerate(shape) if keepdims or i not in axes]
        super().__init__(
            operands=[value],
            attributes={
                "kind": StringAttr(kind),
                "dims": _ints(sorted(axes)),
                "keepdims": BoolAttr.from_bool(keepdims),
            },
            result_types=[tensor_type(kept, element_of(value))],
        )

    def verify_(self) -> None:
        if self.kind.data not in REDUCE_KINDS:
            raise VerifyException(f"graph.reduce: kind is {self.kind.data}, expected one of {REDUCE_KINDS}")


@irdl_op_definition
class SoftmaxOp(GraphOp):
    """Softmax over ``dim``."""

    name = "graph.softmax"
    input = operand_def(TensorType)
    dim = attr_def(IntegerAttr)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, dim: int) -> None:
        attributes: dict[str, Attribute] = {"dim": IntegerAttr(dim % len(shape_of(value)), 64)}
        super().__init__(operands=[value], attributes=attributes, result_types=[value.type])


@irdl_op_definition
class MatmulOp(GraphOp):
    """Batched product a[…,M,K] · b[…,K,N] with broadcast leading dimensions."""

    name = "graph.matmul"
    lhs = operand_def(TensorType)
    rhs = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, lhs: SSAValue, rhs: SSAValue) -> None:
        a, b = shape_of(lhs), shape_of(rhs)
        shape = (*broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1])
        super().__init__(operands=[lhs, rhs], result_types=[tensor_type(shape, element_of(lhs))])

    def verify_(self) -> None:
        _check_contraction(self, shape_of(self.lhs)[-1], shape_of(self.rhs)[-2])


@irdl_op_definition
class LinearOp(GraphOp):
    """x[…,K] · w[N,K]ᵀ + bias[N]."""

    name = "graph.linear"
    input = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, weight: SSAValue, bias: SSAValue | None = None) -> None:
        shape = (*shape_of(value)[:-1], shape_of(weight)[0])
        super().__init__(
            operands=[value, weight, [] if bias is None else [bias]],
            result_types=[tensor_type(shape, element_of(value))],
        )

    def verify_(self) -> None:
        _check_contraction(self, shape_of(self.input)[-1], shape_of(self.weight)[-1])


@irdl_op_definition
class EmbeddingOp(GraphOp):
    """Rows of table[V,D] chosen by i32 ids."""

    name = "graph.embedding"
    table = operand_def(TensorType)
    ids = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, table: SSAValue, ids: SSAValue) -> None:
        shape = (*shape_of(ids), shape_of(table)[-1])
        super().__init__(operands=[table, ids], result_types=[tensor_type(shape, element_of(table))])


class ShapeOp(GraphOp):
    """Base of the operations that only rearrange elements; the result type says the new shape."""

    input = operand_def(TensorType)
    result = result_def(TensorType)


@irdl_op_definition
class ReshapeOp(ShapeOp):
    """The same elements in row-major order under another shape."""

    name = "graph.reshape"

    def __init__(self, value: SSAValue, shape: Sequence[Dim]) -> None:
        super().__init__(operands=[value], result_types=[tensor_type(shape, element_of(value))])


@irdl_op_definition
class BroadcastOp(ShapeOp):
    """Sizes of 1 repeated up to the result's (numpy broadcasting)."""

    name = "graph.broadcast"

    def __init__(self, value: SSAValue, shape: Sequence[Dim]) -> None:
        super().__init__(operands=[value], result_types=[tensor_type(shape, element_of(value))])


@irdl_op_definition
class TransposeOp(ShapeOp):
    """Result dimension i is input dimension ``perm[i]``."""

    name = "graph.transpose"
    perm = attr_def(DenseArrayBase)

    def __init__(self, value: SSAValue, perm: Sequence[int]) -> None:
        shape = shape_of(value)
        super().__init__(
            operands=[value],
            attributes={"perm": _ints(perm)},
            result_types=[tensor_type([shape[p] for p in perm], element_of(value))],
        )


@irdl_op_definition
class SliceOp(ShapeOp):
    """Elements starts[d] : stops[d] : steps[d] of each dimension; a stop of −1 means the end."""

    name = "graph.slice"
    starts = attr_def(DenseArrayBase)
    stops = attr_def(DenseArrayBase)
    steps = attr_def(DenseArrayBase)

    def __init__(
        self, value: SSAValue, starts: Sequence[int], stops: Sequence[int], steps: Sequence[int] | None = None
    ) -> None:
        steps = steps or [1] * len(starts)
        shape: list[Dim] = []
        for d, a, b, s in zip(shape_of(value), starts, stops, steps, strict=True):
            whole = a == 0 and s == 1 and (b == -1 or b == d)
            end = d if b == -1 else b
            shape.append(d if whole else -((a - end) // s))  # ceiling of (end − a) / s
        super().__init__(
            operands=[value],
            attributes={"starts": _ints(starts), "stops": _ints(stops), "steps": _ints(steps)},
            result_types=[tensor_type(shape, element_of(value))],
        )


@irdl_op_definition
class PadOp(ShapeOp):
    """``low``/``high`` elements of ``value`` added around each dimension."""

    name = "graph.pad"
    low = attr_def(DenseArrayBase)
    high = attr_def(DenseArrayBase)
    value = attr_def(FloatAttr)

    def __init__(self, input: SSAValue, low: Sequence[int], high: Sequence[int], value: float = 0.0) -> None:
        shape = [d + a + b for d, a, b in zip(shape_of(input), low, high, strict=True)]
        super().__init__(
            operands=[input],
            attributes={"low": _ints(low), "high": _ints(high), "value": FloatAttr(value, 32)},
            result_types=[tensor_type(shape, element_of(input))],
        )


@irdl_op_definition
class ConcatOp(GraphOp):
    """The inputs one after the other along ``dim``."""

    name = "graph.concat"
    inputs = var_operand_def(TensorType)
    dim = attr_def(IntegerAttr)
    result = result_def(TensorType)

    def __init__(self, values: Sequence[SSAValue], dim: int) -> None:
        shape = list(shape_of(values[0]))
        dim %= len(shape)
        for value in values[1:]:
            shape[dim] = shape[dim] + shape_of(value)[dim]
        super().__init__(
            operands=[values],
            attributes={"dim": IntegerAttr(dim, 64)},
            result_types=[tensor_type(shape, element_of(values[0]))],
        )


@irdl_op_definition
class RmsNormOp(GraphOp):
    """x / sqrt(mean(x²) + eps) · (offset + weight) over the last dimension, computed in f32.

    Source: Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019.
    """

    name = "graph.rms_norm"
    input = operand_def(TensorType)
    weight = operand_def(TensorType)
    eps = attr_def(FloatAttr)
    offset = attr_def(FloatAttr)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, weight: SSAValue, eps: float, offset: float = 0.0) -> None:
        super().__init__(
            operands=[value, weight],
            attributes={"eps": FloatAttr(eps, f32), "offset": FloatAttr(offset, f32)},
            result_types=[value.type],
        )


@irdl_op_definition
class LayerNormOp(GraphOp):
    """(x − mean) / sqrt(var + eps) · weight + bias over the last dimension, computed in f32."""

    name = "graph.layer_norm"
    input = operand_def(TensorType)
    weight = opt_operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    eps = attr_def(FloatAttr)
    result = result_def(TensorType)
    irdl_options = (AttrSizedOperandSegments(),)

    def __init__(self, value: SSAValue, weight: SSAValue | None, bias: SSAValue | None, eps: float) -> None:
        super().__init__(
            operands=[value, [] if weight is None else [weight], [] if bias is None else [bias]],
            attributes={"eps": FloatAttr(eps, f32)},
            result_types=[value.type],
        )


@irdl_op_definition
class RopeOp(GraphOp):
    """Rotary position embedding of x[B,H,N,D] by cos, sin [B or 1,N,R], R ≤ D; the rest passes.

    Pairs are (i, i + R/2), or (2i, 2i + 1) when ``interleaved``.
    Source: Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021.
    """

    name = "graph.rope"
    input = operand_def(TensorType)
    cos = operand_def(TensorType)
    sin = operand_def(TensorType)
    interleaved = attr_def(BoolAttr)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, cos: SSAValue, sin: SSAValue, interleaved: bool = False) -> None:
        super().__init__(
            operands=[value, cos, sin],
            attributes={"interleaved": BoolAttr.from_bool(interleaved)},
            result_types=[value.type],
        )


@irdl_op_definition
class GatedOp(GraphOp):
    """activation(gate) · up, the middle of a gated MLP. Source: Shazeer, "GLU Variants", 2020."""

    name = "graph.gated"
    gate = operand_def(TensorType)
    up = operand_def(TensorType)
    activation = attr_def(StringAttr)
    result = result_def(TensorType)

    def __init__(self, gate: SSAValue, up: SSAValue, activation: str) -> None:
        super().__init__(
            operands=[gate, up], attributes={"activation": StringAttr(activation)}, result_types=[gate.type]
        )

    def verify_(self) -> None:
        if self.activation.data not in UNARY:
            raise VerifyException(f"graph.gated: unknown activation {self.activation.data}")


@irdl_op_definition
class KvUpdateOp(IRDLOperation):
    """Writes k, v [B,Hkv,N,size] at each row's position of the current layer's cache, reads ctx back.

    Keys and values may come flat, as [B,N,Hkv·size]. Rows past a row's valid length are not written.
    """

    name = "graph.kv_update"
    key = operand_def(TensorType)
    value = operand_def(TensorType)
    cache = attr_def(FlatSymbolRefAttrConstr)
    keys = result_def(TensorType)
    values = result_def(TensorType)
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self, key: SSAValue, value: SSAValue, cache: str, types: Sequence[Attribute] | None = None
    ) -> None:
        if types is None:
            shapes = [(shape_of(operand), element_of(operand)) for operand in (key, value)]
            types = [tensor_type((b, heads, CTX, size), kind) for (b, heads, _, size), kind in shapes]
        attributes: dict[str, Attribute] = {"cache": SymbolRefAttr(cache)}
        super().__init__(operands=[key, value], attributes=attributes, result_types=types)


@irdl_op_definition
class AttentionOp(GraphOp):
    """Scaled dot-product attention with grouped heads → [B,N,Hq,Dv]; mask true = attend."""

    name = "graph.attention"
    query = operand_def(TensorType)
    keys = operand_def(TensorType)
    values = operand_def(TensorType)
    mask = opt_operand_def(TensorType)
    scale = attr_def(FloatAttr)
    softcap = attr_def(FloatAttr)
    result = result_def(TensorType)

    def __init__(
        self,
        query: SSAValue,
        keys: SSAValue,
        values: SSAValue,
        mask: SSAValue | None,
        scale: float,
        softcap: float = 0.0,
    ) -> None:
        batch, heads, seq, _ = shape_of(query)
        shape = (batch, seq, heads, shape_of(values)[-1])
        super().__init__(
            operands=[query, keys, values, [] if mask is None else [mask]],
            attributes={"scale": FloatAttr(scale, f32), "softcap": FloatAttr(softcap, f32)},
            result_types=[tensor_type(shape, element_of(query))],
        )

    def verify_(self) -> None:
        _check_contraction(self, shape_of(self.query)[-1], shape_of(self.keys)[-1])
        heads, kv_heads = shape_of(self.query)[1], shape_of(self.keys)[1]
        if isinstance(heads, int) and isinstance(kv_heads, int) and heads % kv_heads:
            raise VerifyException(f"graph.attention: {heads} query heads over {kv_heads} key heads")


@irdl_op_definition
class LayersOp(IRDLOperation):
    """Runs the body ``callee`` once per listed layer, replacing the carried operands by its results."""

    name = "graph.layers"
    carried = var_operand_def()
    extras = var_operand_def()
    callee = attr_def(FlatSymbolRefAttrConstr)
    layers = attr_def(DenseArrayBase)
    outputs = var_result_def()
    irdl_options = (AttrSizedOperandSegments(),)
    traits = traits_def(MemoryReadEffect(), MemoryWriteEffect())

    def __init__(
        self, callee: str, layers: Sequence[int], carried: Sequence[SSAValue], extras: Sequence[SSAValue]
    ) -> None:
        super().__init__(
            operands=[carried, extras],
            attributes={"callee": SymbolRefAttr(callee), "layers": _ints(layers)},
            result_types=[[v.type for v in carried]],
        )

    @property
    def layer_list(self) -> tuple[int, ...]:
        """Indices of the model's layers, in order."""
        return tuple(int(v) for v in self.layers.get_values())


@irdl_op_definition
class SelectRowsOp(GraphOp):
    """The rows [B,N,D] whose logits are wanted: all, or each batch row's last valid one."""

    name = "graph.select_rows"
    input = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, type: TensorType[Attribute] | None = None) -> None:
        super().__init__(operands=[value], result_types=[type or value.type])


@irdl_op_definition
class RelayoutOp(GraphOp):
    """The same tensor under another placement (phase layout)."""

    name = "graph.relayout"
    input = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, type: TensorType[Attribute]) -> None:
        super().__init__(operands=[value], result_types=[type])


def _ints(values: Sequence[int]) -> DenseArrayBase:
    return DenseArrayBase.from_list(i64, list(values))


def ints(attribute: DenseArrayBase) -> tuple[int, ...]:
    """The integers of an ``array<i64: …>`` attribute."""
    return tuple(int(v) for v in attribute.get_values())


def _check_contraction(op: Operation, lhs: Dim, rhs: Dim) -> None:
    if lhs != rhs:
        raise VerifyException(f"contracting dimensions differ: lhs has {lhs}, rhs has {rhs}")


GRAPH = Dialect(
    "graph",
    [
        *UNARY.values(), *BINARY.values(), WeightOp, CacheDeclOp, ParamOp, ConstantOp, IotaOp, WhereOp, CastOp,
        ReduceOp, SoftmaxOp, MatmulOp, LinearOp, EmbeddingOp, ReshapeOp, BroadcastOp, TransposeOp, SliceOp,
        PadOp, ConcatOp, RmsNormOp, LayerNormOp, RopeOp, GatedOp, KvUpdateOp, AttentionOp, LayersOp,
        SelectRowsOp, RelayoutOp, RowsOp, YieldOp,
    ],
    [DimsAttr],
)  # fmt: skip
