"""The `dist` dialect: collective operations of ranks that run one program, and how tensors are sharded.

    %y = dist.all_reduce sum %x over [tp] mesh #dist.mesh<dp = 2, tp = 4> : tensor<4x64xf32>

A mesh names the axes along which ranks are arranged; ranks are numbered row-major, the last axis fastest. A
collective runs within each group of ranks that differ only along the axes of `over`, in the order of their
numbers. Values are defined in `npuc.ir.dist_kernels`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import ClassVar

from npuc.ir.assembly import (
    ANY,
    INT,
    WORD,
    Codec,
    Syntax,
    TextualOp,
    syntax,
)
from npuc.ir.graph_types import check_dim, check_element, check_same, check_shape, element_of, shape_of
from npuc.ir.shapes import Dim, shape_text
from xdsl.dialects.builtin import ArrayAttr, IntAttr, IntegerAttr, StringAttr, TensorType
from xdsl.ir import Attribute, Dialect, ParametrizedAttribute, SSAValue
from xdsl.irdl import (
    attr_def,
    irdl_attr_definition,
    irdl_op_definition,
    operand_def,
    result_def,
    traits_def,
)
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.traits import Pure
from xdsl.utils.exceptions import VerifyException

KINDS = ("sum", "max", "min")


@irdl_attr_definition
class MeshAttr(ParametrizedAttribute):
    """Named axes and their sizes: ``<dp = 2, tp = 4>`` is 8 ranks, rank 5 at dp 1, tp 1."""

    name = "dist.mesh"
    axes: ArrayAttr[StringAttr]
    sizes: ArrayAttr[IntAttr]

    @classmethod
    def of(cls, **sizes: int) -> MeshAttr:
        """A mesh from its axes, slowest first."""
        return cls(ArrayAttr(map(StringAttr, sizes)), ArrayAttr(map(IntAttr, sizes.values())))

    @property
    def shape(self) -> dict[str, int]:
        """The size of each axis."""
        return {axis.data: size.data for axis, size in zip(self.axes, self.sizes, strict=True)}

    @property
    def ranks(self) -> int:
        """How many ranks there are."""
        return prod(self.shape.values())

    def size_over(self, axes: Sequence[str]) -> int:
        """How many ranks a group over these axes has."""
        return prod(self.shape[axis] for axis in axes)

    def coordinate(self, rank: int, axes: Sequence[str]) -> int:
        """A rank's position within its group over these axes, which count in the mesh's order."""
        position = 0
        places = dict(zip(self.shape, _digits(rank, list(self.shape.values())), strict=True))
        for axis in self.shape:
            if axis in axes:
                position = position * self.shape[axis] + places[axis]
        return position

    def groups(self, axes: Sequence[str]) -> list[list[int]]:
        """The groups of ranks that differ only along these axes, each in ascending order."""
        others = [axis for axis in self.shape if axis not in axes]
        found: dict[int, list[int]] = {}
        for rank in range(self.ranks):
            found.setdefault(self.coordinate(rank, others), []).append(rank)
        return list(found.values())

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        angle = parser.Delimiter.ANGLE
        pairs = parser.parse_comma_separated_list(angle, lambda: _parse_axis(parser))
        return [
            ArrayAttr(StringAttr(axis) for axis, _ in pairs),
            ArrayAttr(IntAttr(size) for _, size in pairs),
        ]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(", ".join(f"{axis} = {size}" for axis, size in self.shape.items()))

    def verify(self) -> None:
        if len(self.shape) != len(self.axes) or len(self.axes) != len(self.sizes):
            raise VerifyException(f"mesh has axes {', '.join(axis.data for axis in self.axes)}: they repeat")
        for axis, size in self.shape.items():
            if size < 1:
                raise VerifyException(f"mesh axis {axis} has size {size}, expected at least 1")


def _parse_axis(parser: AttrParser) -> tuple[str, int]:
    axis = parser.parse_identifier()
    parser.parse_punctuation("=")
    return axis, parser.parse_integer(allow_boolean=False)


def _digits(number: int, sizes: Sequence[int]) -> list[int]:
    found: list[int] = []
    for size in reversed(sizes):
        number, digit = divmod(number, size)
        found.append(digit)
    return found[::-1]


@irdl_attr_definition
class ShardingAttr(ParametrizedAttribute):
    """Along which mesh axes each dimension of a tensor is cut: ``<#dist.mesh<tp = 4>, [[], [tp]]>``."""

    name = "dist.sharding"
    mesh: MeshAttr
    dims: ArrayAttr[ArrayAttr[StringAttr]]

    @classmethod
    def of(cls, mesh: MeshAttr, dims: Sequence[Sequence[str]]) -> ShardingAttr:
        """A sharding from plain values."""
        return cls(mesh, ArrayAttr(ArrayAttr(map(StringAttr, axes)) for axes in dims))

    @property
    def axes(self) -> tuple[tuple[str, ...], ...]:
        """The mesh axes of each dimension."""
        return tuple(tuple(axis.data for axis in dim) for dim in self.dims)

    def local_shape(self, shape: Sequence[Dim]) -> tuple[Dim, ...]:
        """What one rank holds of a tensor.

        Raises:
            VerifyException: when the tensor is not cut into equal parts.
        """
        if len(shape) != len(self.axes):
            raise VerifyException(f"sharding has {len(self.axes)} dimensions, the tensor {shape_text(shape)}")
        return tuple(
            part_of(shape, dim, self.mesh.size_over(axes)) if axes else shape[dim]
            for dim, axes in enumerate(self.axes)
        )

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        square = parser.Delimiter.SQUARE
        with parser.in_angle_brackets():
            mesh = parser.parse_attribute()
            parser.parse_punctuation(",")
            dims = parser.parse_comma_separated_list(square, lambda: _parse_axes(parser))
        return [mesh, ArrayAttr(dims)]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_attribute(self.mesh)
            printer.print_string(f", [{', '.join(_axes_text(axes) for axes in self.axes)}]")

    def verify(self) -> None:
        used = [axis for axes in self.axes for axis in axes]
        _check_axes(self.mesh, used)


