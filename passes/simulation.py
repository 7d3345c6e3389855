"""What the programs of a scheduled module compute: encoded, and run on the simulator."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from npuc.ir import tile
from npuc.passes.allocate_buffers import memory_map
from npuc.passes.checking import place_values
from npuc.passes.emit import emit_programs
from npuc.passes.target_option import machine_of
from npuc.runtime.device import parameters
from npuc.runtime.element_types import element_type
from npuc.runtime.simulator.simulator import Simulator
from torch import Tensor
from xdsl.dialects.builtin import ModuleOp

if TYPE_CHECKING:
    from npuc.passes.evaluation import Evaluator


def simulated(evaluator: Evaluator, module: ModuleOp) -> dict[str, Tensor]:
    """Logits of each call, as `Evaluator.outputs` gives them."""
    from npuc.passes.evaluation import logits_of

    regions = memory_map(module)
    end = max(base + size for base, size in regions.values())
    simulator = Simulator(machine_of(evaluator.target), end)
    _write_weights(evaluator, module, simulator, regions["weights"][0])
    emitted = {program.name: program for program in emit_programs(module, evaluator.target)}
    found: dict[str, Tensor] = {}
    for call in evaluator.calls:
        program = emitted[call.bucket.name]
        loaded = simulator.load(program.program)
        for entry in ("all", "last"):
            simulator.zero(*regions["cache"])
            _write_caches(module, simulator, regions["cache"][0])
            for name, tensor in (("tokens", call.tokens), ("positions", call.positions)):
                if name in program.io:
                    simulator.write(program.io[name][0], tensor)
            rows = [(slot, p, v) for slot, (p, v) in enumerate(zip(call.position, call.valid, strict=True))]
            simulator.run(loaded, entry, parameters(rows))
            address, shape, kind = program.io[f"logits_{entry}"]
            found |= logits_of(call, entry, simulator.read(address, shape, element_type(kind).torch_type))
    return found


def _write_weights(evaluator: Evaluator, module: ModuleOp, simulator: Simulator, base: int) -> None:
    for op in module.ops:
        if isinstance(op, tile.PackedOp):
            stride = 0 if op.layers is None else tile.integer(op.stride)
            for ordinal, tensor in enumerate(evaluator.layers(module, op)):
                simulator.write(base + tile.integer(op.offset) + ordinal * stride, tensor)


def _write_caches(module: ModuleOp, simulator: Simulator, base: int) -> None:
    from npuc.passes.evaluation import placed_caches

    ops = {op.sym_name.data: op for op in module.ops if isinstance(op, tile.CacheOp)}
    for name, layers, slots, shapes, dtype in placed_caches(module):
        op = ops[name]
        steps = tile.integer(op.layer_stride), tile.integer(op.slot_stride), tile.integer(op.value_offset)
        first = base + tile.integer(op.offset)
        for ordinal, layer in enumerate(layers):
            for slot in range(slots):
                for part, shape in enumerate(shapes):
                    values = place_values(shape, layer, slot, part).to(dtype)
                    assert values.numel() == prod(shape)
                    at = sum(n * step for n, step in zip((ordinal, slot, part), steps, strict=True))
                    simulator.write(first + at, values)
