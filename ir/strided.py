"""Strided views of one-dimensional tensors, with negative strides and without repeated elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class StridedView:
    """A view prepared for any offset: size 1 along axes of stride 0, flipped along those of negative stride.

    Attributes:
        shape: extents, 1 where the stride is 0.
        strides: absolute strides in elements.
        shift: from the element of index 0 down to the lowest element of the view.
        flips: axes whose stride is negative: the view runs against the nest there.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    shift: int
    flips: tuple[int, ...]

    @classmethod
    def of(cls, sizes: Sequence[int], strides: Sequence[int]) -> StridedView:
        """The view of a nest of ``sizes`` with signed element ``strides``."""
        pairs = list(zip(sizes, strides, strict=True))
        return cls(
            shape=tuple(n if s else 1 for n, s in pairs),
            strides=tuple(abs(s) or 1 for _, s in pairs),
            shift=sum(s * (n - 1) for n, s in pairs if s < 0),
            flips=tuple(i for i, s in enumerate(strides) if s < 0),
        )

    def at(self, flat: Tensor, offset: int) -> Tensor:
        """The view of ``flat`` whose nest index 0 lies at ``offset``; still to be flipped along ``flips``."""
        return flat.as_strided(self.shape, self.strides, offset + self.shift)


def element_range(view: Tensor) -> tuple[int, int]:
    """First and last + 1 byte of a view, as addresses of the process."""
    span = sum((n - 1) * s for n, s in zip(view.shape, view.stride(), strict=True)) + 1
    start = view.data_ptr()
    return start, start + span * view.element_size()


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether two views may share a byte while they are not the same.

    Views that walk in equal large steps, as over the slices of a memory, are told apart inside of a step.
    """
    if a.untyped_storage().data_ptr() != b.untyped_storage().data_ptr():
        return False
    if (a.data_ptr(), a.shape, a.stride(), a.dtype) == (b.data_ptr(), b.shape, b.stride(), b.dtype):
        return False
    (a_low, a_high), (b_low, b_high) = element_range(a), element_range(b)
    if a_low >= b_high or b_low >= a_high:
        return False
    step = max(_largest_step(a), _largest_step(b))
    a_span, b_span = _span_within(a, step), _span_within(b, step)
    return (b_low - a_low) % step < a_span or (a_low - b_low) % step < b_span


def _largest_step(view: Tensor) -> int:
    """The largest distance between neighbours along an axis, in bytes."""
    steps = (s * view.element_size() for n, s in zip(view.shape, view.stride(), strict=True) if n > 1)
    return max(steps, default=1)


def _span_within(view: Tensor, step: int) -> int:
    """Bytes from the first to behind the last of the view's elements between two steps."""
    item = view.element_size()
    inside = ((n - 1) * s for n, s in zip(view.shape, view.stride(), strict=True) if s * item != step)
    return (sum(inside) + 1) * item