def _parse_axes(parser: AttrParser) -> ArrayAttr[StringAttr]:
    square = parser.Delimiter.SQUARE
    return ArrayAttr(parser.parse_comma_separated_list(square, lambda: StringAttr(parser.parse_identifier())))


def _axes_text(axes: Sequence[str]) -> str:
    return f"[{', '.join(axes)}]"


def _check_axes(mesh: MeshAttr, axes: Sequence[str]) -> None:
    for axis in axes:
        if axis not in mesh.shape:
            raise VerifyException(f"axis {axis} is none of the mesh's {', '.join(mesh.shape)}")
    if len({*axes}) != len(axes):
        raise VerifyException(f"axes {', '.join(axes)} repeat")


def part_of(shape: Sequence[Dim], dim: int, parts: int) -> Dim:
    """The size of one of so many equal parts of a dimension.

    Raises:
        VerifyException: when there are none.
    """
    size = shape[dim]
    if not isinstance(size, int) or size % parts:
        raise VerifyException(f"dimension {dim} of {shape_text(shape)} is not cut into {parts} equal parts")
    return size // parts


AXES = Codec(
    lambda a: isinstance(a, ArrayAttr) and all(isinstance(axis, StringAttr) for axis in a),
    lambda printer, a: printer.print_string(_axes_text([axis.data for axis in a])),
    _parse_axes,
)


class CollectiveOp(TextualOp):
    """Base of the collectives: one tensor per rank in, one out."""

    input = operand_def(TensorType)
    over = attr_def(ArrayAttr[StringAttr])
    mesh = attr_def(MeshAttr)
    result = result_def(TensorType)
    traits = traits_def(Pure())
    SYNTAX: ClassVar[Syntax] = syntax(over=AXES, mesh=ANY)

    @property
    def axes(self) -> tuple[str, ...]:
        """The mesh axes along which the ranks of a group differ."""
        return tuple(axis.data for axis in self.over)

    @property
    def group_size(self) -> int:
        """How many ranks take part in one collective."""
        return self.mesh.size_over(self.axes)

    def verify_(self) -> None:
        _check_axes(self.mesh, self.axes)
        check_element("result", self.result, element_of(self.input))
        self.verify_collective()

    def verify_collective(self) -> None:
        """Raises VerifyException when the result's shape does not follow from the input's."""

    def check_resized(self, dim: int, numerator: int, denominator: int) -> None:
        """Checks that the result is the input with one dimension grown or cut."""
        shape = list(shape_of(self.input))
        check_dim("dim", dim, len(shape))
        shape[dim] = part_of(shape, dim, denominator) * numerator
        check_shape("result", self.result, shape)

    def verify_kind(self, kind: StringAttr) -> None:
        """Raises VerifyException for an unknown reduction."""
        if kind.data not in KINDS:
            raise VerifyException(f"kind is {kind.data}, expected one of {', '.join(KINDS)}")


