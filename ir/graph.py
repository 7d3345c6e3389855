"""The `graph` dialect: tensor programs as the frontends import them.

Operations, attributes and the meaning of symbolic dimensions are tabulated in docs/design.md,
section 3; their values are defined by the kernel table (`npuc.ir.kernels`). The operations are defined by
group in `graph_elementwise`, `graph_shape`, `graph_model` and `graph_symbols`; all are found here.
"""

from __future__ import annotations

from npuc.ir.graph_elementwise import (
    ARITHMETIC_NAMES,
    BINARY,
    COMPARISON_NAMES,
    UNARY,
    UNARY_NAMES,
    BinaryOp,
    CastOp,
    GraphOp,
    UnaryOp,
    WhereOp,
    binary,
    unary,
)
from npuc.ir.graph_model import (
    AttentionOp,
    EmbeddingOp,
    GatedOp,
    LayerNormOp,
    LinearOp,
    MatmulOp,
    RmsNormOp,
    RopeOp,
    SelectRowsOp,
    SoftmaxOp,
)
from npuc.ir.graph_rows import RowsOp, YieldOp
from npuc.ir.graph_shape import (
    REDUCE_KINDS,
    BroadcastOp,
    ConcatOp,
    ConstantOp,
    IotaOp,
    PadOp,
    ReduceOp,
    RelayoutOp,
    ReshapeOp,
    ShapeOp,
    SliceOp,
    TransposeOp,
)
from npuc.ir.graph_symbols import (
    CacheDeclOp,
    KvUpdateOp,
    LayersOp,
    ParamOp,
    WeightOp,
)
from npuc.ir.graph_types import (
    BATCH,
    CTX,
    SEQ,
    DimsAttr,
    element_of,
    ints,
    shape_of,
    static_shape,
    tensor_type,
)
from xdsl.ir import Dialect

GRAPH = Dialect(
    "graph",
    [
        *UNARY.values(), *BINARY.values(), WhereOp, CastOp, ConstantOp, IotaOp, ReduceOp, ReshapeOp,
        BroadcastOp, TransposeOp, SliceOp, PadOp, ConcatOp, RelayoutOp, MatmulOp, LinearOp, SoftmaxOp,
        EmbeddingOp, RmsNormOp, LayerNormOp, RopeOp, GatedOp, AttentionOp, SelectRowsOp, WeightOp,
        CacheDeclOp, ParamOp, KvUpdateOp, LayersOp, RowsOp, YieldOp,
    ],
    [DimsAttr],
)  # fmt: skip

__all__ = [
    "ARITHMETIC_NAMES",
    "BATCH",
    "BINARY",
    "COMPARISON_NAMES",
    "CTX",
    "GRAPH",
    "REDUCE_KINDS",
    "SEQ",
    "UNARY",
    "UNARY_NAMES",
    "AttentionOp",
    "BinaryOp",
    "BroadcastOp",
    "CacheDeclOp",
    "CastOp",
    "ConcatOp",
    "ConstantOp",
    "DimsAttr",
    "EmbeddingOp",
    "GatedOp",
    "GraphOp",
    "IotaOp",
    "KvUpdateOp",
    "LayerNormOp",
    "LayersOp",
    "LinearOp",
    "MatmulOp",
    "PadOp",
    "ParamOp",
    "ReduceOp",
    "RelayoutOp",
    "ReshapeOp",
    "RmsNormOp",
    "RopeOp",
    "RowsOp",
    "SelectRowsOp",
    "ShapeOp",
    "SliceOp",
    "SoftmaxOp",
    "TransposeOp",
    "UnaryOp",
    "WeightOp",
    "WhereOp",
    "YieldOp",
    "binary",
    "element_of",
    "ints",
    "shape_of",
    "static_shape",
    "tensor_type",
    "unary",
]
