"""What a module computes, at any level, for given calls of its programs.

Graph modules are run by `ir.interpret`, buffers by `ir.interpret_tile`, commands, encoded, by the simulator.
The caches hold contents that depend on their place alone, so that any program can be run by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from npuc.frontends.weight_reader import WeightReader
from npuc.ir import graph, tile
from npuc.ir.commands import At
from npuc.ir.errors import UserError
from npuc.ir.interpret import Caches, Interpreter, Runtime
from npuc.ir.interpret_tile import Observer, TileMemory, interpret_tile
from npuc.ir.legality import module_path
from npuc.ir.lockstep import Lockstep
from npuc.ir.npu import ProgramOp
from npuc.ir.tile_placements import GridAttr
from npuc.ir.torch_types import torch_type
from npuc.passes.allocate_buffers import MEMORY_ATTRIBUTE
from npuc.passes.buckets import Bucket
from npuc.passes.checking import place_values
from npuc.passes.pad_shards import DEALT_ATTRIBUTE
from npuc.passes.partition import ranks_of
from npuc.passes.specialized import buckets_of
from npuc.passes.target_option import machine_of
from torch import Tensor
from xdsl.dialects.builtin import MemRefType, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation


class Place(NamedTuple):
    """Where a value comes from: the checkpoint module, the value's name and the operation's."""

    module: str
    value: str
    operation: str

    @classmethod
    def of(cls, op: Operation, number: int, layer: int | None) -> Place:
        """Of a result of a graph operation, or of what a pass or copy writes."""
        if isinstance(op, tile.PassOp | tile.CopyOp):
            return cls(module_path(op), op.buffers[written_buffer(op)].name_hint or "", op.name)
        path = module_path(op) if layer is None else module_path(op).replace("{}", str(layer))
        return cls(path, op.results[number].name_hint or "", op.name)


Watch = Callable[[Operation, int | None, Sequence[Tensor]], None]
"""Told an operation that ran, the layer if that is known, and its results, or the buffer it wrote to."""

ENTRIES = ("all", "last")


@dataclass(frozen=True)
class Call:
    """One run of a program.

    Attributes:
        bucket: its shape.
        tokens: [batch, new tokens], int32.
        position: tokens already in each row's cache.
        valid: new tokens in each row.
    """

    bucket: Bucket
    tokens: Tensor
    position: tuple[int, ...]
    valid: tuple[int, ...]

    @classmethod
    def of(cls, bucket: Bucket, prompt: Sequence[int]) -> Call:
        """A call with each row's tokens from another place of the prompt, rows of different length."""
        rows, count = range(bucket.batch), bucket.new_tokens
        tokens = [[prompt[(row + i) % len(prompt)] for i in range(count)] for row in rows]
        valid = tuple(max(1, min(count, len(prompt)) - row % 3) for row in rows)
        start = (bucket.length - count,) * bucket.batch
        return cls(bucket, torch.tensor(tokens, dtype=torch.int32), start, valid)

    @property
    def positions(self) -> Tensor:
        """The position of each token [batch, new tokens]; the last valid one repeats."""
        steps = torch.arange(self.bucket.new_tokens, dtype=torch.int32)[None]
        last = torch.tensor(self.valid, dtype=torch.int32)[:, None] - 1
        return torch.tensor(self.position, dtype=torch.int32)[:, None] + torch.minimum(steps, last)

    @property
    def runtime(self) -> Runtime:
        """The runtime parameters: row b uses slot b."""
        rows = range(self.bucket.batch)
        return Runtime(list(rows), list(self.position), list(self.valid), self.bucket.attended)


