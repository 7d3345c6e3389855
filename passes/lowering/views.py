"""Strided views of buffers, and nests over several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod

from npuc.ir.shapes import row_major_strides
from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Attribute, SSAValue

IndexTerms = tuple[tuple[SSAValue, int], ...]


@dataclass(frozen=True)
class View:
    """A tensor as it lies in a buffer; shape and strides are those of one slice, in elements.

    Attributes:
        buffer: the memref.
        shape: sizes of the dimensions; the last one is the chunk where the tensor is sliced.
        strides: element strides.
        offset: element offset of the first element.
        size: the whole tensor's last dimension.
        chunk: elements of the last dimension per slice; 0 where the tensor is not sliced.
        index: index values times coefficients, added to the offset.
    """

    buffer: SSAValue
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    size: int = 0
    chunk: int = 0
    index: IndexTerms = ()

    @property
    def element(self) -> Attribute:
        """The stored element type."""
        kind = self.buffer.type
        assert isinstance(kind, MemRefType)
        return kind.element_type

    @property
    def logical_shape(self) -> tuple[int, ...]:
        """The whole tensor's shape."""
        return (*self.shape[:-1], self.size) if self.chunk else self.shape

    def moved(self, offset: int, terms: IndexTerms = ()) -> View:
        """The view `offset` elements (and index terms) further on."""
        return replace(self, offset=self.offset + offset, index=(*self.index, *terms))

    def broadcast(self, shape: Sequence[int]) -> View:
        """The view repeated to a shape."""
        return replace(self, shape=tuple(shape), strides=self.broadcast_strides(shape))

    def broadcast_strides(self, shape: Sequence[int]) -> tuple[int, ...]:
        """Strides over a shape that this view broadcasts to; sizes of 1 repeat."""
        missing = len(shape) - len(self.shape)
        own = zip(self.shape, self.strides, shape[missing:], strict=True)
        return (0,) * missing + tuple(0 if mine == 1 else stride for mine, stride, _ in own)


def dense(buffer: SSAValue, shape: Sequence[int], size: int = 0, chunk: int = 0) -> View:
    """The row-major view of a buffer."""
    last = size or (shape[-1] if shape else 1)
    return View(buffer, tuple(shape), row_major_strides(shape), size=last, chunk=chunk)


def window(view: View, dim: int, tile: tuple[int, ...], index: SSAValue | int) -> View:
    """A tile of a view along a dimension (negative: the whole), by its number.

    Args:
        tile: its shape.
    """
    if dim < 0:
        return view
    rows = tile[dim]
    shape, step = (*view.shape[:dim], rows, *view.shape[dim + 1 :]), rows * view.strides[dim]
    moved = view.moved(index * step) if isinstance(index, int) else view.moved(0, ((index, step),))
    return replace(moved, shape=shape)


def reshape_strides(
    shape: Sequence[int], strides: Sequence[int], target: Sequence[int]
) -> tuple[int, ...] | None:
    """Strides of the reshaped view, or None where the elements would have to move.

    Follows numpy's rule for reshaping without a copy: groups of dimensions with equal products must be
    contiguous among themselves.
    """
    old = [(n, s) for n, s in zip(shape, strides, strict=True) if n != 1]
    result: list[int] = []
    i = 0
    pending = list(target)
    position = 0
    while position < len(pending):
        if pending[position] == 1:
            result.append(0)
            position += 1
            continue
        start, product = i, 1
        new_product, group = 1, []
        while product != new_product or not group:
            if new_product <= product and position < len(pending):
                new_product *= pending[position]
                group.append(pending[position])
                position += 1
            elif i < len(old):
                product *= old[i][0]
                i += 1
            else:
                return None
        for (_, outer), (n, inner) in zip(old[start:i], old[start + 1 : i], strict=False):
            if outer != n * inner:
                return None
        stride = old[i - 1][1]
        tail: list[int] = []
        for n in reversed(group):
            tail.append(stride)
            stride *= n
        result.extend(reversed(tail))
    return tuple(result)


@dataclass(frozen=True)
class Walk:
    """One operand's walk over a nest."""

    view: View
    strides: tuple[int, ...]
    slices: tuple[int, ...] = ()

    def slice_strides(self) -> tuple[int, ...]:
        """Slice strides, zeros where none are given."""
        return self.slices or (0,) * len(self.strides)


def on_slice(walk: Walk, number: int) -> Walk:
    """The walk moved to a later slice, by way of the buffer's slice extent."""
    kind = walk.view.buffer.type
    assert isinstance(kind, MemRefType)
    per_slice = prod(kind.get_shape()[1:])
    return replace(walk, view=walk.view.moved(number * per_slice))


@dataclass(frozen=True)
class Nest:
    """Loop extents and the operands' walks, with dimensions that must stay apart (`fixed`)."""

    size: tuple[int, ...]
    walks: dict[str, Walk]
    fixed: frozenset[int] = field(default_factory=frozenset)

    def permuted(self, order: Sequence[int]) -> Nest:
        """The same loops in another order, which for each gives its number here."""
        walks = {
            name: Walk(
                walk.view,
                tuple(walk.strides[d] for d in order),
                tuple(walk.slice_strides()[d] for d in order),
            )
            for name, walk in self.walks.items()
        }
        fixed = frozenset(number for number, d in enumerate(order) if d in self.fixed)
        return Nest(tuple(self.size[d] for d in order), walks, fixed)

    def folded(self) -> tuple[Nest, dict[int, int]]:
        """Without extents of 1, neighbours merged where every operand allows; and old → new dimension."""
        kept = [d for d, n in enumerate(self.size) if n != 1 or d in self.fixed]
        groups: list[list[int]] = []
        for d in kept:
            if groups and self._mergeable(groups[-1][-1], d):
                groups[-1].append(d)
            else:
                groups.append([d])
        size: list[int] = []
        for group in groups:
            extent = 1
            for d in group:
                extent *= self.size[d]
            size.append(extent)
        inner = [group[-1] for group in groups]
        walks = {
            name: Walk(
                walk.view,
                tuple(walk.strides[d] for d in inner),
                tuple(walk.slice_strides()[d] for d in inner),
            )
            for name, walk in self.walks.items()
        }
        renamed = {d: i for i, group in enumerate(groups) for d in group}
        fixed = frozenset(renamed[d] for d in self.fixed if d in renamed)
        if not size:
            walks = {name: Walk(walk.view, (0,), (0,)) for name, walk in walks.items()}
            return Nest((1,), walks, fixed), renamed
        return Nest(tuple(size), walks, fixed), renamed

    def _mergeable(self, outer: int, inner: int) -> bool:
        if outer in self.fixed or inner in self.fixed:
            return False
        extent = self.size[inner]
        return all(
            walk.strides[outer] == extent * walk.strides[inner]
            and walk.slice_strides()[outer] == extent * walk.slice_strides()[inner]
            for walk in self.walks.values()
        )
