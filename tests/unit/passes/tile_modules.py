"""Small `tile` modules that the tests of scheduling lower and run."""

from __future__ import annotations

from collections.abc import Sequence

from npuc.ir import tile
from npuc.ir.tile import CopySpec, PassSpec, Port, Step
from xdsl.dialects.builtin import FunctionType, MemRefType, ModuleOp, f32
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Region, SSAValue


class Function:
    """Builds a function op by op; dimension 0 of buffers in memory `local` has extent `slices`."""

    def __init__(
        self, name: str, arguments: Sequence[tuple[str, Attribute]], main: str, local: str, slices: int
    ) -> None:
        self.name, self.main, self.local, self.slices = name, main, local, slices
        self.block = Block(arg_types=[kind for _, kind in arguments])
        for argument, (hint, _) in zip(self.block.args, arguments, strict=True):
            argument.name_hint = hint
        self.top = self.block

    def argument(self, number: int) -> SSAValue:
        return self.top.args[number]

    def alloc(self, hint: str, *shape: int, memory: str = "", copies: int = 1) -> SSAValue:
        op = tile.AllocOp((self.slices, *shape), f32, memory or self.local)
        op.result.name_hint = hint
        if copies > 1:
            op.attributes["copies"] = tile.IntegerAttr(copies, 64)
        self.block.add_op(op)
        return op.result

    def load(self, source: SSAValue, target: SSAValue, index: tuple[SSAValue, int] | None = None) -> None:
        """Spread a main-memory run of slices · n elements over the slices: slice s gets s·n …"""
        count = elements(target)
        src = Port(0, 0, (count, 1), (), ((0, index[1]),) if index else ())
        spec = CopySpec((self.slices, count), {"src": src, "dst": Port(1, 0, (0, 1), (1, 0))})
        self.block.add_op(tile.CopyOp(spec, [source, target], [index[0]] if index else [], "m.load"))

    def store(self, source: SSAValue, target: SSAValue, index: tuple[SSAValue, int] | None = None) -> None:
        count = elements(source)
        dst = Port(1, 0, (count, 1), (), ((0, index[1]),) if index else ())
        spec = CopySpec((self.slices, count), {"src": Port(0, 0, (0, 1), (1, 0)), "dst": dst})
        self.block.add_op(tile.CopyOp(spec, [source, target], [index[0]] if index else [], "m.store"))

    def compute(self, stream: SSAValue, out: SSAValue, *steps: Step, operand: SSAValue | None = None) -> None:
        ports = {"stream": Port(0, 0, (1,)), "out": Port(1, 0, (1,))}
        buffers = [stream, out]
        if operand is not None:
            ports["operand"] = Port(2, 0, (1,))
            buffers.append(operand)
        self.block.add_op(tile.PassOp(PassSpec((elements(out),), ports, chain=steps), buffers, [], "m.act"))

    def matmul(self, x: SSAValue, w: SSAValue, out: SSAValue, rows: int, inner: int) -> None:
        """out[rows, columns] = x[rows, inner] · w[columns, inner]ᵀ in every slice."""
        columns = elements(out) // rows
        ports = {
            "stream": Port(0, 0, (inner, 0, 1)),
            "stationary": Port(1, 0, (0, inner, 1)),
            "out": Port(2, 0, (columns, 1, 0)),
        }
        spec = PassSpec((rows, columns, inner), ports, reduce=(2,))
        self.block.add_op(tile.PassOp(spec, [x, w, out], [], "m.proj"))

    def loop(self, count: int) -> SSAValue:
        op = tile.ForOp(count)
        op.induction.name_hint = "i"
        self.block.add_op(op)
        self.block = op.body.block
        return op.induction

    def end(self) -> None:
        parent = self.block.parent_op()
        assert parent is not None
        block = parent.parent_block()
        assert block is not None
        self.block = block

    def call(self, name: str, *arguments: SSAValue) -> None:
        self.block.add_op(tile.CallOp(name, arguments))

    def build(self, visibility: str | None = None) -> FuncOp:
        self.top.add_op(ReturnOp())
        kind = FunctionType.from_lists([a.type for a in self.top.args], [])
        return FuncOp(self.name, kind, Region(self.top), visibility)


def elements(value: SSAValue) -> int:
    assert isinstance(value.type, MemRefType)
    count = 1
    for n in value.type.get_shape()[1:]:
        count *= n
    return count


def main_buffer(main: str, *shape: int) -> MemRefType:
    return tile.buffer_type(shape, f32, main)


