"""The stages that a pass is prepared from; each adds calls to a binding: see ir/pass_kernel.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from npuc.ir.chain import BINARY, SELECT, UNARY
from npuc.ir.command_spec import BIT_TYPES, Step
from npuc.ir.pass_binding import Binding, Call
from npuc.ir.strided import overlap
from torch import Tensor

Stage = Callable[[Binding], None]
"""Adds the calls of a stage and sets the running value."""

Source = Callable[[Binding], Tensor]
"""Adds the calls that fetch a step's source, and gives it."""

Clear = Callable[[Tensor, int], None]

RING = "ring"  # source of a reduce step that reduces over the slices too
ZERO = torch.tensor(0.0)


class Reach(NamedTuple):
    """A bound ready to test: an element is inside when ``position`` < limit; all are when ``top`` ≤ limit.

    ``of`` names the limit.
    """

    position: Tensor
    top: int
    shape: tuple[int, ...]
    of: str


def joined_sums(steps: Sequence[Step]) -> list[Step]:
    """The steps, a reduction over the nest and then over the slices made one."""
    found: list[Step] = []
    for step in steps:
        before = found[-1].op if found else ""
        if (
            step.op.startswith("ring_")
            and step.source == "none"
            and before == step.op.replace("ring_", "reduce_")
        ):
            found[-1] = Step(before, RING)
        else:
            found.append(step)
    return found


def joined(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of two values together; extents differ only where one is 1."""
    return tuple(max(n, m) for n, m in zip(a, b, strict=True))


def bounded(b: Binding, reach: Reach, v: Tensor, outside: Tensor) -> Tensor:
    """v, with ``outside`` beyond the limit."""
    out = b.new(joined(tuple(v.shape), reach.shape))
    limits, (position, top, _, of) = b.limits, reach
    last = 0, position < 0  # a limit, and what is inside of it

    def call() -> None:
        nonlocal last
        limit: int = getattr(limits, of)
        if limit >= top:
            out.copy_(v)
            return
        if last[0] != limit:
            last = limit, position < limit
        torch.where(last[1], v, outside, out=out)

    b.calls.append(call)
    return out


def step_call(step: Step, v: Tensor, source: Tensor | None, out: Tensor) -> Call:
    """The call of a step that works on each element: ``out`` = op(v, source)."""
    if source is None:
        return UNARY[step.op](v, out)
    if step.op == SELECT:
        value = torch.tensor(step.value)
        return lambda: torch.where(source != 0, v, value, out=out)
    return BINARY[step.op](v, source, out)


def move(b: Binding) -> None:
    """Move elements bit for bit."""
    source, target = b.views["stream"], b.views["out"]
    reads, writes = b.flips["stream"], b.flips["out"]
    if reads or writes:
        shape = target.shape
        b.calls.append(lambda: target.copy_(source.flip(reads).expand(shape).flip(writes)))
    elif overlap(source, target):
        b.calls.append(lambda: target.copy_(source.clone()))
    elif source.numel() < target.numel() and not source.is_contiguous():  # gather once, then broadcast
        b.calls.append(lambda: target.copy_(source.contiguous()))
    else:
        b.calls.append(partial(target.copy_, source))


def masked_move(b: Binding, reach: Reach, clear: Clear | None) -> None:
    """Move elements and clear those outside the mask."""
    bits = BIT_TYPES[b.views["out"].element_size()]
    source, target = b.views["stream"].view(bits), b.views["out"].view(bits)
    reads, writes = b.flips["stream"], b.flips["out"]
    clones, nothing, limits = overlap(source, target), torch.zeros((), dtype=bits), b.limits

    def call() -> None:
        x = source.flip(reads) if reads else source.clone() if clones else source
        partly = limits.mask < reach.top
        if partly and (writes or clear is None):
            x = torch.where(reach.position < limits.mask, x, nothing)
        target.copy_(x.expand(target.shape).flip(writes) if writes else x)
        if partly and not writes and clear is not None:
            clear(target, limits.mask)

    b.calls.append(call)


def clearing(axes: Mapping[int, int], shape: tuple[int, ...]) -> Clear | None:
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


def to_integers(v: Tensor, dtype: torch.dtype) -> Tensor:
    """v to nearest even integers, saturated to the range of an integer type (exact: f64)."""
    info = torch.iinfo(dtype)
    wide = v.to(torch.float64).round_()
    return torch.nan_to_num_(wide, nan=0.0).clamp_(info.min, info.max)
