"""Types of the `graph` dialect: tensors with symbolic sizes, and checks of them for verifiers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from npuc.ir.arrays import int_array as int_array
from npuc.ir.shapes import Dim, same_shape, same_size, shape_text, size_text
from xdsl.dialects.builtin import (
    DYNAMIC_INDEX,
    AffineMapAttr,
    AnyFloat,
    DenseArrayBase,
    IntegerAttr,
    IntegerType,
    TensorType,
)
from xdsl.ir import Attribute, ParametrizedAttribute, SSAValue
from xdsl.ir.affine import AffineConstantExpr, AffineExpr, AffineMap
from xdsl.irdl import irdl_attr_definition
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
        raise VerifyException(f"expected a static shape, got {shape_text(shape)}")
    return tuple(d for d in shape if isinstance(d, int))


def element_of(value: SSAValue | Attribute) -> Attribute:
    """The element type of a tensor value or type."""
    kind = value.type if isinstance(value, SSAValue) else value
    assert isinstance(kind, TensorType)
    return kind.element_type


def ints(attribute: DenseArrayBase) -> tuple[int, ...]:
    """The integers of an ``array<i64: …>`` attribute."""
    return tuple(cast(DenseArrayBase[IntegerType], attribute).get_values())


def index_of(attribute: IntegerAttr) -> int:
    """The value of an integer attribute."""
    return attribute.value.data


def check_contraction(lhs: Dim, rhs: Dim) -> None:
    """Raises VerifyException when the dimensions that are multiplied and summed differ."""
    if not same_size(lhs, rhs):
        raise VerifyException(
            f"contracting dimensions differ: lhs has {size_text(lhs)}, rhs has {size_text(rhs)}"
        )


def check_shape(what: str, value: SSAValue, expected: Sequence[Dim]) -> None:
    """Raises VerifyException when a tensor has another shape."""
    if not same_shape(shape_of(value), expected):
        raise VerifyException(
            f"{what} has shape {shape_text(shape_of(value))}, expected {shape_text(expected)}"
        )


def check_element(what: str, value: SSAValue, expected: Attribute) -> None:
    """Raises VerifyException when a tensor has another element type."""
    if element_of(value) != expected:
        raise VerifyException(f"{what} has element type {element_of(value)}, expected {expected}")


def check_float(what: str, value: SSAValue) -> None:
    """Raises VerifyException when a tensor's elements are no floats."""
    if not isinstance(element_of(value), AnyFloat):
        raise VerifyException(f"{what} has element type {element_of(value)}, expected a float")


def check_same(what: str, value: SSAValue, other: SSAValue) -> None:
    """Raises VerifyException when two tensors differ in shape or element type."""
    check_shape(what, value, shape_of(other))
    check_element(what, value, element_of(other))


def check_rank(what: str, value: SSAValue, rank: int) -> None:
    """Raises VerifyException when a tensor has another number of dimensions."""
    if len(shape_of(value)) != rank:
        raise VerifyException(f"{what} has {len(shape_of(value))} dimensions, expected {rank}")


def check_dim(what: str, dim: int, rank: int) -> None:
    """Raises VerifyException when a dimension number is out of range."""
    if not 0 <= dim < rank:
        raise VerifyException(f"{what} is {dim}, expected 0 to {rank - 1}")
