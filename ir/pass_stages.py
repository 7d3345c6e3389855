"""The stages that a pass is prepared from, as functions of tensors: see ir/pass_kernel.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from npuc.ir.command_spec import Step
from npuc.ir.strided import as_f32, overlap
from torch import Tensor

F32 = torch.float32


class RunState:
    """What a run carries beside the running value: its limits and the stash."""

    __slots__ = ("limit", "mask_limit", "stash")

    def __init__(self) -> None:
        self.mask_limit = 0
        self.limit = 0
        self.stash: Tensor | None = None


Views = Mapping[str, Tensor]
Stage = Callable[[Tensor, RunState], Tensor]
Maker = Callable[[Views], Stage]
RunPass = Callable[..., None]
"""Called with (mask_limit, limit), both 0 by default."""

NOTHING = torch.empty(0)
FEW = 4  # parts of an axis that are put together in reverse order faster than flipped
RING = "ring"  # source of a reduce step that reduces over the slices too
ZERO = torch.tensor(0.0)


class Reach(NamedTuple):
    """A bound ready to test: an element is inside when ``position`` < limit; all are when ``top`` ≤ limit."""

    position: Tensor
    top: int
    shape: tuple[int, ...]


def move(source: Tensor, target: Tensor, reads: tuple[int, ...], writes: tuple[int, ...]) -> Stage:
    """Move elements bit for bit; ``reads`` and ``writes`` are the axes that run backwards."""
    if reads or writes:
        shape = target.shape
        return lambda v, state: target.copy_(source.flip(reads).expand(shape).flip(writes))
    if overlap(source, target):
        return lambda v, state: target.copy_(source.clone())
    if source.numel() < target.numel() and not source.is_contiguous():  # gather once, then broadcast
        return lambda v, state: target.copy_(source.contiguous())
    return lambda v, state: target.copy_(source)


def loader(view: Tensor, flips: tuple[int, ...]) -> Callable[[], Tensor]:
    """The function that fetches a view as f32, its axes ``flips`` backwards."""
    if len(flips) == 1 and view.shape[flips[0]] <= FEW:
        parts = view.split(1, flips[0])[::-1]
        return lambda: torch.cat(parts, flips[0]).to(F32)
    if flips:
        return lambda: as_f32(view.to(F32).flip(flips))
    if view.dtype == F32:
        return lambda: view
    return lambda: as_f32(view)


def joined_sums(steps: Sequence[Step]) -> list[Step]:
    """The steps, a reduction over the nest and then over the slices made one."""
    found: list[Step] = []
    for step in steps:
        before = found[-1].op if found else ""
        if step.op.startswith("ring_") and before == step.op.replace("ring_", "reduce_"):
            found[-1] = Step(before, RING)
        else:
            found.append(step)
    return found


def joined(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of two values together; extents differ only where one is 1."""
    return tuple(max(n, m) for n, m in zip(a, b, strict=True))


def expanded(v: Tensor, shape: tuple[int, ...]) -> Tensor:
    return v if v.shape == shape else v.expand(shape)


def bounded(
    reach: Reach, shape: tuple[int, ...], outside: Tensor
) -> tuple[Callable[[Tensor, int], Tensor], tuple[int, ...]]:
    """The function (value, limit) → value with ``outside`` beyond the limit, and the shape of its result."""
    whole = joined(shape, reach.shape)
    position, top = reach.position, reach.top

    last = 0, position < 0  # a limit, and what is inside of it; one value, for cores run in threads

    def run(v: Tensor, limit: int) -> Tensor:
        nonlocal last
        if limit < top:
            known = last
            if known[0] != limit:
                known = last = limit, position < limit
            v = torch.where(known[1], v, outside)
        return expanded(v, whole)

    return run, whole


def clearing(axes: Mapping[int, int], shape: tuple[int, ...]) -> Callable[[Tensor, int], None] | None:
    """The function (tensor, limit) that clears what lies outside of a bound: whole steps, and part of one.

    None unless the bound's position counts elements of axis ``inner`` inside steps of axis ``outer``.
    """
    inner = next((axis for axis, step in axes.items() if step == 1), None)
    outer = next((axis for axis in axes if axis != inner), None)
    if inner is None or outer is None or len(axes) != 2 or axes[outer] < shape[inner]:
        return None
    stride = axes[outer]

    def clear(x: Tensor, limit: int) -> None:
        step, rest = divmod(max(limit, 0), stride)
        if step + 1 < shape[outer]:
            x.narrow(outer, step + 1, shape[outer] - step - 1).zero_()
        if step < shape[outer] and rest < shape[inner]:
            x.select(outer, step).narrow(inner - (outer < inner), rest, shape[inner] - rest).zero_()

    return clear


def select(source: Callable[[Views], Callable[[RunState], Tensor]], value: Tensor) -> Maker:
    def make(views: Views) -> Stage:
        read = source(views)
        return lambda v, state: torch.where(read(state) != 0, v, value)

    return make


def binary(
    function: Callable[[Tensor, Tensor, Tensor | None], Tensor],
    source: Callable[[Views], Callable[[RunState], Tensor]],
    *,
    in_place: bool,
) -> Maker:
    def make(views: Views) -> Stage:
        read = source(views)
        if in_place:
            return lambda v, state: function(v, read(state), v)
        return lambda v, state: function(v, read(state), None)

    return make


def as_view(form: Callable[[Tensor], Tensor], x: Tensor) -> Tensor | None:
    """form(x) where that shares x's memory, else None."""
    formed = form(x)
    return formed if formed.untyped_storage().data_ptr() == x.untyped_storage().data_ptr() else None


def to_integers(v: Tensor, dtype: torch.dtype) -> Tensor:
    """v to nearest even integers, saturated to the range of an integer type (exact: f64)."""
    info = torch.iinfo(dtype)
    wide = v.to(torch.float64).round_()
    return torch.nan_to_num_(wide, nan=0.0).clamp_(info.min, info.max)
