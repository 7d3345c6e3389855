"""A linear layer by units of its weight: what the stationary memory holds at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import lcm, prod
from typing import ClassVar

from npuc.ir import tile
from npuc.ir.tile import CopySpec, Limit, Port, Step
from npuc.passes.algorithms.contractions import Axis
from npuc.passes.command_fields import Operand, element_name
from npuc.passes.costs import cheapest_together
from npuc.passes.lowering.emitter import element_bytes
from npuc.passes.lowering.function import FunctionLowering, leading, nest_over
from npuc.passes.lowering.views import IndexTerms, Nest, View, Walk, dense
from npuc.passes.tile_choice import sums_in_registers
from xdsl.dialects.builtin import MemRefType, f32
from xdsl.ir import Attribute, SSAValue

NOTHING = 1.01
"""What counts as no difference between two costs."""
ADD = Step("add", "operand")


@dataclass(frozen=True)
class Rider:
    """A step that a contraction takes along; its operand lies in the vector registers."""

    step: Step
    view: View

    def at(self, column: int, terms: IndexTerms, columns: int) -> Rider:
        """That of some columns."""
        return replace(self, view=_columns(self.view, column, terms, columns))


class Linear:
    """One linear layer; its weight is [tiles, parts, slices, rows, width].

    A *unit* is one part of one tile, what the stationary memory holds at a time. Units are loaded into local
    memory a few at a time, since every copy has a price of its own. Where copies cost nothing of their own,
    because cores that share the main memory wait for it anyway, a unit comes in pieces: the smaller they are,
    the sooner something urgent finds its turn among them.
    """

    SPREAD: ClassVar[bool] = False
    """Whether the input's rows are spread; weights are packed as for one that is cut over the slices."""

    def __init__(
        self, low: FunctionLowering, x: View, weight: SSAValue, out: View, last: Rider | None
    ) -> None:
        self.low, self.emit, self.x, self.out = low, low.emit, x, out
        self.last = last and replace(last, view=last.view.broadcast(out.shape))
        assert isinstance(weight.type, MemRefType)
        shape = weight.type.get_shape()
        self.weight = dense(weight, shape)
        self.tiles, self.parts, _, self.rows, self.width = shape
        self.ring = bool(x.chunk) and self.emit.geometry.slices > 1
        cut = self.ring or self.SPREAD
        self.depth = self.width // self.emit.geometry.slices if cut else self.width
        unit_bytes = self.rows * self.width * element_bytes(self.weight)
        self.group = max(1, min(low.staging // unit_bytes, self.tiles * self.parts))
        self.load, self.pieces = self._transfers()
        self.in_registers = sums_in_registers(self.emit.geometry, prod(out.shape[:-1]), self.rows)

    def emit_tiles(self) -> None:
        """All tiles: a loop over as many at a time as make whole copies, then those that are left."""
        columns = self.out.shape[-1]
        whole = columns // self.rows
        at_once = min(lcm(self.group, self.parts) // self.parts, max(whole, 1))
        loops = whole // at_once
        if loops > 1:
            outer, loop = self.emit.block, tile.ForOp(loops)
            loop.induction.name_hint = "tile"
            self.emit.add(loop)
            self.emit.block = loop.body.block
            self._some(0, at_once, loop.induction)
            self.emit.block = outer
        else:
            loops = 0
        for first in range(loops * at_once, self.tiles, at_once):
            self._some(first, min(at_once, self.tiles - first))

    def _some(self, first: int, count: int, index: SSAValue | None = None) -> None:
        """Tiles from `first` + `index` · `count` on; the last tile of all may be cut short."""
        unit = self.emit.geometry.slices * self.rows * self.width
        terms = () if index is None else ((index, count * self.parts * unit),)
        weight = self.weight.moved(first * self.parts * unit, terms)
        out_terms = () if index is None else ((index, count * self.rows),)
        staged: list[View] = []
        for number in range(count):
            left = self.out.shape[-1] - (first + number) * self.rows
            here = (first + number) * self.rows, out_terms, min(self.rows, left)
            target, last = _columns(self.out, *here), self.last and self.last.at(*here)
            sums: View | None = None
            for part in range(self.parts):
                at = number * self.parts + part
                first_of_load = at % self.group % self.load == 0
                if first_of_load:
                    left = min(self.group - at % self.group, count * self.parts - at)
                    staged = self._stage(weight.moved(at * unit), min(self.load, left))
                operand = self._operand(staged[at % self.group % self.load])
                sums = self._part(part, operand, target, sums, last)

    def _operand(self, staged: View) -> View:
        """A unit where the contraction takes it from."""
        return to_stationary(self.low, staged, element=self.x.element)

    def _transfers(self) -> tuple[int, int]:
        """How many units are loaded at a time, and in how many pieces each load comes."""
        size, geometry = self.rows * self.width, self.emit.geometry
        element = element_name(self.emit.machine, self.weight.element)
        operands = {n: Operand(m, element, 0) for n, m in (("src", geometry.main), ("dst", geometry.local))}
        strides = self._strides()

        def cycles(units: int, pieces: int) -> float:
            """Of one unit, when all ranks load theirs."""
            ports = {name: Port(i, 0, *strides[name]) for i, name in enumerate(operands)}
            spec = CopySpec((units, geometry.slices, size // pieces), ports)
            return cheapest_together(self.emit.machine, spec, operands, self.low.ranks) * pieces / units

        if cycles(1, 1) > NOTHING * cycles(self.group, 1):
            return self.group, 1
        pieces = 1
        while size % (2 * pieces) == 0 and cycles(1, 2 * pieces) <= NOTHING * cycles(1, 1):
            pieces *= 2
        return 1, pieces

    def _strides(self) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Strides over units, slices and elements in main and local memory, in elements and in slices."""
        size = self.rows * self.width
        return {
            "src": ((self.emit.geometry.slices * size, size, 1), (0, 0, 0)),
            "dst": ((size, 0, 1), (0, 1, 0)),
        }

    def _stage(self, source: View, units: int) -> list[View]:
        """Copies consecutive units to local memory, each slice its own."""
        emit, size = self.emit, self.rows * self.width
        local = dense(
            emit.alloc((units, self.rows, self.width), source.element), (units, self.rows, self.width)
        )
        piece = size // self.pieces
        for start in range(0, size, piece):
            views = {"src": source.moved(start), "dst": local.moved(start)}
            walks = {name: Walk(views[name], *strides) for name, strides in self._strides().items()}
            emit.emit_copy(Nest((units, emit.geometry.slices, piece), walks))
        one = replace(local, shape=local.shape[1:], strides=local.strides[1:])
        return [one.moved(number * size) for number in range(units)]

    def _part(self, part: int, unit: View, target: View, sums: View | None, rider: Rider | None) -> View:
        """Adds a part's products to `sums`; those of the last part are the result."""
        emit, last = self.emit, part == self.parts - 1
        if not last:
            rider = None
        if sums is None:
            products = target if last else self._sums(target)
            self._contract(part, unit, products, rider)
            return products
        result = target if last else sums
        if self.in_registers:
            self._contract(part, unit, result, Rider(Step("add", "vrf"), sums))
            return result
        products = self._sums(target)
        self._contract(part, unit, products)
        steps, vrf = (ADD,), None
        if rider is not None:
            steps, vrf = (ADD, rider.step), rider.view
        emit.elementwise(products.shape, products, steps, result, sums, vrf)
        return result

    def _sums(self, target: View) -> View:
        """A place for partial sums, in f32."""
        emit = self.emit
        memory = emit.geometry.registers if self.in_registers else emit.geometry.local
        return dense(emit.alloc(target.shape, f32, memory), target.shape)

    def _contract(self, part: int, weight: View, out: View, rider: Rider | None = None) -> None:
        """out[m, r] = Σ_k x[m, k] · w[r, k], then the step; the switch sends a sliced x to all slices."""
        x, start = self.x, part * self.depth
        depth = min(self.depth, x.shape[-1] - start)
        ends = [out] if rider is None else [out, rider.view]
        rests = [leading(view)[1] for view in ends]
        axes = [
            Axis(size, (stride, 0, *(rest[d] for rest in rests)))
            for d, (size, stride) in enumerate(zip(*leading(x), strict=True))
        ]
        axes.append(Axis(out.shape[-1], (0, self.width, *(view.strides[-1] for view in ends))))
        still = (0,) * len(ends)
        if self.ring:
            axes.append(Axis(self.emit.geometry.slices, (0, self.depth, *still), reduced=True, ring=True))
        axes.append(Axis(depth, (x.strides[-1], 1, *still), reduced=True))
        self._contraction(axes, x.moved(start * x.strides[-1]), weight, ends, rider)

    def _contraction(
        self, axes: Sequence[Axis], stream: View, stationary: View, ends: Sequence[View], rider: Rider | None
    ) -> None:
        """Emits it; `ends` are the result and what the rider takes."""
        views = {"stream": stream, "stationary": stationary, "out": ends[0]}
        if rider is not None:
            views["vrf"] = rider.view
        self.emit.contract(axes, views, () if rider is None else (rider.step,))


def _columns(view: View, column: int, terms: IndexTerms, columns: int) -> View:
    """Some columns of a view, by their number and by index terms in columns."""
    step = view.strides[-1]
    moved = view.moved(column * step, tuple((value, n * step) for value, n in terms if step))
    return replace(moved, shape=(*view.shape[:-1], columns))


def to_stationary(
    low: FunctionLowering,
    local: View,
    mask: Limit | None = None,
    end: SSAValue | None = None,
    element: Attribute | None = None,
) -> View:
    """Loads a local tile into the stationary memory (or leaves it where contraction reads local memory).

    On the way elements are converted to the type of the other operand, if one is given, for a machine
    multiplies equal types; with a mask, those past the limit become zero.
    """
    emit, element = low.emit, element or local.element
    if emit.geometry.stationary == emit.geometry.local and mask is None and local.element == element:
        return local
    target = dense(emit.alloc(local.shape, element, emit.geometry.stationary), local.shape)
    nest = nest_over(local.shape, stream=local, out=target)
    emit.emit_pass(nest, mask=mask, mask_terms=end)
    return target