class AnyLevel(Interpreter):
    """The graph interpreter for modules in which weights are packed and may be longer than their uses."""

    def evaluate(self, op: Operation, args: list[Tensor], layer: int | None) -> list[Tensor]:
        try:
            results = super().evaluate(op, args, layer)
        except RuntimeError as error:
            message = f"{op.name} cannot be run: {str(error).splitlines()[0]}"
            raise UserError("cannot-run", message, where=module_path(op)) from error
        if not isinstance(op, graph.ParamOp):
            return results
        value = results[0]
        for dim, size in enumerate(graph.shape_of(op.results[0])):
            if isinstance(size, int) and value.shape[dim] > size:
                value = value.narrow(dim, 0, size)
        return [value]


@dataclass
class Evaluator:
    """Runs modules of one compile.

    Attributes:
        root: directory of the checkpoint.
        target: name or description of the machine.
        calls: the programs to run.
    """

    root: Path
    target: str
    calls: Sequence[Call]
    packed: dict[tuple[str, str, int], list[Tensor]] = field(
        default_factory=dict[tuple[str, str, int], list[Tensor]]
    )
    readers: dict[int, WeightReader] = field(default_factory=dict[int, WeightReader])

    def reader(self, rank: int) -> WeightReader:
        """Reads a rank's weights and keeps them, for they are read again after every pass."""
        return self.readers.setdefault(rank, WeightReader(self.root, keep=True, rank=rank))

    def outputs(self, module: ModuleOp) -> dict[str, Tensor]:
        """Logits of each call: ``NAME.all`` [valid tokens, V] and ``NAME.last`` [batch, V]."""
        if any(isinstance(op, ProgramOp) for op in module.walk()):
            from npuc.passes.simulation import simulated

            return simulated(self, module)
        found: dict[str, Tensor] = {}
        for call in self.calls:
            found |= self.run(module, call)
        return found

    def run(
        self,
        module: ModuleOp,
        call: Call,
        watch: Watch | None = None,
        entries: Sequence[str] = ENTRIES,
    ) -> dict[str, Tensor]:
        """Logits of one call of a module above commands.

        Args:
            watch: told each operation, in order.
            entries: which to run, where the module has several.
        """
        nested = buckets_of(module)
        program = next((m for m in nested if symbol(m) == call.bucket.name), None)
        if program is not None and any(op.name.startswith("tile.") for op in program.walk()):
            return self._tile(module, program, call, watch, entries)
        return self._graph(module, program, call, watch)

    def _graph(
        self, module: ModuleOp, program: ModuleOp | None, call: Call, watch: Watch | None
    ) -> dict[str, Tensor]:
        together = Lockstep(ranks_of(module))

        def rank_run(rank: int) -> Tensor:
            interpreter = self._interpreter(module, program, call, rank)
            interpreter.ranks = together, rank
            interpreter.observe = watch if rank == 0 else None
            function = "main" if program is None else "all"
            inputs = [call.tokens, call.positions]
            count = len(interpreter.functions[function].body.block.args)
            (logits,) = interpreter.run(function, inputs[:count], call.runtime)
            return logits

        logits = together.run([partial(rank_run, rank) for rank in range(together.ranks)])[0]
        logits = logits[..., : vocabulary(module)]
        last = _last_of_all(call, logits)
        return {**logits_of(call, "all", logits), **logits_of(call, "last", last)}

    def _interpreter(self, module: ModuleOp, program: ModuleOp | None, call: Call, rank: int) -> Interpreter:
        """The interpreter of a rank's program, with its caches and weights."""
        caches = Caches(call.bucket.attended)
        declarations = {op.sym_name.data: op for op in module.ops if isinstance(op, graph.CacheDeclOp)}
        for name, heads, sizes, layers, kind in cache_shapes(module, rank):
            for part, table in enumerate((caches.keys, caches.values)):
                shape = (call.bucket.attended, sizes[part])
                table[name] = filled(heads, shape, layers, call.bucket.batch, part, kind)
        interpreter = AnyLevel(program or module, self.reader(rank), caches, None)
        weights = {op.sym_name.data: op for op in module.ops if isinstance(op, graph.WeightOp)}
        packed = {
            op.sym_name.data: weights[op.weight.string_value()]
            for op in module.ops
            if isinstance(op, tile.PackedOp)
        }
        interpreter.symbols |= weights | packed
        placed = {op.sym_name.data: op for op in module.ops if isinstance(op, tile.CacheOp)}
        interpreter.declarations |= declarations | placed  # pyright: ignore[reportAttributeAccessIssue]
        return interpreter

    def _tile(
        self,
        module: ModuleOp,
        program: ModuleOp,
        call: Call,
        watch: Watch | None,
        entries: Sequence[str],
    ) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        if MEMORY_ATTRIBUTE in module.attributes:
            from npuc.passes.simulation import Chip

            chip = Chip(self, module)
            for entry in entries:
                found |= chip.interpret(program, call, entry, partial(tile_observer, watch))
            return found
        functions = {op.sym_name.data: op for op in program.ops if isinstance(op, FuncOp)}
        for entry in entries:
            kind = functions[entry].body.block.args[-1].type
            assert isinstance(kind, MemRefType)
            logits = torch.full(kind.get_shape(), torch.nan, dtype=torch_type(kind.element_type))
            inputs = [call.tokens, call.positions][: len(functions[entry].body.block.args) - 1]
            together, exchanged = Lockstep(ranks_of(module)), dict[object, Tensor]()

            def run(rank: int) -> None:
                memory = self._tile_memory(module, call, rank)
                memory.ranks, memory.exchanged = (together, rank), exchanged
                observe = tile_observer(watch if rank == 0 else None, memory)
                interpret_tile(program, entry, [*inputs, logits], memory, observe=observe)

            together.run([partial(run, rank) for rank in range(together.ranks)])
            found |= logits_of(call, entry, logits[..., : vocabulary(module)])
        return found

    def _tile_memory(self, module: ModuleOp, call: Call, rank: int) -> TileMemory:
        """Weights and caches of a rank."""
        ops = {op.sym_name.data: op for op in module.ops if isinstance(op, tile.PackedOp)}
        machine = machine_of(self.target)
        return TileMemory(
            slices={name: memory.slices for name, memory in machine.memories.items()},
            cores=machine.cores_per_chip,
            weight=lambda name, ordinal: self.layers(module, ops[name], rank)[ordinal or 0],
            caches={
                (name, ("key", "value")[part]): token_major(
                    filled(heads, shape, layers, slots, part, element)
                )
                for name, layers, slots, heads, shapes, element in placed_caches(module, rank)
                for part, shape in enumerate(shapes)
            },
            runtime=call.runtime,
        )

    def layers(self, module: ModuleOp, op: tile.PackedOp, rank: int = 0) -> list[Tensor]:
        """The packed tensors of each layer of a rank's weight."""
        from npuc.runtime.weight_packing import ModuleWeights

        key = op.sym_name.data, f"{op.recipe} {op.layers}", rank
        if key not in self.packed:
            self.packed[key] = [t.contiguous() for t in ModuleWeights(module, self.root, rank).layers(op)]
        return self.packed[key]


