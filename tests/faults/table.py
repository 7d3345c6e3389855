"""The faults: what compilers get wrong, in passes, allocation, synchronization and encoder."""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable, Sequence
from typing import Any

from npuc.backends.instruction import Instruction, Reg
from npuc.ir import graph, tile
from npuc.ir.npu import CommandOp, field_attr
from npuc.passes.evaluation import written_buffer
from planting import ENCODER, Fault, all_named, comes_from, named, programs
from xdsl.dialects.builtin import DenseIntOrFPElementsAttr, FloatAttr, IntegerAttr, ModuleOp, StringAttr, f32
from xdsl.ir import Operation
from xdsl.rewriter import InsertPoint, Rewriter

LAYER, ATTENTION, MLP = "model.layers.{}", "model.layers.{}.self_attn", "model.layers.{}.mlp"
FIRST, FIRST_ATTENTION, FIRST_MLP = (path.replace("{}", "0") for path in (LAYER, ATTENTION, MLP))


def set_float(op: Operation, name: str, value: float) -> None:
    op.attributes[name] = FloatAttr(value, op.attributes[name].type)


def swapped_operands(module: ModuleOp) -> None:
    for op in named(module, "graph.gated", MLP):
        op.operands = [op.operands[1], op.operands[0]]


def wrong_epsilon(module: ModuleOp) -> None:
    for op in named(module, "graph.rms_norm", "model.norm"):
        set_float(op, "eps", 0.1)


def interleaved(module: ModuleOp) -> None:
    for op in all_named(module, "graph.rope", ATTENTION)[:1]:
        op.attributes["interleaved"] = type(op.interleaved)(1, op.interleaved.type)


def position_off_by_one(module: ModuleOp) -> None:
    for cast in named(module, "graph.cast", "model.rotary_emb"):
        users = [(use.operation, use.index) for use in cast.result.uses]
        one = DenseIntOrFPElementsAttr.from_list(graph_type(f32, (1,)), [1.0])
        constant = graph.ConstantOp.build(attributes={"value": one}, result_types=[one.type])
        moved = graph.BINARY["add"].build(
            operands=[cast.result, constant.result],
            result_types=[cast.result.type],
            attributes={"module": StringAttr("model.rotary_emb")},
        )
        Rewriter.insert_op([constant, moved], InsertPoint.after(cast))
        for user, index in users:
            user.operands[index] = moved.result


def graph_type(element: Any, shape: Sequence[int]) -> Any:
    from xdsl.dialects.builtin import TensorType

    return TensorType(element, shape)


def wrong_mask(module: ModuleOp) -> None:
    """The newest token is not attended to."""
    for le in named(module, "graph.le", "model"):
        lt = graph.BINARY["lt"].build(
            operands=le.operands, result_types=[le.result.type], attributes=dict(le.attributes)
        )
        lt.result.name_hint, lt.location = le.result.name_hint, le.location
        Rewriter.replace_op(le, lt)


def wrong_scale(module: ModuleOp) -> None:
    for op in all_named(module, "graph.attention", ATTENTION)[:1]:
        set_float(op, "scale", op.scale.value.data / 2)


def missing_softcap(module: ModuleOp) -> None:
    for op in all_named(module, "graph.attention", ATTENTION):
        assert op.softcap.value.data
        set_float(op, "softcap", 0.0)


def wrong_constant(module: ModuleOp) -> None:
    for op in named(module, "graph.constant", "model.rotary_emb"):
        values = [float(v) for v in op.value.get_values()]
        op.attributes["value"] = DenseIntOrFPElementsAttr.from_list(op.value.type, [*values[:-1], 1.0])


def dropped_residual(module: ModuleOp) -> None:
    for op in named(module, "graph.add", LAYER):
        op.result.replace_all_uses_with(op.operands[1])
        op.detach()
        op.erase()


def swapped_keys_and_values(module: ModuleOp) -> None:
    for op in all_named(module, "graph.kv_update", ATTENTION):
        op.operands = [op.operands[1], op.operands[0]]


