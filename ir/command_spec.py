"""Passes and copies as values: what a command does, without addresses, run-time limits and machine.

ir/commands.py says what they mean and runs them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from npuc.ir.errors import UserError
from torch import Tensor

TORCH_TYPES: dict[str, torch.dtype] = {
    "f32": torch.float32,
    "bf16": torch.bfloat16,
    "f16": torch.float16,
    "f8e4m3": torch.float8_e4m3fn,
    "f8e4m3fn": torch.float8_e4m3fn,
    "f8e5m2": torch.float8_e5m2,
    "i32": torch.int32,
    "i16": torch.int16,
    "i8": torch.int8,
    "u8": torch.uint8,
    "i1": torch.uint8,
}
"""Element type name, lower case → torch type. i1 takes a byte, 0 or 1."""

BIT_TYPES = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of an element → the type in which copies move it."""

MAX_NEST = 8
MAX_STEPS = 12


def torch_type(name: str) -> torch.dtype:
    """The torch type of an element type.

    Raises:
        UserError: unsupported-type: the simulator does not store this type.
    """
    found = TORCH_TYPES.get(name.lower())
    if found is None:
        known = ", ".join(TORCH_TYPES)
        raise UserError(
            "unsupported-type", f"no arithmetic for element type {name}", remedy=f"known: {known}"
        )
    return found


class At(NamedTuple):
    """An operand's place: a one-dimensional tensor and the position of nest index 0, slice 0 in it."""

    flat: Tensor
    offset: int


@dataclass(frozen=True)
class Port:
    """The layout of a pass's operand: its type and its strides in elements, [slice, nest...].

    0 stands for reused or reduced. The stream's slice stride is also given where it walks over the slices.
    """

    dtype: torch.dtype
    strides: tuple[int, ...]


class Step(NamedTuple):
    """One step of the chain, ``v = op(v, source)``."""

    op: str
    source: str = "none"
    value: float = 0.0


class Bound(NamedTuple):
    """Elements with index[dim] + slice · slice_step ≥ the run's limit are outside."""

    dim: int
    slice_step: int = 0


@dataclass(frozen=True)
class PassSpec:
    """A pass without addresses and run-time limits.

    Attributes:
        size: extents of the nest, outermost first, at most 8.
        out: layout of the result.
        slices: slices that run in lockstep.
        reduce: summed nest dimensions.
        stream, stationary, operand, vrf: layouts of the operands, None where unused.
        ring_dim: nest dimension along which the stream walks over the slices.
        mask: elements of the stream outside become 0; the run's ``mask_limit``.
        chain: at most 12 steps.
        limit: elements outside do not take part in the reduce step; the run's ``limit``.
        fill: the value of a pass without stream.
        within: elements of the stationary operand outside are 0, their slice being the own one; the run's
            ``mask_limit``. No command says so: what a masked pass moved is multiplied where it came from.
    """

    size: tuple[int, ...]
    out: Port
    slices: int = 1
    reduce: frozenset[int] = frozenset()
    stream: Port | None = None
    stationary: Port | None = None
    operand: Port | None = None
    vrf: Port | None = None
    ring_dim: int | None = None
    mask: Bound | None = None
    chain: tuple[Step, ...] = ()
    limit: Bound | None = None
    fill: float = 0.0
    within: Bound | None = None

    def ports(self) -> dict[str, Port]:
        """The ports in use by name."""
        named = {
            "stream": self.stream,
            "stationary": self.stationary,
            "operand": self.operand,
            "vrf": self.vrf,
            "out": self.out,
        }
        return {name: port for name, port in named.items() if port is not None}


@dataclass(frozen=True)
class CopySpec:
    """A copy without addresses and run-time limit.

    Attributes:
        size: extents of the nest.
        item: bytes of an element.
        src, dst: element strides of the nest, slices already folded in.
        index_dim: dimension whose step i reads at index[i] · index_scale instead of i · its stride.
        index_scale: in elements.
    """

    size: tuple[int, ...]
    item: int
    src: tuple[int, ...]
    dst: tuple[int, ...]
    index_dim: int | None = None
    index_scale: int = 0


def bad_command(message: str) -> UserError:
    """The error of a command that has no meaning; callers add where it stands."""
    return UserError("bad-command", message)
