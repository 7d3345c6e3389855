"""Contraction of two strided views as one matrix product.

The axes of a pass (slices first, then the nest) are sorted by which operand varies along them: batch (both,
kept), rows (stream only), columns (stationary only), inner (both, summed). Axes that only one operand varies
along and that are summed are added up beforehand; axes that neither varies along become a factor. When the
stream is the same for all slices, the slices are columns like any other: the whole distributed product is one
matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

SMALL_SLICE = 16384  # elements of one slice's part up to which gathering beats one product per slice
FEW_ROWS = 4  # up to which one product per slice beats gathering anyway, unless that is
TINY_SLICE = 512  # elements or less of a slice's part
NEAR_BYTES = 512 << 10  # what is read once more right after it was read is still in a near cache
COLD_BYTES = 32 << 10  # from which on a matrix is worth reading twice


@dataclass(frozen=True)
class Contraction:
    """How to contract a stream x and a stationary operand w, both with axes in ``order``.

    x and w have size 1 along the axes they do not vary along. The result has the axes in ``order`` too, with
    size 1 along the axes it does not vary along.

    Attributes:
        order: permutation of the axes: batch, rows, columns and inner (or inner and columns), others.
        shape: shape of the result, in ``order``.
        batch, rows, columns, inner: the extents b, m, n, k of the product [b, m, k] x [b, k, n]; ``inner`` is
            0 where nothing is summed: an elementwise product.
        leading: the extents of the batch axes.
        column_places, inner_places: positions in ``order`` of their axes.
        columns_last: the stationary operand is stored with its columns innermost: [b, k, n].
        stream_sums, stationary_sums: positions in ``order`` summed before the product.
        factor: how often each sum is repeated, from summed axes along which nothing varies.
    """

    order: tuple[int, ...]
    shape: tuple[int, ...]
    batch: int
    rows: int
    columns: int
    inner: int
    leading: tuple[int, ...]
    column_places: range
    inner_places: range
    columns_last: bool
    stream_sums: tuple[int, ...]
    stationary_sums: tuple[int, ...]
    factor: int

    def stream_form(self, x: Tensor) -> Tensor:
        """x (f32, in ``order``) as [m, k] or [b, m, k]; a view where the strides allow."""
        if self.stream_sums:
            x = x.sum(self.stream_sums, keepdim=True)
        if not self.inner:
            return x
        if self.batch == 1:
            return x.reshape(self.rows, self.inner)
        whole = x.expand(*self.leading, *x.shape[len(self.leading) :])
        return whole.reshape(self.batch, self.rows, self.inner)

    def stationary_form(self, w: Tensor) -> Tensor:
        """w (f32, in ``order``) as [k, n] or [b, k, n]; a view where the strides allow."""
        if self.stationary_sums:
            w = w.sum(self.stationary_sums, keepdim=True)
        if not self.inner:
            return w
        if self.columns_last:
            form = (self.inner, self.columns)
            return w.reshape(form if self.batch == 1 else (self.batch, *form))
        if self.batch == 1:
            return w.reshape(self.columns, self.inner).t()
        return w.reshape(self.batch, self.columns, self.inner).transpose(1, 2)

    def product_with(self, w: Tensor) -> Callable[[Tensor], Tensor]:
        """The function of the stream_form → f32 tensor of ``shape``, for one stationary_form again and again.

        What it returns may be overwritten, and is by its next call.
        """
        matrix_vector = self.inner and self.batch == self.rows == 1 and self.factor == 1
        if matrix_vector and not self.columns_last:
            return self._near_product(w.t())
        multiply = self.product()
        return lambda x: multiply(x, w)

    def _near_product(self, w: Tensor) -> Callable[[Tensor], Tensor]:
        """The product of w [n, k] and a vector, a part of w at a time that was read just before.

        MKL's product reads a matrix that is not in a near cache at a seventh of the rate at which a sum over
        it does (AMD EPYC; 7 and 47 GB/s), so a sum goes first.
        """
        out = torch.empty(self.columns)
        result, row_bytes = out.view(self.shape), self.inner * w.element_size()
        cold = self.columns * row_bytes >= COLD_BYTES
        rows = max(NEAR_BYTES // row_bytes, 1)
        parts = list(zip(w.split(rows), out.split(rows), strict=True))

        def run(x: Tensor) -> Tensor:
            x = x.view(-1)
            for part, target in parts:
                if cold:
                    part.sum()
                torch.mv(part, x, out=target)
            return result

        return run

    def product(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The function of (stream_form, stationary_form) → fresh f32 tensor of ``shape``."""
        function = torch.mul if not self.inner else torch.mm if self.batch == 1 else torch.bmm
        shape, factor = self.shape, self.factor

        def run(x: Tensor, w: Tensor) -> Tensor:
            v = function(x, w).view(shape)
            return v.mul_(factor) if factor != 1 else v

        return run