def wrong_weight(module: ModuleOp) -> None:
    """The keys' weight is packed where the values' should be."""
    packed = {op.sym_name.data: op for op in module.ops if isinstance(op, tile.PackedOp)}
    keys, values = (packed[f"{ATTENTION}.{name}_proj.weight#0"] for name in "kv")
    values.attributes["weight"] = keys.weight


# Passes and copies


def chain_without(op: Operation, step: str) -> None:
    kept = [attr for attr in op.chain if tile.Step.from_attr(attr).op != step]
    assert len(kept) < len(op.chain)
    op.attributes["chain"] = type(op.chain)(kept)


def edited(op: Operation, **changes: Any) -> None:
    """Changes parts of a pass's or copy's specification."""
    make: Any = type(op)
    new = make(dataclasses.replace(op.spec, **changes), op.buffers, op.indices)
    op.attributes |= {name: attr for name, attr in new.attributes.items() if name != "module"}
    new.erase()


def edited_port(op: Operation, name: str, **changes: Any) -> None:
    ports = dict(op.spec.ports)
    ports[name] = dataclasses.replace(ports[name], **changes)
    edited(op, ports=ports)


def dropped_accumulation(module: ModuleOp) -> None:
    """The slices' sums are not added up."""
    for op in named(module, "tile.pass", f"{LAYER}.input_layernorm"):
        chain_without(op, "ring_add")


def wrong_limit(module: ModuleOp) -> None:
    """Some elements are left out of the mean of squares."""
    for op in named(module, "tile.pass", "model.norm"):
        limit = op.spec.limit
        edited(op, limit=dataclasses.replace(limit, limit=limit.limit - 8))


def stale_cache(module: ModuleOp) -> None:
    """New keys go to position 0, whatever their position is."""
    for op in named(module, "tile.copy", ATTENTION):
        assert isinstance(op.buffers[op.spec.ports["dst"].buffer].owner, tile.CacheSlotOp)
        edited_port(op, "dst", index=())


def transposed_tile(module: ModuleOp) -> None:
    """The weights of a tile are read by columns."""
    for program in programs(module):
        found = all_named(program, "tile.pass", f"{ATTENTION}.q_proj")
        op = next(op for op in found if "stationary" in op.spec.ports)
        strides = list(op.spec.ports["stationary"].strides)
        strides[-2], strides[-1] = 1, op.spec.size[-2]
        edited_port(op, "stationary", strides=tuple(strides))


def missing_scale(module: ModuleOp) -> None:
    """Attention's scores are not scaled."""
    for program in programs(module):
        op = next(op for op in all_named(program, "tile.pass", ATTENTION) if _selects(op))
        chain_without(op, "mul")


def _selects(op: Operation) -> bool:
    return any(step.op == "select" for step in op.spec.chain)


def wrong_rounding(module: ModuleOp) -> None:
    """The residual stream is rounded to bfloat16 on its way."""
    from xdsl.dialects.builtin import MemRefType, bf16

    for op in named(module, "tile.pass", LAYER):
        value = op.buffers[written_buffer(op)]
        kind = value.type
        value._type = MemRefType(bf16, kind.get_shape(), kind.layout, kind.memory_space)


def lost_command(module: ModuleOp) -> None:
    for op in named(module, "tile.pass", f"{MLP}.down_proj"):
        op.detach()
        op.erase()


def wrong_immediate(module: ModuleOp) -> None:
    """One over the number of elements is not what the mean of squares is multiplied with."""
    for program in programs(module):
        op = all_named(program, "tile.pass", f"{LAYER}.post_attention_layernorm")[1]
        chain = tuple(
            dataclasses.replace(s, value=s.value * 2) if s.op == "mul" else s for s in op.spec.chain
        )
        edited(op, chain=chain)


