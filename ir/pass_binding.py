"""A pass tied to tensors: a list of calls, every tensor that they read and write made beforehand.

Stages (ir/pass_stages.py) add calls to a `Binding` and say where the running value is then. Values that live
as long as the pass runs lie in a `Scratch`, which passes that do not run at the same time share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod

import torch
from npuc.ir.strided import overlap
from torch import Tensor

F32 = torch.float32
FEW = 4  # parts of an axis that are put together in reverse order faster than flipped
ALIGNED = 16  # elements of a cache line

Call = Callable[[], object]
Views = Mapping[str, Tensor]


class Limits:
    """The limits of a run, which calls read."""

    __slots__ = ("limit", "mask")

    def __init__(self) -> None:
        self.mask = 0
        self.limit = 0


class Scratch:
    """Memory for the values of passes, none of which is needed when its pass has run."""

    def __init__(self) -> None:
        self._flat = torch.empty(0)

    def at(self, offset: int, shape: Sequence[int]) -> Tensor:
        """An f32 tensor that begins ``offset`` elements behind the start."""
        end = offset + prod(shape)
        if end > self._flat.numel():
            self._flat = torch.empty(max(end, 2 * self._flat.numel()))
        return self._flat[offset:end].view(tuple(shape))


class BoundPass:
    """A pass ready to run.

    Attributes:
        calls: what it does, in order.
        limits: of its mask and its reduction.
    """

    __slots__ = ("calls", "limits")

    def __init__(self, calls: list[Call], limits: Limits) -> None:
        self.calls = calls
        self.limits = limits

    def __call__(self, mask_limit: int = 0, limit: int = 0) -> None:
        self.limits.mask, self.limits.limit = mask_limit, limit
        self.run()

    def run(self) -> None:
        """Run with the limits as they are."""
        for call in self.calls:
            call()


class Binding:
    """A pass while it is bound.

    Attributes:
        views: of its ports.
        flips: per port the axes along which its view runs backwards.
        limits: of the run.
        calls: those so far.
        value: the running value.
        stash: what the stream was.
    """

    def __init__(self, views: Views, flips: Mapping[str, tuple[int, ...]], scratch: Scratch) -> None:
        self.views = views
        self.flips = flips
        self.limits = Limits()
        self.calls: list[Call] = []
        self.value = torch.empty(0)
        self.stash = self.value
        self._scratch = scratch
        self._used = 0

    def new(self, shape: Sequence[int]) -> Tensor:
        """An f32 tensor for a value."""
        found = self._scratch.at(self._used, shape)
        self._used += -(-found.numel() // ALIGNED) * ALIGNED
        return found

    def load(self, name: str) -> Tensor:
        """A port as f32, its axes the right way round."""
        view, flips = self.views[name], self.flips[name]
        if not flips and view.dtype == F32:
            return view
        value = self.new(view.shape)
        if not flips:
            self.calls.append(partial(value.copy_, view))
        elif len(flips) == 1 and view.shape[flips[0]] <= FEW:
            parts = view.split(1, flips[0])[::-1]
            self.calls.append(lambda: value.copy_(torch.cat(parts, flips[0])))
        else:
            self.calls.append(lambda: value.copy_(view.to(F32).flip(flips)))
        return value

    def summed(self, value: Tensor, dims: tuple[int, ...]) -> Tensor:
        """The sum over axes, which are kept."""
        if not dims:
            return value
        out = self.new([1 if i in dims else n for i, n in enumerate(value.shape)])
        self.calls.append(partial(torch.sum, value, dims, True, out=out))
        return out

    def reshaped(self, value: Tensor, shape: Sequence[int]) -> Tensor:
        """The value in another shape: a view where the strides allow."""
        formed = shares(value, shape)
        if formed is not None:
            return formed
        gathered = self.new(value.shape)
        self.calls.append(partial(gathered.copy_, value))
        return gathered.view(tuple(shape))

    def store(self, value: Tensor) -> None:
        """Write to the result's place; the value may be one that is read where the result is written."""
        target, flips = self.views["out"], self.flips["out"]
        aliases = "stream" in self.views and value.data_ptr() == self.views["stream"].data_ptr()
        if aliases and overlap(self.views["stream"], target):
            self.calls.append(lambda: target.copy_(value.clone().expand(target.shape).flip(flips)))
        elif flips:
            self.calls.append(lambda: target.copy_(value.expand(target.shape).flip(flips)))
        else:
            self.calls.append(partial(target.copy_, value))


def shares(x: Tensor, shape: Sequence[int]) -> Tensor | None:
    """x in another shape where that shares its memory, else None."""
    try:
        return x.view(tuple(shape))
    except RuntimeError:
        return None
