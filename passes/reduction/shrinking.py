"""Simpler types: numbers for symbolic sizes, smaller ones for large, in the whole module at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from npuc.ir.graph_types import DimsAttr, shape_of, tensor_type
from npuc.ir.shapes import evaluate
from npuc.passes.placing import placement_of
from npuc.passes.reduction.modules import retype
from xdsl.dialects.builtin import ModuleOp, TensorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.rewriter import Rewriter

SMALL = (1, 2, 4)
"""Sizes that a dimension may shrink to."""
SIZES = (1, 2, 2)
"""What batch, seq and ctx become where symbolic sizes are replaced."""


def dimensions(module: ModuleOp) -> list[tuple[int, int]]:
    """Static sizes of tensors, with each smaller size to try; none once placements depend on them."""
    kinds = {value.type for op in module.walk() for value in _values(op)}
    tensors = [kind for kind in kinds if isinstance(kind, TensorType)]
    if any(placement_of(kind) is not None for kind in tensors):
        return []
    shapes = [shape_of(kind) for kind in tensors]
    sizes = {size for shape in shapes for size in shape if isinstance(size, int) and size > 1}
    return [(size, small) for size in sorted(sizes, reverse=True) for small in SMALL if small < size]


def shrink(module: ModuleOp, number: int) -> bool:
    """Makes every dimension of a size smaller."""
    old, new = dimensions(module)[number]

    def change(kind: TensorType[Attribute]) -> TensorType[Attribute]:
        return tensor_type([new if size == old else size for size in shape_of(kind)], kind.element_type)

    _change(module, change)
    return True


def symbolic_types(module: ModuleOp) -> list[Attribute]:
    """The types with sizes that are not numbers."""
    kinds = dict.fromkeys(value.type for op in module.walk() for value in _values(op))
    return [k for k in kinds if isinstance(k, TensorType) and isinstance(k.encoding, DimsAttr)]


def make_static(module: ModuleOp, number: int) -> bool:
    """Replaces symbolic sizes by numbers."""

    def change(kind: TensorType[Attribute]) -> TensorType[Attribute]:
        if not isinstance(kind.encoding, DimsAttr):
            return kind
        return tensor_type([evaluate(size, SIZES) for size in shape_of(kind)], kind.element_type)

    _change(module, change)
    return True


def noted(module: ModuleOp) -> list[Operation]:
    """Operations that name the checkpoint module they came from."""
    return [op for op in module.walk() if "module" in op.attributes]


def forget_modules(module: ModuleOp, number: int) -> bool:
    """Drops the names of checkpoint modules."""
    for op in noted(module):
        del op.attributes["module"]
    return True


def _values(op: Operation) -> Iterator[SSAValue]:
    """What an operation defines."""
    yield from op.results
    for region in op.regions:
        for block in region.blocks:
            yield from block.args


def _change(module: ModuleOp, change: Callable[[TensorType[Attribute]], TensorType[Attribute]]) -> None:
    for op in list(module.walk()):
        for value in list(_values(op)):
            if isinstance(value.type, TensorType):
                Rewriter.replace_value_with_new_type(value, change(value.type))
        declared = op.attributes.get("type")
        if isinstance(declared, TensorType):
            op.attributes["type"] = change(declared)
    for op in module.walk():
        if isinstance(op, FuncOp):
            retype(op)
