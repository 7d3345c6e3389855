"""Operations of the `graph` dialect that language models are made of: products, norms, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from npuc.ir.assembly import F32, FLAG, INT, WORD, Syntax, syntax
from npuc.ir.graph_elementwise import UNARY, GraphOp
from npuc.ir.graph_types import (
    check_contraction,
    check_dim,
    check_element,
    check_float,
    check_rank,
    check_same,
    check_shape,
    element_of,
    index_of,
    shape_of,
    tensor_type,
)
from npuc.ir.shapes import Dim, broadcast_shapes, same_size, shape_text, size_text
from xdsl.dialects.builtin import BoolAttr, FloatAttr, IntegerAttr, StringAttr, TensorType, f32, i1, i32
from xdsl.ir import Attribute, SSAValue
from xdsl.irdl import (
    AttrSizedOperandSegments,
    attr_def,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    result_def,
)
from xdsl.utils.exceptions import VerifyException


@irdl_op_definition
class SoftmaxOp(GraphOp):
    """Softmax over ``dim``."""

    name = "graph.softmax"
    input = operand_def(TensorType)
    dim = attr_def(IntegerAttr)
    result = result_def(TensorType)
    SYNTAX: ClassVar[Syntax] = syntax(dim=INT)

    def __init__(self, value: SSAValue, dim: int) -> None:
        attributes: dict[str, Attribute] = {"dim": IntegerAttr(dim % len(shape_of(value)), 64)}
        super().__init__(operands=[value], attributes=attributes, result_types=[value.type])

    def verify_(self) -> None:
        check_dim("dim", index_of(self.dim), len(shape_of(self.input)))
        check_float("input", self.input)
        check_same("result", self.result, self.input)


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
        a, b = shape_of(self.lhs), shape_of(self.rhs)
        if len(a) < 2 or len(b) < 2:
            raise VerifyException(
                f"operands are no matrices: lhs has {shape_text(a)}, rhs has {shape_text(b)}"
            )
        check_contraction(a[-1], b[-2])
        check_shape("result", self.result, (*broadcast_shapes(a[:-2], b[:-2]), a[-2], b[-1]))
        check_element("result", self.result, element_of(self.lhs))


@irdl_op_definition
class LinearOp(GraphOp):
    """(x[…,K] · w[N,K]ᵀ) · scale + bias[N], rounded once.

    With a scale, a number or one for each row of w, operands may be values as they are stored: the scale is
    the product of theirs, and the result has a type of its own.
    """

    name = "graph.linear"
    input = operand_def(TensorType)
    weight = operand_def(TensorType)
    bias = opt_operand_def(TensorType)
    scale = opt_operand_def(TensorType)
    result = result_def(TensorType)
    irdl_options = (AttrSizedOperandSegments(),)

    def __init__(
        self,
        value: SSAValue,
        weight: SSAValue,
        bias: SSAValue | None = None,
        scale: SSAValue | None = None,
        element: Attribute | None = None,
    ) -> None:
        shape = (*shape_of(value)[:-1], shape_of(weight)[0])
        vectors = [[] if vector is None else [vector] for vector in (bias, scale)]
        super().__init__(
            operands=[value, weight, *vectors],
            result_types=[tensor_type(shape, element or element_of(value))],
        )

    def verify_(self) -> None:
        check_rank("weight", self.weight, 2)
        rows, columns = shape_of(self.weight)
        if not shape_of(self.input):
            raise VerifyException("input has no dimension to contract")
        check_contraction(shape_of(self.input)[-1], columns)
        if self.bias is not None:
            check_shape("bias", self.bias, (rows,))
        check_shape("result", self.result, (*shape_of(self.input)[:-1], rows))
        if self.scale is None:
            check_element("result", self.result, element_of(self.input))
            return
        check_shape("scale", self.scale, (rows,) if shape_of(self.scale) else ())
        check_element("scale", self.scale, f32)
        check_float("result", self.result)


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

    def verify_(self) -> None:
        check_rank("table", self.table, 2)
        check_element("ids", self.ids, i32)
        check_shape("result", self.result, (*shape_of(self.ids), shape_of(self.table)[1]))
        check_element("result", self.result, element_of(self.table))


def _check_vector(what: str, value: SSAValue | None, of: SSAValue) -> None:
    """A vector over the last dimension of a tensor."""
    if value is not None:
        check_shape(what, value, shape_of(of)[-1:])
        check_float(what, value)


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
    SYNTAX: ClassVar[Syntax] = syntax(defaults={"offset": FloatAttr(0.0, f32)}, eps=F32, offset=F32)

    def __init__(self, value: SSAValue, weight: SSAValue, eps: float, offset: float = 0.0) -> None:
        super().__init__(
            operands=[value, weight],
            attributes={"eps": FloatAttr(eps, f32), "offset": FloatAttr(offset, f32)},
            result_types=[value.type],
        )

    def verify_(self) -> None:
        check_float("input", self.input)
        _check_vector("weight", self.weight, self.input)
        check_same("result", self.result, self.input)


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
    SYNTAX: ClassVar[Syntax] = syntax(eps=F32)

    def __init__(self, value: SSAValue, weight: SSAValue | None, bias: SSAValue | None, eps: float) -> None:
        super().__init__(
            operands=[value, [] if weight is None else [weight], [] if bias is None else [bias]],
            attributes={"eps": FloatAttr(eps, f32)},
            result_types=[value.type],
        )

    def verify_(self) -> None:
        check_float("input", self.input)
        _check_vector("weight", self.weight, self.input)
        _check_vector("bias", self.bias, self.input)
        check_same("result", self.result, self.input)


def _check_batch(what: str, size: Dim, batch: Dim) -> None:
    """A leading dimension that is the batch, or 1 where all rows share."""
    if size != 1 and not same_size(size, batch):
        raise VerifyException(f"{what} has batch {size_text(size)}, expected 1 or {size_text(batch)}")


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
    SYNTAX: ClassVar[Syntax] = syntax(interleaved=FLAG)

    def __init__(self, value: SSAValue, cos: SSAValue, sin: SSAValue, interleaved: bool = False) -> None:
        super().__init__(
            operands=[value, cos, sin],
            attributes={"interleaved": BoolAttr.from_bool(interleaved)},
            result_types=[value.type],
        )

    def verify_(self) -> None:
        check_rank("input", self.input, 4)
        check_rank("cos", self.cos, 3)
        check_shape("sin", self.sin, shape_of(self.cos))
        batch, _, rows, size = shape_of(self.input)
        shared, table_rows, rotated = shape_of(self.cos)
        _check_batch("cos", shared, batch)
        if not same_size(table_rows, rows):
            raise VerifyException(
                f"rows differ: input has {size_text(rows)}, cos has {size_text(table_rows)}"
            )
        if isinstance(size, int) and isinstance(rotated, int) and (rotated > size or rotated % 2):
            raise VerifyException(
                f"{rotated} of {size} elements rotated: expected an even number up to {size}"
            )
        check_same("result", self.result, self.input)


@irdl_op_definition
class GatedOp(GraphOp):
    """activation(gate) · up, the middle of a gated MLP. Source: Shazeer, "GLU Variants", 2020."""

    name = "graph.gated"
    gate = operand_def(TensorType)
    up = operand_def(TensorType)
    activation = attr_def(StringAttr)
    result = result_def(TensorType)
    SYNTAX: ClassVar[Syntax] = syntax({"activation": WORD})

    def __init__(self, gate: SSAValue, up: SSAValue, activation: str) -> None:
        super().__init__(
            operands=[gate, up], attributes={"activation": StringAttr(activation)}, result_types=[gate.type]
        )

    def verify_(self) -> None:
        if self.activation.data not in UNARY:
            raise VerifyException(f"activation is {self.activation.data}, which is no elementwise operation")
        check_same("up", self.up, self.gate)
        check_same("result", self.result, self.gate)


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
    SYNTAX: ClassVar[Syntax] = syntax(defaults={"softcap": FloatAttr(0.0, f32)}, scale=F32, softcap=F32)

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
        for what in ("query", "keys", "values"):
            check_rank(what, getattr(self, what), 4)
        batch, heads, rows, size = shape_of(self.query)
        kv_batch, kv_heads, ctx, key_size = shape_of(self.keys)
        value_size = shape_of(self.values)[3]
        check_contraction(size, key_size)
        if isinstance(heads, int) and isinstance(kv_heads, int) and heads % kv_heads:
            raise VerifyException(f"{heads} query heads over {kv_heads} key heads")
        check_shape("values", self.values, (kv_batch, kv_heads, ctx, value_size))
        if not same_size(batch, kv_batch):
            raise VerifyException(
                f"batches differ: query has {size_text(batch)}, keys have {size_text(kv_batch)}"
            )
        if self.mask is not None:
            self._verify_mask(self.mask, (batch, heads, rows, ctx))
        check_shape("result", self.result, (batch, rows, heads, value_size))
        check_element("result", self.result, element_of(self.query))

    def _verify_mask(self, mask: SSAValue, scores: Sequence[Dim]) -> None:
        check_rank("mask", mask, 4)
        check_element("mask", mask, i1)
        sizes = shape_of(mask)
        _check_batch("mask", sizes[0], scores[0])
        heads = 1 if sizes[1] == 1 else scores[1]
        check_shape("mask", mask, (sizes[0], heads, *scores[2:]))


@irdl_op_definition
class SelectRowsOp(GraphOp):
    """The rows [B,N,D] whose logits are wanted: all, or each batch row's last valid one."""

    name = "graph.select_rows"
    input = operand_def(TensorType)
    result = result_def(TensorType)

    def __init__(self, value: SSAValue, type: TensorType[Attribute] | None = None) -> None:
        super().__init__(operands=[value], result_types=[type or value.type])

    def verify_(self) -> None:
        check_rank("input", self.input, 3)
        check_rank("result", self.result, 3)
        batch, rows, size = shape_of(self.input)
        selected = shape_of(self.result)[1]
        check_shape("result", self.result, (batch, 1 if selected == 1 else rows, size))
        check_element("result", self.result, element_of(self.input))