def symbol(module: ModuleOp) -> str:
    """The name of a nested module."""
    return "" if module.sym_name is None else module.sym_name.data


def filled(
    heads: Sequence[int],
    shape: tuple[int, int],
    layers: Sequence[int],
    slots: int,
    part: int,
    dtype: torch.dtype,
) -> Tensor:
    """A cache [layers, slots, heads, length, size] with contents that its places decide."""
    rows = [
        torch.stack([place_values(heads, shape, layer, slot, part) for slot in range(slots)])
        for layer in layers
    ]
    return torch.stack(rows).to(dtype)


def on_grid(value: Tensor, grid: GridAttr, slices: int) -> Tensor:
    """What each slice has of a tensor on a grid, [slices, …]."""
    block, columns = grid.block.data, grid.columns.data
    rows = slices // columns
    parts = value.unflatten(-1, (columns, -1)).movedim(-2, 0)
    if not block:
        return parts.expand(rows, *parts.shape).flatten(0, 1)
    dealt = parts.unflatten(-2, (-1, rows, block)).movedim(-3, 0)
    return dealt.flatten(-3, -2).flatten(0, 1)


def token_major(cache: Tensor) -> Tensor:
    """A cache […, heads, length, size] as programs keep it: […, length, heads, size]."""
    return cache.transpose(-3, -2).contiguous()