def _attributes(mesh: MeshAttr, over: Sequence[str], **others: Attribute) -> dict[str, Attribute]:
    return {**others, "over": ArrayAttr(map(StringAttr, over)), "mesh": mesh}


@irdl_op_definition
class AllReduceOp(CollectiveOp):
    """Every rank gets the elementwise sum, maximum or minimum over its group."""

    name = "dist.all_reduce"
    kind = attr_def(StringAttr)
    SYNTAX: ClassVar[Syntax] = syntax({"kind": WORD}, over=AXES, mesh=ANY)

    def __init__(self, value: SSAValue, kind: str, over: Sequence[str], mesh: MeshAttr) -> None:
        attributes = _attributes(mesh, over, kind=StringAttr(kind))
        super().__init__(operands=[value], attributes=attributes, result_types=[value.type])

    def verify_collective(self) -> None:
        self.verify_kind(self.kind)
        check_same("result", self.result, self.input)


@irdl_op_definition
class AllGatherOp(CollectiveOp):
    """Every rank gets its group's tensors, one after the other along ``dim``."""

    name = "dist.all_gather"
    dim = attr_def(IntegerAttr)
    SYNTAX: ClassVar[Syntax] = syntax(dim=INT, over=AXES, mesh=ANY)

    def __init__(
        self, value: SSAValue, dim: int, over: Sequence[str], mesh: MeshAttr, type: TensorType[Attribute]
    ) -> None:
        attributes = _attributes(mesh, over, dim=IntegerAttr(dim, 64))
        super().__init__(operands=[value], attributes=attributes, result_types=[type])

    def verify_collective(self) -> None:
        self.check_resized(self.dim.value.data, self.group_size, 1)


@irdl_op_definition
class ReduceScatterOp(CollectiveOp):
    """Each rank gets its part along ``dim`` of the elementwise sum, maximum or minimum over its group."""

    name = "dist.reduce_scatter"
    kind = attr_def(StringAttr)
    dim = attr_def(IntegerAttr)
    SYNTAX: ClassVar[Syntax] = syntax({"kind": WORD}, dim=INT, over=AXES, mesh=ANY)

    def __init__(
        self,
        value: SSAValue,
        kind: str,
        dim: int,
        over: Sequence[str],
        mesh: MeshAttr,
        type: TensorType[Attribute],
    ) -> None:
        attributes = _attributes(mesh, over, kind=StringAttr(kind), dim=IntegerAttr(dim, 64))
        super().__init__(operands=[value], attributes=attributes, result_types=[type])

    def verify_collective(self) -> None:
        self.verify_kind(self.kind)
        self.check_resized(self.dim.value.data, 1, self.group_size)


@irdl_op_definition
class ShardSliceOp(CollectiveOp):
    """Each rank's part along ``dim`` of a tensor that its whole group holds; nothing is sent."""

    name = "dist.shard_slice"
    dim = attr_def(IntegerAttr)
    SYNTAX: ClassVar[Syntax] = syntax(dim=INT, over=AXES, mesh=ANY)

    def __init__(
        self, value: SSAValue, dim: int, over: Sequence[str], mesh: MeshAttr, type: TensorType[Attribute]
    ) -> None:
        attributes = _attributes(mesh, over, dim=IntegerAttr(dim, 64))
        super().__init__(operands=[value], attributes=attributes, result_types=[type])

    def verify_collective(self) -> None:
        self.check_resized(self.dim.value.data, 1, self.group_size)


DIST = Dialect("dist", [AllReduceOp, AllGatherOp, ReduceScatterOp, ShardSliceOp], [MeshAttr, ShardingAttr])
