"""Emits tile operations: allocations, passes and copies over views."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import gcd, inf, prod
from typing import TypeVar

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.ir.tile import CopySpec, Limit, PassSpec, Port, Step
from npuc.passes.algorithms.chains import VectorUnits, split_chain
from npuc.passes.algorithms.contractions import Axis, orders
from npuc.passes.algorithms.geometry import Geometry
from npuc.passes.costs import ABOUT, cheapest, cycles_together, operands_of
from npuc.passes.lowering.views import Nest, View, Walk, dense
from xdsl.dialects.builtin import LocationAttr, MemRefType, UnknownLoc, f32
from xdsl.ir import Attribute, Block, Operation, SSAValue

T = TypeVar("T")
Command = tile.PassOp | tile.CopyOp

BLOCKS = (4, 8, 16, 32, 64)
"""How much of what a reduction keeps may run inside its reduced loop."""


@dataclass
class Emitter:
    """Appends operations to a block on behalf of one `graph` op at a time.

    Attributes:
        machine: whose cost model decides between equivalent nests.
        geometry: its memories.
        units: the machine's vector units, which decide how long a chain may be.
        block: where operations go.
        module: checkpoint module path noted on every operation.
        location: of every operation.
        hint: name hint for new buffers.
        nests: the orders of contractions chosen so far.
    """

    machine: Machine
    geometry: Geometry
    units: VectorUnits
    block: Block
    module: str = ""
    location: LocationAttr = field(default_factory=UnknownLoc)
    hint: str | None = None
    nests: dict[object, tuple[Axis, ...]] = field(default_factory=dict[object, tuple[Axis, ...]])

    def add(self, op: Operation) -> Operation:
        """Appends an op."""
        op.location = self.location
        self.block.add_op(op)
        return op

    def constant(self, value: int) -> SSAValue:
        """A constant index."""
        op = tile.ConstantOp(value)
        self.add(op)
        return op.result

    def alloc(self, shape: Sequence[int], element: Attribute, memory: str = "") -> SSAValue:
        """A buffer of `shape` per slice in `memory` (local by default)."""
        op = tile.AllocOp((self.geometry.slices, *shape), element, memory or self.geometry.local)
        op.result.name_hint = self.hint
        self.add(op)
        return op.result

    def replicated(self, shape: Sequence[int], element: Attribute) -> View:
        """A fresh row-major tensor that every slice holds; a scalar has one element."""
        own = tuple(shape) or (1,)
        padded = prod(own)
        unit = max(self.geometry.granule // 2, 1)
        return dense(self.alloc((-(-padded // unit) * unit,), element), own)

    def sliced(self, shape: Sequence[int], element: Attribute) -> View:
        """A fresh tensor cut along its last dimension."""
        chunk = self.geometry.chunk(shape[-1])
        own = (*shape[:-1], chunk)
        return dense(self.alloc(own, element), own, shape[-1], chunk)

    def like(self, shape: Sequence[int], element: Attribute, chunk: int) -> View:
        """A fresh tensor, sliced where `chunk` is nonzero."""
        return self.sliced(shape, element) if chunk else self.replicated(shape, element)

    def emit_pass(
        self,
        nest: Nest,
        *,
        reduce: Sequence[int] = (),
        ring_dim: int = -1,
        mask: Limit | None = None,
        mask_terms: SSAValue | None = None,
        chain: Sequence[Step] = (),
        limit: Limit | None = None,
        fill: float | None = None,
    ) -> None:
        """One pass; dimension numbers refer to the nest as given, before reordering and folding."""
        special = {*reduce, ring_dim, mask.dim if mask else -1, limit.dim if limit else -1} - {-1}
        folded, renamed = self._arranged(replace(nest, fixed=nest.fixed | special), reduce)
        buffers: list[SSAValue] = []
        indices: list[SSAValue] = []
        ports = {name: _port(walk, buffers, indices) for name, walk in folded.walks.items()}
        if mask is not None:
            index = -1
            if mask_terms is not None:
                index = _position(indices, mask_terms)
            mask = replace(mask, dim=renamed[mask.dim], index=index)
        spec = PassSpec(
            folded.size,
            ports,
            reduce=tuple(sorted({renamed[d] for d in reduce if d in renamed})),
            ring_dim=renamed[ring_dim] if ring_dim >= 0 else -1,
            mask=mask,
            chain=tuple(chain),
            limit=replace(limit, dim=renamed[limit.dim]) if limit else None,
            fill=fill,
        )
        self.add(tile.PassOp(spec, buffers, indices, self.module))

    def _arranged(self, nest: Nest, reduce: Sequence[int]) -> tuple[Nest, dict[int, int]]:
        """The nest as a command has it, and where its loops went."""
        order = self._writing_order(nest, reduce)
        folded, numbers = nest.permuted(order).folded()
        return folded, {d: numbers[number] for number, d in enumerate(order) if number in numbers}

    def _writing_order(self, nest: Nest, reduce: Sequence[int]) -> list[int]:
        """The loops as they are, or, where rows are no whole granules, as the results lie: in one run."""
        walk = nest.walks["out"]
        memory = self.machine.memories[tile.memory_of(walk.view.buffer)]
        kept = [d for d in range(len(nest.size)) if d not in reduce]
        granule = memory.write_granule // gcd(memory.write_granule, element_bytes(walk.view))
        dims = [(walk.strides[d], nest.size[d]) for d in kept]
        by_place = sorted(kept, key=lambda d: -abs(walk.strides[d]))
        if not _splits_granules(dims, granule) or _splits_granules(
            [(walk.strides[d], nest.size[d]) for d in by_place], granule
        ):
            by_place = kept
        moved = dict(zip(kept, by_place, strict=True))
        return [moved.get(d, d) for d in range(len(nest.size))]

    def contract(self, axes: Sequence[Axis], views: Mapping[str, View], chain: Sequence[Step] = ()) -> None:
        """A contraction as the nest that the machine runs fastest.

        Args:
            axes: loops; their strides are those of the views in order.
            views: the ports, `stream` and `stationary` first.
            chain: steps on the sums.
        """
        key = (tuple(axes), tuple((name, view.buffer.type) for name, view in views.items()), tuple(chain))
        if key not in self.nests:
            choices = list(orders(axes))
            costs = [self._contraction_cycles(choice, views, chain) for choice in choices]
            self.nests[key] = choices[costs.index(min(costs))]
        nest, reduce, ring = _nest_of(self.nests[key], views)
        self.emit_pass(nest, reduce=reduce, ring_dim=ring, chain=chain)

    def _contraction_cycles(
        self, axes: Sequence[Axis], views: Mapping[str, View], chain: Sequence[Step]
    ) -> float:
        """What a nest costs; infinite where no command runs it."""
        found = self._cycles(*_nest_of(axes, views), chain)
        return inf if found is None else found

    def _cycles(self, nest: Nest, reduce: tuple[int, ...], ring: int, chain: Sequence[Step]) -> int | None:
        """What a pass costs; None where no command runs it."""
        special = frozenset({*reduce, ring} - {-1})
        nest, renamed = self._arranged(replace(nest, fixed=nest.fixed | special), reduce)
        ports = {
            name: Port(number, 0, walk.strides, walk.slices)
            for number, (name, walk) in enumerate(nest.walks.items())
        }
        reduced = tuple(sorted(renamed[d] for d in reduce))
        spec = PassSpec(nest.size, ports, reduced, renamed.get(ring, -1), chain=tuple(chain))
        operands = operands_of(self.machine, spec, [walk.view.buffer for walk in nest.walks.values()])
        return cheapest(self.machine, spec, operands)

    def cheapest_of(self, ways: Sequence[Callable[[], View]], ranks: int) -> View:
        """Of several ways to the same values the one whose commands, in turn, take so many ranks least.

        Of those that take about as long it is the one with the shortest passes: copies run beside others.
        """
        tried = [self._aside(way) for way in ways]
        costs = [self._cycles_of(block, ranks) for _, block in tried]
        alike = [i for i, cost in enumerate(costs) if cost <= ABOUT * min(costs)]
        best = min(alike, key=lambda i: self._cycles_of(tried[i][1], ranks, (tile.PassOp,)))
        for number, (_, block) in enumerate(tried):
            self.block.add_ops(_detached(block, erase=number != best))
        return tried[best][0]

    def cycles(self, way: Callable[[], object], ranks: int = 1) -> float:
        """What the commands that something emits take in turn; nothing is emitted."""
        _, block = self._aside(way)
        found = self._cycles_of(block, ranks)
        _detached(block, erase=True)
        return found

    def _aside(self, way: Callable[[], T]) -> tuple[T, Block]:
        """What something gives, and the block of what it emits."""
        outer, self.block = self.block, Block()
        found = way()
        block, self.block = self.block, outer
        return found, block

    def _cycles_of(
        self, block: Block, ranks: int, kinds: tuple[type[Command], ...] = (tile.PassOp, tile.CopyOp)
    ) -> float:
        """What a block's commands take so many ranks, in turn; infinite where no command can."""
        commands = [op for op in block.ops if isinstance(op, kinds)]
        return sum(cycles_together(self.machine, op.spec, op.buffers, ranks) for op in commands)

    def emit_copy(
        self,
        nest: Nest,
        *,
        limit: SSAValue | None = None,
        index_dim: int = -1,
        index_scale: int = 0,
        meet: str = "",
    ) -> None:
        """One copy; the limit clips dimension 0 of the nest, the index list walks along `index_dim`.

        With `meet` it waits for all ranks of the chip or the system.
        """
        fixed = ({0} if limit is not None else set[int]()) | ({index_dim} - {-1})
        index = nest.walks.get("index")
        walks = {name: walk for name, walk in nest.walks.items() if name != "index"}
        folded, renamed = Nest(nest.size, walks, nest.fixed | fixed).folded()
        buffers: list[SSAValue] = []
        indices: list[SSAValue] = []
        ports = {name: _port(walk, buffers, indices) for name, walk in folded.walks.items()}
        if index is not None:
            ports["index"] = _port(index, buffers, indices)
        clip = None
        if limit is not None:
            clip = Limit(0, index=_position(indices, limit))
        along = renamed[index_dim] if index_dim >= 0 else -1
        spec = CopySpec(folded.size, ports, clip, along, index_scale, meet)
        self.add(tile.CopyOp(spec, buffers, indices, self.module))

    def elementwise(
        self,
        shape: Sequence[int],
        stream: View,
        steps: Sequence[Step],
        out: View,
        operand: View | None = None,
        vrf: View | None = None,
    ) -> None:
        """out = chain(stream, operand, vrf) over `shape` (per slice), in as few passes as the units allow."""
        source = stream
        parts = split_chain(steps, self.units)
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            target = out if last else dense(self.alloc(tuple(shape), f32), shape)
            second = operand
            if number and any(step.source == "stash" for step in part):
                second = stream  # the stash is the first pass's stream; later passes fetch it again
                part = [replace(s, source="operand") if s.source == "stash" else s for s in part]
            walks = {
                "stream": Walk(source, source.broadcast_strides(shape)),
                "out": Walk(target, target.broadcast_strides(shape)),
            }
            if second is not None and any(step.source == "operand" for step in part):
                walks["operand"] = Walk(second, second.broadcast_strides(shape))
            if vrf is not None and any(step.source == "vrf" for step in part):
                walks["vrf"] = Walk(vrf, vrf.broadcast_strides(shape))
            self.emit_pass(Nest(tuple(shape), walks), chain=part)
            source = target

    def reduce_outermost(self, source: View, target: View, op: str) -> None:
        """target[…, i] = the reduction of source[·, …, i], in the nest that the machine runs fastest.

        What is kept may run inside the reduced loop, a block at a time: so much is fetched as one run, and as
        many sums are under way at once.
        """
        (count, *outer, size), still = source.shape, len(source.shape) - 2
        nests: list[tuple[int, Nest]] = []
        for block in (1, *(n for n in BLOCKS if size % n == 0)):
            walks = {
                "stream": Walk(source, (*source.strides[1:-1], block, source.strides[0], 1)),
                "out": Walk(target, (*target.strides[:-1], block, 0, 1)),
            }
            nest = Nest((*outer, size // block, count, block), walks)
            found = self._cycles(nest, (still + 1,), -1, (Step(op),))
            if found is not None:
                nests.append((found, nest))
        _, best = min(nests, key=lambda choice: choice[0])
        self.emit_pass(best, reduce=(still + 1,), chain=(Step(op),))

    def copy_view(self, source: View, target: View) -> None:
        """Moves a tensor between two views of one shape by a pass (rounding to the target's type)."""
        self.elementwise(target.shape, source, (), target)

    def fill(self, target: View, value: float) -> None:
        """Sets every element of a view."""
        walks = {"out": Walk(target, target.strides)}
        self.emit_pass(Nest(target.shape, walks), fill=value)


def _detached(block: Block, *, erase: bool) -> list[Operation]:
    """The operations of a block that is given up; none where they are erased."""
    ops = list(block.ops)
    for op in reversed(ops):
        op.detach()
        if erase:
            op.erase()
    return [] if erase else ops


def _splits_granules(dims: Sequence[tuple[int, int]], granule: int) -> bool:
    """Whether a write in this order, strides and extents outermost first, has runs that start within one."""
    run, is_run = 1, True
    for stride, size in reversed(dims):
        if size == 1:
            continue
        is_run = is_run and stride == run
        if not is_run and stride % granule:
            return True
        run *= size
    return False


def _nest_of(axes: Sequence[Axis], views: Mapping[str, View]) -> tuple[Nest, tuple[int, ...], int]:
    """The nest over some axes, its reduced dimensions and its ring dimension."""
    slices = tuple(int(axis.ring) for axis in axes)
    walks = {
        name: Walk(view, tuple(axis.strides[number] for axis in axes), slices if name == "stream" else ())
        for number, (name, view) in enumerate(views.items())
    }
    reduced = tuple(d for d, axis in enumerate(axes) if axis.reduced)
    ring = next((d for d, axis in enumerate(axes) if axis.ring), -1)
    return Nest(tuple(axis.size for axis in axes), walks), reduced, ring


def _position(values: list[SSAValue], value: SSAValue) -> int:
    """Index of a value in a list, appended if new."""
    if value not in values:
        values.append(value)
    return values.index(value)


def _port(walk: Walk, buffers: list[SSAValue], indices: list[SSAValue]) -> Port:
    terms = tuple((_position(indices, value), scale) for value, scale in walk.view.index)
    slices = walk.slices if any(walk.slices) else ()
    return Port(_position(buffers, walk.view.buffer), walk.view.offset, walk.strides, slices, terms)


def element_bytes(value: SSAValue | View) -> int:
    """Bytes of one stored element of a buffer."""
    buffer = value.buffer if isinstance(value, View) else value
    kind = buffer.type
    assert isinstance(kind, MemRefType)
    width = kind.element_type.bitwidth  # pyright: ignore
    return int(width) // 8  # pyright: ignore
