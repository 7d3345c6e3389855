"""Chains of layers: calls each of which goes on with what the one before returned.

A chain becomes one operator, ``npuc::layers``, whatever its length and its layers' kinds: what torch.export
does for each call of the outer graph does not grow with depth. The operator stands where the chain ends,
since only there all that its layers read has been computed.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from npuc.frontends.layer_kinds import LayerKind


@dataclass
class LayerCall:
    """One layer's call in a run of the whole model.

    Attributes:
        inputs: its tensors.
        results: what replaces those that the kind carries.
        followed: the next call carries the results, in order.
        shared: others than the next call read a result.
    """

    kind: LayerKind
    index: int
    inputs: Sequence[Tensor]
    results: Sequence[Tensor]
    followed: bool = False
    shared: bool = False

    @property
    def goes_on(self) -> bool:
        """Whether nothing but the next layer depends on the results."""
        return self.followed and not self.shared

    def carried(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Those of the call's tensors that the layer replaces."""
        return [tensors[i] for i in self.kind.carried]


class CallRecorder(TorchDispatchMode):
    """Records the layer calls of a run, and whether others than the next layer read what they return."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[LayerCall] = []
        self._owners: dict[int, LayerCall] = {}  # by identity of a result, which its call keeps alive
        self._inside = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not self._inside:
            self.read(pytree.tree_leaves((args, kwargs)))
        return func(*args, **(kwargs or {}))

    @contextmanager
    def inside(self) -> Generator[None]:
        """What runs here belongs to a layer."""
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def read(self, values: Iterable[Any]) -> None:
        """Something that is not the next layer reads these values."""
        for value in values:
            if id(value) in self._owners:
                self._owners[id(value)].shared = True

    def add(self, call: LayerCall) -> None:
        """Records a call."""
        carried = [id(x) for x in call.carried(call.inputs)]
        previous = self.calls[-1] if self.calls else None
        follows = previous is not None and [id(x) for x in previous.results] == carried
        if previous is not None:
            previous.followed = follows
        self.read(x for i, x in enumerate(call.inputs) if not follows or i not in call.kind.carried)
        self.calls.append(call)
        self._owners |= {id(result): call for result in call.results}


@dataclass(frozen=True)
class Link:
    """A layer of a chain; `inputs` says which of the operator's inputs it reads.

    Where that is one that the chain carries, and the kind does too, it is what the layer before returned.
    """

    kind: LayerKind
    index: int
    inputs: tuple[int, ...]


class ChainTracer:
    """Stands in for the layers while the outer graph is traced; the calls are those of a recorded run."""

    def __init__(self, calls: Sequence[LayerCall]) -> None:
        self.chains: list[list[Link]] = []
        self._calls = iter(calls)
        self._pending: list[tuple[LayerCall, Sequence[Tensor]]] = []

    def call(self, index: int, tensors: Sequence[Tensor]) -> Any:
        """What the layer returns: inside a chain what it was given, at its end the operator's results."""
        call = next(self._calls)
        assert call.index == index
        self._pending.append((call, tensors))
        carried = call.carried(tensors)
        return call.kind.results(carried if call.goes_on else self._operator())

    def _operator(self) -> list[Tensor]:
        places: dict[int, int] = {}
        inputs: list[Tensor] = []
        for _, tensors in self._pending:
            for tensor in tensors:
                if places.setdefault(id(tensor), len(inputs)) == len(inputs):
                    inputs.append(tensor)
        links = [
            Link(call.kind, call.index, tuple(places[id(tensor)] for tensor in tensors))
            for call, tensors in self._pending
        ]
        self._pending = []
        self.chains.append(links)
        carried = [links[0].inputs[i] for i in links[0].kind.carried]
        return torch.ops.npuc.layers(inputs, carried, len(self.chains) - 1)
