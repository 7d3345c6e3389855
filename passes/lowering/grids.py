"""Tensors over a grid of slices: how they get there from arrays, and back."""

from __future__ import annotations

from math import prod

from npuc.ir.tile_placements import GridAttr
from npuc.passes.lowering.emitter import Emitter
from npuc.passes.lowering.views import Nest, View, Walk
from npuc.passes.placing import placement_of
from xdsl.ir import Attribute, SSAValue


def grid_of(value: SSAValue | Attribute) -> GridAttr | None:
    """The grid that a tensor lies on, if it lies on one."""
    placement = placement_of(value)
    return placement if isinstance(placement, GridAttr) else None


def load(emit: Emitter, source: View, own: View, grid: GridAttr, *, everywhere: bool = False) -> None:
    """Copies every slice's part of an array.

    Args:
        source: […, size] in main memory; or `everywhere`: in every slice.
        own: what a slice gets.
    """
    size, mine, theirs, slices = _walks(emit, own, source, grid)
    walks = {"src": Walk(source, theirs, slices if everywhere else ()), "dst": Walk(own, mine, slices)}
    emit.emit_copy(Nest(size, walks))


def store(emit: Emitter, own: View, target: View, grid: GridAttr) -> None:
    """Copies every slice's part to an array in main memory."""
    size, mine, theirs, slices = _walks(emit, own, target, grid)
    emit.emit_copy(Nest(size, {"src": Walk(own, mine, slices), "dst": Walk(target, theirs)}))


def _walks(
    emit: Emitter, own: View, whole: View, grid: GridAttr
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Sizes of a walk over the grid, both views' strides, and the slices' strides."""
    columns, block = grid.columns.data, grid.block.data
    rows, width = emit.geometry.slices // columns, own.shape[-1]
    row, mine = (view.strides[-2] if len(view.strides) > 1 else 0 for view in (whole, own))
    count = prod(own.shape[:-1])
    size = block or count
    next_row = block * row
    return (
        (count // size, rows, size, columns, width),
        (size * mine, 0, mine, 0, own.strides[-1]),
        (rows * next_row, next_row, row, width * whole.strides[-1], whole.strides[-1]),
        (0, columns, 0, 1, 0),
    )