def mergeable(sizes: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether axes of these sizes and strides, outermost first, form one strided axis."""
    return all(strides[i] == strides[i + 1] * sizes[i + 1] for i in range(len(sizes) - 1))


def plan_contraction(
    sizes: Sequence[int],
    reduced: Sequence[bool],
    stream: Sequence[int],
    stationary: Sequence[int],
    *,
    gathers: bool,
) -> Contraction:
    """Sort the axes and choose the form of the product.

    Args:
        sizes: extents of the axes; axis 0 is the slices.
        reduced: which axes are summed.
        stream: strides of the stream; nonzero where it varies.
        stationary: strides of the stationary operand.
        gathers: the stationary operand is copied anyway (converted to f32), so its strides do not matter.
    """
    axes = range(len(sizes))
    both = [a for a in axes if stream[a] and stationary[a]]
    batch = [a for a in both if not reduced[a]]
    inner = _by_stride([a for a in both if reduced[a]], stationary)
    rows = _by_stride([a for a in axes if stream[a] and not stationary[a] and not reduced[a]], stream)
    columns = _by_stride([a for a in axes if stationary[a] and not stream[a] and not reduced[a]], stationary)
    distributed = 0 in columns and bool(inner) and not gathers
    if distributed and _one_product_per_slice(columns, rows, inner, sizes, stationary):
        columns.remove(0)
        batch.insert(0, 0)
    columns_last = bool(inner) and bool(columns) and abs(stationary[columns[-1]]) < abs(stationary[inner[-1]])
    ordered = [*batch, *rows, *(inner + columns if columns_last else columns + inner)]
    first, end = len(batch) + len(rows), len(ordered)
    middle = first + len(inner if columns_last else columns)
    order = (*ordered, *(a for a in axes if a not in ordered))
    kept = {*batch, *rows, *columns}
    lone = [a for a in axes if reduced[a] and a not in inner]  # summed, but not varied along by both
    return Contraction(
        order=order,
        shape=tuple(sizes[a] if a in kept else 1 for a in order),
        batch=prod(sizes[a] for a in batch),
        rows=prod(sizes[a] for a in rows),
        columns=prod(sizes[a] for a in columns),
        inner=prod(sizes[a] for a in inner) if inner else 0,
        leading=tuple(sizes[a] for a in batch),
        column_places=range(middle, end) if columns_last else range(first, middle),
        inner_places=range(first, middle) if columns_last else range(middle, end),
        columns_last=columns_last,
        stream_sums=tuple(i for i, a in enumerate(order) if a in lone and stream[a]),
        stationary_sums=tuple(i for i, a in enumerate(order) if a in lone and stationary[a]),
        factor=prod(sizes[a] for a in lone if not stream[a] and not stationary[a]),
    )


def _by_stride(axes: list[int], strides: Sequence[int]) -> list[int]:
    """Outermost first, so that the axes merge into one wherever that is possible."""
    return sorted(axes, key=lambda a: -abs(strides[a]))


def _one_product_per_slice(
    columns: list[int], rows: list[int], inner: list[int], sizes: Sequence[int], strides: Sequence[int]
) -> bool:
    """Whether the columns of all slices are better left apart: they lie apart and are not worth gathering."""
    apart = not mergeable([sizes[a] for a in columns], [strides[a] for a in columns])
    part = prod(sizes[a] for a in [*columns, *inner] if a != 0)
    few = prod(sizes[a] for a in rows) <= FEW_ROWS and part > TINY_SLICE
    return apart and (few or part > SMALL_SLICE)
