"""Contraction of two strided views as one matrix product.

The axes of a pass (slices first, then the nest) are sorted by which operand varies along them: batch (both,
kept), rows (stream only), columns (stationary only), inner (both, summed). Axes that only one operand varies
along and that are summed are added up beforehand; axes that neither varies along become a factor. When the
stream is the same for all slices, the slices are columns like any other: the whole distributed product is one
matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from npuc.ir.pass_binding import Binding, Call
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

    @property
    def form(self) -> tuple[int, int, int, int]:
        """b, m, k and n."""
        return self.batch, self.rows, self.inner, self.columns

    def bind_stream(self, b: Binding, x: Tensor) -> Tensor:
        """x (f32, in ``order``) as [b, m, k]; a view where the strides allow."""
        x = b.summed(x, self.stream_sums)
        if not self.inner:
            return x
        whole = x.expand(*self.leading, *x.shape[len(self.leading) :])
        return b.reshaped(whole, (self.batch, self.rows, self.inner))

    def bind_stationary(self, b: Binding, w: Tensor) -> Tensor:
        """w (f32, in ``order``) as [b, k, n]; a view where the strides allow."""
        w = b.summed(w, self.stationary_sums)
        return self.matrices(b.reshaped(w, self.stored)) if self.inner else w

    @property
    def stored(self) -> tuple[int, int, int]:
        """The extents of the stationary operand's form in the order of its axes."""
        inside = (self.inner, self.columns) if self.columns_last else (self.columns, self.inner)
        return self.batch, *inside

    def matrices(self, w: Tensor) -> Tensor:
        """The stationary operand of the extents ``stored`` as [b, k, n]."""
        return w if self.columns_last else w.transpose(1, 2)

    def bind_product(self, b: Binding, x: Tensor, w: Tensor, *, again: bool) -> Tensor:
        """The product of the bound x and w, in ``shape``.

        Args:
            again: w is the same from run to run, and may be far from the caches.
        """
        out = b.new(self.shape)
        if not self.inner:
            b.calls.append(partial(torch.mul, x, w, out=out))
        elif self.batch > 1:
            b.calls.append(partial(torch.bmm, x, w, out=out.view(self.batch, self.rows, self.columns)))
        elif self.rows == 1 and again and not self.columns_last:
            b.calls += _near_product(x.view(-1), w[0].t(), out.view(-1))
        else:
            b.calls.append(partial(torch.mm, x[0], w[0], out=out.view(self.rows, self.columns)))
        return self.times(b, out)

    def times(self, b: Binding, out: Tensor) -> Tensor:
        """The product as often as it is summed."""
        if self.factor != 1:
            b.calls.append(partial(out.mul_, self.factor))
        return out


def _near_product(x: Tensor, w: Tensor, out: Tensor) -> list[Call]:
    """The product of w [n, k] and x [k], a part of w at a time that was read just before.

    MKL's product reads a matrix that is not in a near cache at a seventh of the rate at which a sum over it
    does (AMD EPYC; 7 and 47 GB/s), so a sum goes first.
    """
    row_bytes = w.shape[1] * w.element_size()
    rows, calls = max(NEAR_BYTES // row_bytes, 1), list[Call]()
    for part, target in zip(w.split(rows), out.split(rows), strict=True):
        if w.shape[0] * row_bytes >= COLD_BYTES:
            calls.append(part.sum)
        calls.append(partial(torch.mv, part, x, out=target))
    return calls


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