def double_buffered(main: str, local: str, slices: int, n: int = 16, count: int = 6) -> ModuleOp:
    """y[i] = exp(x[i]) + 1, tile by tile, with two copies of both tiles."""
    total = main_buffer(main, count, slices * n)
    f = Function("main", [("x", total), ("y", total)], main, local, slices)
    i = f.loop(count)
    tile_in, tile_out = f.alloc("tile_in", n, copies=2), f.alloc("tile_out", n, copies=2)
    f.load(f.argument(0), tile_in, (i, slices * n))
    f.compute(tile_in, tile_out, Step("exp"), Step("add", "imm", 1.0))
    f.store(tile_out, f.argument(1), (i, slices * n))
    f.end()
    return ModuleOp([f.build()])


def called_twice(main: str, local: str, slices: int, n: int = 16) -> ModuleOp:
    """y = f(f(x)) with f(v) = (v + 1)², computed in place by a function called in a loop."""
    shape = main_buffer(main, slices * n)
    g = Function("layer", [("h", tile.buffer_type((slices, n), f32, local))], main, local, slices)
    one = g.alloc("one", n)
    g.compute(g.argument(0), one, Step("add", "imm", 1.0))
    g.compute(one, g.argument(0), Step("mul", "operand"), operand=one)
    f = Function("main", [("x", shape), ("y", shape)], main, local, slices)
    unused, hidden = f.alloc("unused", n), f.alloc("hidden", n)
    f.load(f.argument(0), unused)
    f.load(f.argument(0), hidden)
    f.loop(2)
    f.call("layer", hidden)
    f.end()
    f.compute(hidden, hidden, Step("sub", "operand"), operand=unused)
    f.store(hidden, f.argument(1))
    return ModuleOp([g.build("private"), f.build()])


def matmul_tiles(main: str, local: str, stationary: str, slices: int) -> ModuleOp:
    """y = x · Wᵀ in tiles of W's rows: each goes through local to stationary memory."""
    rows, inner, columns, tiles = 2, 32, 8, 5
    weights = main_buffer(main, tiles, slices * columns * inner)
    f = Function(
        "main",
        [
            ("x", main_buffer(main, slices * rows * inner)),
            ("w", weights),
            ("y", main_buffer(main, tiles, slices * rows * columns)),
        ],
        main,
        local,
        slices,
    )
    x = f.alloc("x", rows, inner)
    f.load(f.argument(0), x)
    i = f.loop(tiles)
    tile_local, out = f.alloc("tile", columns, inner), f.alloc("out", rows, columns)
    f.load(f.argument(1), tile_local, (i, slices * columns * inner))
    tile_held = tile_local
    if stationary != local:
        tile_held = f.alloc("held", columns, inner, memory=stationary)
        f.compute(tile_local, tile_held)
    f.matmul(x, tile_held, out, rows, inner)
    f.store(out, f.argument(2), (i, slices * rows * columns))
    f.end()
    return ModuleOp([f.build()])


def rows(main: str, local: str, slices: int, n: int = 16) -> ModuleOp:
    """y[slot of row] = x[row], valid slices only, for three rows; other parts of y are 7."""
    total = main_buffer(main, 3, slices * n)
    f = Function("main", [("x", total), ("y", total)], main, local, slices)
    seven = f.alloc("seven", n)
    fill = PassSpec((n,), {"out": Port(0, 0, (1,))}, fill=7.0)
    f.block.add_op(tile.PassOp(fill, [seven]))
    i = f.loop(3)
    f.store(seven, f.argument(1), (i, slices * n))
    f.end()
    row = f.loop(3)
    held = f.alloc("held", n)
    f.load(f.argument(0), held, (row, slices * n))
    parameters = [tile.RuntimeOp(name, row) for name in ("slot", "valid")]
    f.block.add_ops(parameters)
    slot, valid = (op.result for op in parameters)
    ports = {
        "src": Port(0, 0, (0, 1), (1, 0)),
        "dst": Port(1, 0, (n, 1), (), ((0, slices * n),)),
    }
    spec = CopySpec((slices, n), ports, tile.Limit(0, index=1))
    f.block.add_op(tile.CopyOp(spec, [held, f.argument(1)], [slot, valid]))
    f.end()
    return ModuleOp([f.build()])


def loads_behind_stores(main: str, local: str, slices: int, n: int = 16) -> ModuleOp:
    """Three tiles one after the other, each loaded, computed and stored; two of them in a loop."""
    total = main_buffer(main, 3, slices * n)
    f = Function("main", [("x", total), ("y", total)], main, local, slices)
    for _ in range(2):
        source, result = f.alloc("in", n), f.alloc("out", n)
        f.load(f.argument(0), source)
        f.compute(source, result, Step("exp"))
        f.store(result, f.argument(1))
    i = f.loop(2)
    source, result = f.alloc("in", n), f.alloc("out", n)
    f.load(f.argument(0), source, (i, slices * n))
    f.compute(source, result, Step("abs"))
    f.store(result, f.argument(1), (i, slices * n))
    f.end()
    return ModuleOp([f.build()])