def cache_shapes(
    module: ModuleOp, rank: int = 0
) -> Iterator[tuple[str, tuple[int, ...], tuple[int, int], tuple[int, ...], torch.dtype]]:
    """Name, heads, key and value size, layers and type of each cache of a rank, placed or not."""
    for op in module.ops:
        if isinstance(op, graph.CacheDeclOp):
            sizes = tile.integer(op.key_size), tile.integer(op.value_size)
            heads = cached_heads(op, tile.integer(op.heads), rank)
            yield op.sym_name.data, heads, sizes, tile.ints(op.layers), torch_type(op.type)
    for name, layers, _, heads, ((_, key), (_, value)), dtype in placed_caches(module, rank):
        yield name, heads, (key, value), layers, dtype


Shape2 = tuple[int, int]


def placed_caches(
    module: ModuleOp, rank: int = 0
) -> Iterator[tuple[str, tuple[int, ...], int, tuple[int, ...], tuple[Shape2, Shape2], torch.dtype]]:
    """Name, layers, slots, heads, shapes [length, size] and type of each placed cache of a rank."""
    for op in module.ops:
        if isinstance(op, tile.CacheOp):
            (length, count, key_size), (*_, value_size) = op.key_type.get_shape(), op.value_type.get_shape()
            shapes = (length, key_size), (length, value_size)
            dtype = torch_type(op.key_type.element_type)
            heads = cached_heads(op, count, rank)
            yield op.sym_name.data, tile.ints(op.layers), tile.integer(op.slots), heads, shapes, dtype


def cached_heads(op: Operation, count: int, rank: int) -> tuple[int, ...]:
    """Which of the model's heads a rank's cache of so many holds."""
    dealt = op.attributes.get(DEALT_ATTRIBUTE)
    first = rank * count
    return tuple(range(count)) if dealt is None else tile.ints(dealt)[first : first + count]


def vocabulary(module: ModuleOp) -> int | None:
    """The number of tokens, if the module says; logits may be padded."""
    size = module.attributes.get("npuc.vocab_size")
    return None if size is None else tile.integer(size)


def logits_of(call: Call, entry: str, logits: Tensor) -> dict[str, Tensor]:
    """The valid logits of an entry, ``all`` or ``last``, by the name of the output."""
    name = f"{call.bucket.name}.{entry}"
    if entry == "last":
        return {name: logits.reshape(call.bucket.batch, -1).float()}
    rows = zip(logits.reshape(*call.tokens.shape, -1), call.valid, strict=True)
    return {name: torch.cat([row[:count] for row, count in rows]).float()}


def _last_of_all(call: Call, logits: Tensor) -> Tensor:
    return torch.stack([row[count - 1] for row, count in zip(logits, call.valid, strict=True)])


def written_buffer(op: tile.PassOp | tile.CopyOp) -> int:
    """The number of the buffer that a pass or copy writes to."""
    return op.spec.ports["out" if isinstance(op, tile.PassOp) else "dst"].buffer


def tile_observer(watch: Watch | None, memory: TileMemory) -> Observer | None:
    """Tells a watch what each pass and copy has left in the buffer it writes to."""
    if watch is None:
        return None

    def observe(op: Operation, places: Sequence[At]) -> None:
        assert isinstance(op, tile.PassOp | tile.CopyOp)
        number = written_buffer(op)
        kind = op.buffers[number].type
        assert isinstance(kind, MemRefType)
        watch(op, None, [memory.content(places[number], kind).clone()])

    return observe