def too_early(module: ModuleOp) -> None:
    """What attention adds to the residual stream is added before it is there."""
    for op in named(module, "tile.pass", LAYER):
        writers = [use.operation for use in op.buffers[op.spec.ports["operand"].buffer].uses]
        writer = next(w for w in writers if w is not op and w.parent_block() is op.parent_block())
        for moved in (op.buffers[written_buffer(op)].owner, op):
            moved.detach()
            Rewriter.insert_op(moved, InsertPoint.before(writer))


# Allocation

BEHIND = 0x40000
"""An address that no buffer of the small models reaches."""


def overlapping_buffers(module: ModuleOp) -> None:
    """The residual is kept where the products of gate and up go, behind all other buffers."""
    for program in programs(module):
        add = all_named(program, "tile.pass", LAYER)[0]
        for op in (add, *named(program, "tile.pass", MLP)):
            op.buffers[written_buffer(op)].owner.attributes["address"] = IntegerAttr(BEHIND, 64)


def overlapping_layers(module: ModuleOp) -> None:
    """The layers' caches lie closer together than they are long."""
    for op in module.ops:
        if isinstance(op, tile.CacheOp):
            stride = tile.integer(op.layer_stride)
            op.attributes["layer_stride"] = type(op.layer_stride)(stride // 2, 64)


# Synchronization


def without_waits(op: Operation) -> None:
    del op.attributes["waits"]


def missing_wait(module: ModuleOp) -> None:
    """A load of weights into the contraction unit does not wait for the copy that brings them."""
    for program in programs(module):
        found = all_named(program, "tile.pass", f"{ATTENTION}.q_proj")
        without_waits(next(op for op in found if "waits" in op.attributes))


def missing_wait_of_copy(module: ModuleOp) -> None:
    """Weights are copied over those that are still being read."""
    for program in programs(module):
        op = next(op for op in all_named(program, "tile.copy", ATTENTION) if "waits" in op.attributes)
        without_waits(op)


# Commands


def edited_command(op: CommandOp, **fields: Any) -> None:
    names = {name.replace("__", "."): field_attr(value) for name, value in fields.items()}
    op.attributes["fields"] = type(op.fields)({**op.fields.data, **names})


def commands(module: ModuleOp, source: str, path: str) -> list[CommandOp]:
    found = [op for op in module.walk() if isinstance(op, CommandOp) and op.queue.data != "control"]
    return [op for op in found if comes_from(op.instruction, source, path)]


def wrong_base_register(module: ModuleOp) -> None:
    """All layers read the first one's weights."""
    for op in commands(module, "tile.copy", f"{ATTENTION}.k_proj"):
        edited_command(op, src__base=op.instruction.fields["src.base"].imm)


def wrong_base(module: ModuleOp) -> None:
    """A result is stored one element too far."""
    for op in commands(module, "tile.pass", "model.norm")[:1]:
        base = op.instruction.fields["out.base"]
        assert isinstance(base, int)
        edited_command(op, out__base=base + 4)


def lost_wait(module: ModuleOp) -> None:
    for op in commands(module, "tile.pass", f"{MLP}.gate_proj"):
        if "waits" in op.attributes:
            del op.attributes["waits"]
            return


# The encoder


def wrong_stride(instruction: Instruction) -> Instruction:
    strides = instruction.fields.get("stationary.strides")
    if not isinstance(strides, tuple) or not comes_from(instruction, "tile.pass", f"{MLP}.up_proj"):
        return instruction
    fields = {**instruction.fields, "stationary.strides": (0, 0, *strides[2:])}
    return dataclasses.replace(instruction, fields=fields)


def truncated_immediate(instruction: Instruction) -> Instruction:
    """Immediates of one pass keep the upper half of their bits."""
    values = instruction.fields.get("chain.value")
    if not isinstance(values, tuple) or not comes_from(instruction, "tile.pass", ATTENTION):
        return instruction
    halves = tuple(_truncated(float(value)) for value in values)
    return dataclasses.replace(instruction, fields={**instruction.fields, "chain.value": halves})


def _truncated(value: float) -> float:
    return struct.unpack("<f", b"\0\0" + struct.pack("<f", value)[2:])[0]


def encoded_without_wait(instruction: Instruction) -> Instruction:
    if instruction.waits and comes_from(instruction, "tile.pass", f"{ATTENTION}.o_proj"):
        return dataclasses.replace(instruction, waits=())
    return instruction


def wrong_register(instruction: Instruction) -> Instruction:
    """The cache's values are written through the register of something else."""
    base = instruction.fields.get("dst.base")
    if isinstance(base, Reg) and comes_from(instruction, "tile.copy", ATTENTION) and base.imm > 1 << 20:
        fields = {**instruction.fields, "dst.base": Reg(base.imm, 0)}
        return dataclasses.replace(instruction, fields=fields)
    return instruction


def _fault(plant: Callable[[Any], Any], step: str, op: str, module: str, model: str = "demo") -> Fault:
    return Fault(plant.__name__.replace("_", "-"), step, op, module, plant, model)


FAULTS = (
    _fault(wrong_constant, "fold-constants", "graph.constant", "model.rotary_emb"),
    _fault(wrong_epsilon, "raise-rms-norm", "graph.rms_norm", "model.norm"),
    _fault(interleaved, "raise-rope", "graph.rope", FIRST_ATTENTION),
    _fault(swapped_operands, "raise-gated", "graph.gated", FIRST_MLP),
    _fault(position_off_by_one, "outline-rows", "graph.add", "model.rotary_emb"),
    _fault(dropped_residual, "canonicalize", "graph.add", FIRST),
    _fault(wrong_mask, "specialize", "graph.lt", "model"),
    _fault(missing_softcap, "specialize", "graph.attention", FIRST_ATTENTION, "gemma2"),
    _fault(wrong_scale, "assign-layouts", "graph.attention", FIRST_ATTENTION),
    _fault(wrong_weight, "pack-weights", "graph.param", f"{FIRST_ATTENTION}.v_proj"),
    _fault(swapped_keys_and_values, "place-caches", "graph.kv_update", FIRST_ATTENTION),
    _fault(dropped_accumulation, "lower-to-tile", "graph.rms_norm", f"{FIRST}.input_layernorm"),
    _fault(wrong_limit, "lower-to-tile", "graph.rms_norm", "model.norm"),
    _fault(stale_cache, "lower-to-tile", "graph.kv_update", FIRST_ATTENTION),
    _fault(transposed_tile, "lower-to-tile", "graph.linear", f"{FIRST_ATTENTION}.q_proj"),
    _fault(missing_scale, "lower-to-tile", "graph.attention", FIRST_ATTENTION),
    _fault(wrong_rounding, "lower-to-tile", "graph.add", FIRST),
    _fault(lost_command, "inline-calls", "tile.pass", f"{MLP}.down_proj"),
    _fault(wrong_immediate, "select-commands", "tile.pass", f"{LAYER}.post_attention_layernorm"),
    _fault(too_early, "order-commands", "tile.pass", LAYER),
    _fault(overlapping_buffers, "allocate-buffers", "tile.alloc", MLP),
    _fault(overlapping_layers, "allocate-buffers", "tile.copy", ATTENTION),
    _fault(missing_wait, "insert-sync", "tile.pass", f"{ATTENTION}.q_proj"),
    _fault(missing_wait_of_copy, "insert-sync", "tile.copy", ATTENTION),
    _fault(wrong_base_register, "lower-to-npu", "tile.copy", f"{ATTENTION}.k_proj"),
    _fault(wrong_base, "lower-to-npu", "tile.pass", "model.norm"),
    _fault(lost_wait, "lower-to-npu", "tile.pass", f"{MLP}.gate_proj"),
    _fault(wrong_stride, ENCODER, "tile.pass", f"{MLP}.up_proj"),
    _fault(truncated_immediate, ENCODER, "tile.pass", ATTENTION),
    _fault(wrong_register, ENCODER, "tile.copy", ATTENTION),
    _fault(encoded_without_wait, ENCODER, "tile.pass", f"{ATTENTION}.o_proj"),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
