"""The command model of docs/design.md, section 6, as plain Python loops: what the kernels are tested against.

Values are numpy float32 scalars; a memory is a flat list of numbers, one per element position.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from npuc.ir.commands import CopySpec, PassSpec, Step

F = np.float32


def erf(x: Any) -> float:
    return math.erf(float(x))


UNARY: dict[str, Any] = {
    "exp": np.exp, "sqrt": np.sqrt, "tanh": np.tanh, "sigmoid": lambda v: 1 / (1 + np.exp(-v)), "erf": erf,
    "log": np.log, "sin": np.sin, "cos": np.cos, "abs": np.abs, "floor": np.floor,
}  # fmt: skip
BINARY: dict[str, Any] = {
    "add": lambda v, s: v + s, "sub": lambda v, s: v - s, "rsub": lambda v, s: s - v,
    "mul": lambda v, s: v * s, "div": lambda v, s: v / s, "rdiv": lambda v, s: s / v,
    "max": np.maximum, "min": np.minimum,
    "eq": lambda v, s: v == s, "ne": lambda v, s: v != s, "lt": lambda v, s: v < s, "le": lambda v, s: v <= s,
    "gt": lambda v, s: v > s, "ge": lambda v, s: v >= s,
    "and": lambda v, s: v != 0 and s != 0, "or": lambda v, s: v != 0 or s != 0,
}  # fmt: skip
FOLD: dict[str, Any] = {
    "add": (lambda a, b: a + b, 0.0),
    "max": (np.maximum, -math.inf),
    "min": (np.minimum, math.inf),
}


def indices(size: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return itertools.product(*(range(n) for n in size))


class NaivePass:
    """One pass over memories: port name → (list of elements, offset)."""

    def __init__(self, spec: PassSpec, memory: dict[str, tuple[list[Any], int]], mask_limit: int, limit: int):
        self.spec, self.memory, self.mask_limit, self.limit = spec, memory, mask_limit, limit

    def place(self, port: str, s: int, index: tuple[int, ...]) -> int:
        strides = self.spec.ports()[port].strides
        return (
            self.memory[port][1]
            + s * strides[0]
            + sum(i * d for i, d in zip(index, strides[1:], strict=True))
        )

    def read(self, port: str, s: int, index: tuple[int, ...]) -> Any:
        return F(self.memory[port][0][self.place(port, s, index)])

    def source_slice(self, s: int, index: tuple[int, ...]) -> int:
        return s if self.spec.ring_dim is None else index[self.spec.ring_dim]

    def stream(self, s: int, index: tuple[int, ...]) -> Any:
        if self.spec.stream is None:
            return F(self.spec.fill)
        origin = self.source_slice(s, index)
        mask = self.spec.mask
        if mask is not None and index[mask.dim] + origin * mask.slice_step >= self.mask_limit:
            return F(0)
        return self.read("stream", origin, index)

    def stationary(self, s: int, index: tuple[int, ...]) -> Any:
        within = self.spec.within
        if within is not None and index[within.dim] + s * within.slice_step >= self.mask_limit:
            return F(0)
        return self.read("stationary", s, index)

    def kept(self, index: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(0 if d in self.spec.reduce else i for d, i in enumerate(index))

    def run(self) -> dict[int, Any]:
        """Out position → value, before the cast."""
        slices, size = range(self.spec.slices), self.spec.size
        values = {(s, i): self.stream(s, i) for s in slices for i in indices(size)}
        stash = dict(values)
        if self.spec.stationary is not None:
            sums: dict[Any, Any] = {}
            for (s, i), x in values.items():
                key = (s, self.kept(i))
                sums[key] = sums.get(key, F(0)) + x * self.stationary(s, i)
            values = sums
        for step in self.spec.chain:
            values = self.step(step, values, stash)
        return {self.place("out", s, i): v for (s, i), v in values.items()}

    def step(self, step: Step, values: dict[Any, Any], stash: dict[Any, Any]) -> dict[Any, Any]:
        scope, _, kind = step.op.partition("_")
        if scope == "reduce":
            return self.fold(
                kind, values, lambda key: (key[0], self.kept(key[1])), self.spec.limit is not None
            )
        if scope == "ring":
            neighbours = int(step.value) if step.source == "imm" else self.spec.slices

            def group(key: Any) -> Any:
                return key[0] // neighbours, key[1]

            total = self.fold(kind, values, group, False)
            return {key: total[group(key)] for key in values}
        if step.op in UNARY:
            return {key: F(UNARY[step.op](v)) for key, v in values.items()}

        def source(key: Any) -> Any:
            if step.source == "imm":
                return F(step.value)
            return stash[key] if step.source == "stash" else self.read(step.source, *key)

        if step.op == "select":
            return {key: v if source(key) != 0 else F(step.value) for key, v in values.items()}
        return {key: F(BINARY[step.op](v, source(key))) for key, v in values.items()}

    def fold(self, kind: str, values: dict[Any, Any], group: Any, limited: bool) -> dict[Any, Any]:
        function, identity = FOLD[kind]
        total: dict[Any, Any] = {}
        for key, v in values.items():
            outside = False
            if limited:
                bound = self.spec.limit
                assert bound is not None
                outside = key[1][bound.dim] + self.source_slice(*key) * bound.slice_step >= self.limit
            start = total.get(group(key), F(identity))
            total[group(key)] = start if outside else F(function(start, v))
        return total


def naive_copy(
    spec: CopySpec, src: list[Any], src_at: int, dst: list[Any], dst_at: int, index: Any, limit: int | None
) -> None:
    """Copy element by element; everything is read first."""
    moved: list[tuple[int, Any]] = []
    for i in indices(spec.size):
        if limit is not None and i[0] >= limit:
            continue
        strides = list(spec.src)
        start = src_at
        if spec.index_dim is not None:
            strides[spec.index_dim] = 0
            start += int(index[i[spec.index_dim]]) * spec.index_scale
        source = start + sum(a * b for a, b in zip(i, strides, strict=True))
        moved.append((dst_at + sum(a * b for a, b in zip(i, spec.dst, strict=True)), src[source]))
    for place, value in moved:
        dst[place] = value
