"""Linear layers whose input has spread rows."""

from __future__ import annotations

from dataclasses import replace

from npuc.passes.algorithms.contractions import Axis
from npuc.passes.lowering.function import FunctionLowering, leading
from npuc.passes.lowering.linear_units import Linear, Rider, to_stationary
from npuc.passes.lowering.views import View, dense
from xdsl.ir import SSAValue


class SpreadInput(Linear):
    """The input's rows are spread, the result's columns are cut: the ring brings every row to all slices."""

    SPREAD = True

    def _contract(self, part: int, weight: View, out: View, rider: Rider | None = None) -> None:
        slices, x = self.emit.geometry.slices, self.x
        ends = [out] if rider is None else [out, rider.view]
        rests = [leading(view)[1] for view in ends]
        last = len(x.shape) - 2
        axes = [
            Axis(size, (stride, 0, *(rest[d] * (slices if d == last else 1) for rest in rests)))
            for d, (size, stride) in enumerate(zip(*leading(x), strict=True))
        ]
        axes.append(Axis(slices, (0, 0, *(rest[last] for rest in rests)), ring=True))
        axes.append(Axis(out.shape[-1], (0, self.width, *(view.strides[-1] for view in ends))))
        axes += self._inner(part, len(ends))
        self._contraction(axes, x.moved(part * self.depth * x.strides[-1]), weight, ends, rider)

    def _inner(self, part: int, ends: int) -> list[Axis]:
        """The reduced loops of a part: in chunks, as the weight is packed for an input that is cut."""
        size, stride, still = self.x.shape[-1], self.x.strides[-1], (0,) * ends
        chunk = self.emit.geometry.chunk(size)
        if self.depth == chunk:
            return [Axis(size, (stride, 1, *still), reduced=True)]
        chunks = Axis(size // chunk, (chunk * stride, self.depth, *still), reduced=True)
        depth = min(self.depth, chunk - part * self.depth)
        return [chunks, Axis(depth, (stride, 1, *still), reduced=True)]


class SpreadProduct(SpreadInput):
    """Input and result have spread rows: each slice multiplies its own with the weight that the ring brings.

    The weight is the stream. `out` is seen as [..., slices, columns of a slice].
    """

    def __init__(
        self, low: FunctionLowering, x: View, weight: SSAValue, out: View, last: Rider | None
    ) -> None:
        slices, columns = low.emit.geometry.slices, out.shape[-1]
        self.columns = columns
        each = -(-columns // slices)
        super().__init__(low, x, weight, out, last)
        if self.tiles == self.parts == 1 and columns % slices == 0:
            self._deal(each)  # all of the weight lies row after row
        else:
            each = low.emit.geometry.chunk(columns)
        if each * slices != columns:
            shape = (*out.shape[:-1], each * slices)
            out = dense(low.emit.alloc(shape, out.element), shape)
        self.out = _dealt(out, slices, each)
        self.last = self.last and replace(self.last, view=_dealt(self.last.view, slices, each))
        self.in_registers = False
        self.held = self._held()

    def _deal(self, rows: int) -> None:
        """As many rows of the weight to every slice."""
        self.rows = rows
        self.weight = replace(self.weight, shape=(1, 1, self.emit.geometry.slices, rows, self.width))

    def result(self) -> View:
        """The product as a tensor of the result's shape."""
        shape = (*self.out.shape[:-2], self.columns)
        return replace(
            self.out, shape=shape, strides=(*self.out.strides[:-2], self.out.strides[-1]), size=self.columns
        )

    def _operand(self, staged: View) -> View:
        if staged.element == self.x.element:
            return staged
        converted = dense(self.emit.alloc(staged.shape, self.x.element), staged.shape)
        self.emit.copy_view(staged, converted)
        return converted

    def _held(self) -> View:
        """The input in the stationary memory, where other layers of the same input find it."""
        key = self.emit.block, self.x
        if key not in self.low.stationary:
            self.low.stationary[key] = to_stationary(self.low, self.x)
        return self.low.stationary[key]

    def _contract(self, part: int, weight: View, out: View, rider: Rider | None = None) -> None:
        x, slices = self.held, self.emit.geometry.slices
        ends = [out] if rider is None else [out, rider.view]
        *rows, apart, column = zip(*(view.strides for view in ends), strict=True)
        axes = [
            Axis(size, (0, stride, *row))
            for size, stride, row in zip(x.shape[:-1], x.strides[:-1], rows, strict=True)
        ]
        axes.append(Axis(slices, (0, 0, *apart), ring=True))
        axes.append(Axis(out.shape[-1], (self.width, 0, *column)))
        axes += [
            replace(a, strides=(a.strides[1], a.strides[0], *a.strides[2:]))
            for a in self._inner(part, len(ends))
        ]
        self._contraction(axes, weight, x.moved(part * self.depth * x.strides[-1]), ends, rider)


def _dealt(view: View, slices: int, each: int) -> View:
    """A view whose columns come from slices, each as many."""
    step = view.strides[-1]
    shape, strides = (*view.shape[:-1], slices, each), (*view.strides[:-1], each * step, step)
    return replace(view, shape=shape, strides=strides, size=each)
