"""Asks the machine's cost model which tiles of a weight are best."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from npuc.backends.machine import Machine
from npuc.ir import tile
from npuc.ir.tile import PassSpec, Port, Step
from npuc.passes.algorithms.contractions import Axis, orders
from npuc.passes.algorithms.geometry import Geometry, geometry_of
from npuc.passes.algorithms.linear_tiles import LinearShape, LinearTile, choose
from npuc.passes.command_fields import Operand
from npuc.passes.costs import cheapest

SUMS = "f32"


def stationary_budget(geometry: Geometry) -> int:
    """Bytes of a weight tile: half the stationary memory, so that the next tile loads beside it.

    Where the machine has no separate stationary memory a quarter of the local memory plays its part.
    """
    separate = geometry.stationary != geometry.local
    return geometry.stationary_bytes // 2 if separate else geometry.local_bytes // 4


def sums_in_registers(geometry: Geometry, rows: int, columns: int) -> bool:
    """Whether the partial sums of a tile fit the vector registers, twice: the next tile begins meanwhile."""
    return 2 * 4 * rows * columns <= geometry.register_bytes


def choose_tile(
    machine: Machine, shape: LinearShape, element: str, rows: Sequence[int], stored: str = ""
) -> LinearTile:
    """The tile of a weight for inputs of type `element` and these numbers of rows.

    The weight lies in main memory as `stored`, if that is another type.

    Raises:
        NoTile: when none fits.
    """
    geometry = geometry_of(machine)
    asked = _Asked(machine, geometry, shape, element, stored or element)
    return choose(shape, stationary_budget(geometry), lambda t: [asked.cycles(t, m) for m in rows])


class _Asked:
    """Cycles of a linear layer, by tile and number of rows."""

    def __init__(
        self, machine: Machine, geometry: Geometry, shape: LinearShape, element: str, stored: str
    ) -> None:
        self.machine, self.geometry, self.shape = machine, geometry, shape
        self.element, self.stored = element, stored

    def cycles(self, chosen: LinearTile, rows: int) -> float:
        """All tiles, each as long as what its busiest queue has to do."""
        elements = chosen.rows * chosen.depth * self.shape.repeats
        beside = self._copy(elements), self._load(elements) + self._accumulate(chosen, rows)
        return chosen.tiles * chosen.parts * max(*beside, self._contract(chosen, rows))

    def _operand(self, memory: str, element: str = "") -> Operand:
        return Operand(memory, element or self.element, 0, self.machine.memories[memory].window)

    def _cost(self, spec: tile.PassSpec | tile.CopySpec, **operands: Operand) -> float:
        found = cheapest(self.machine, spec, operands)
        return inf if found is None else found

    def _copy(self, elements: int) -> float:
        ports = {"src": Port(0, 0, (elements, 1)), "dst": Port(1, 0, (0, 1), (1, 0))}
        spec = tile.CopySpec((self.geometry.slices, elements), ports)
        places = self.geometry.main, self.geometry.local
        src, dst = (self._operand(place, self.stored) for place in places)
        return self._cost(spec, src=src, dst=dst)

    def _load(self, elements: int) -> float:
        if self.geometry.stationary == self.geometry.local and self.stored == self.element:
            return 0.0
        spec = PassSpec((elements,), {"stream": Port(0, 0, (1,)), "out": Port(1, 0, (1,))})
        places = self.geometry.local, self.geometry.stationary
        return self._cost(spec, stream=self._operand(places[0], self.stored), out=self._operand(places[1]))

    def _accumulate(self, chosen: LinearTile, rows: int) -> float:
        """Cycles of adding a part's products to those before, where the contraction cannot."""
        if chosen.parts == 1 or sums_in_registers(self.geometry, rows, chosen.rows):
            return 0.0
        ports = {name: Port(i, 0, (1,)) for i, name in enumerate(("stream", "operand", "out"))}
        spec = PassSpec((rows * chosen.rows,), ports, chain=(Step("add", "operand"),))
        return self._cost(spec, **{name: self._operand(self.geometry.local, SUMS) for name in ports})

    def _contract(self, chosen: LinearTile, rows: int) -> float:
        ring = self.shape.repeats > 1
        width = chosen.depth * self.shape.repeats
        axes = [
            Axis(rows, (self.shape.inner, 0, chosen.rows)),
            Axis(chosen.rows, (0, width, 1)),
            *([Axis(self.shape.repeats, (0, chosen.depth, 0), reduced=True, ring=True)] if ring else []),
            Axis(chosen.depth, (1, 1, 0), reduced=True),
        ]
        operands = {
            "stream": self._operand(self.geometry.local),
            "stationary": self._operand(self.geometry.stationary),
            "out": self._operand(self.geometry.local, SUMS),
        }
        return min(self._cost(_spec(order), **operands) for order in orders(axes))


def _spec(axes: Sequence[Axis]) -> PassSpec:
    walked = list(zip(*(axis.strides for axis in axes), strict=True))
    slices = tuple(int(axis.ring) for axis in axes)
    ports = {
        name: Port(i, 0, walked[i], slices if name == "stream" else ())
        for i, name in enumerate(("stream", "stationary", "out"))
    }
    reduced = tuple(d for d, axis in enumerate(axes) if axis.reduced)
    ring = next((d for d, axis in enumerate(axes) if axis.ring), -1)
    return PassSpec(tuple(axis.size for axis in axes), ports, reduced, ring)
