"""The machine model: what the descriptions say, and which instructions they refuse."""

from __future__ import annotations

import pytest
from npuc.backends.instruction import FieldValue, Instruction, Reg, SemaphoreUse
from npuc.backends.machine import Machine
from npuc.backends.model import CHAIN_OPS, CHAIN_SOURCES
from npuc.ir import chain
from npuc.ir.errors import UserError

COPY: dict[str, FieldValue] = {"size": (64,), "type": "f32", "src.memory": "hbm", "src.strides": (4,),
                               "dst.memory": "dm", "dst.strides": (4,)}  # fmt: skip
PASS: dict[str, FieldValue] = {"size": (64,), "stream.type": "f32", "stream.strides": (4,),
                               "out.type": "f32", "out.strides": (4,)}  # fmt: skip
PRODUCT: dict[str, FieldValue] = PASS | {
    "size": (8, 64), "reduce": 2, "stream.strides": (0, 4), "stationary.type": "f32",
    "stationary.strides": (256, 4), "out.strides": (4, 0),
}  # fmt: skip


def test_rngd_has_64_slices_and_8_cores_a_chip(rngd: Machine) -> None:
    assert (rngd.slices, rngd.cores_per_chip, rngd.main.name) == (64, 8, "hbm")
    dm = rngd.memories["dm"]
    assert (dm.level, dm.slices, dm.size, dm.window, dm.write_granule) == ("slice", 64, 512 << 10, 4 << 20, 8)
    assert rngd.queues["sub"].depth == 8
    assert rngd.element_types["bf16"].bits == 16
    assert [t.name for t in rngd.element_types.values() if t.simulator_only] == ["f32"]


def test_toy_has_another_shape(toy: Machine) -> None:
    assert (toy.slices, toy.main.name, list(toy.queues)) == (1, "dram", ["load", "exec"])
    assert toy.commands["mm"].ports["stationary"].memories == ("spm",)
    assert "out.memory" not in toy.commands["mm"].fields, "there is no choice"
    assert {c.format.length for c in toy.commands.values()} == {16, 96, 112, 160}


def test_chain_names_are_those_of_the_kernels() -> None:
    assert set(CHAIN_OPS) == set(chain.CHAIN_OPS)
    assert ("none", *CHAIN_SOURCES) == chain.SOURCES


def test_absent_fields_have_their_declared_defaults(rngd: Machine) -> None:
    copy = Instruction("dma", "dma", COPY)
    assert rngd.field(copy, "size") == (64, 1, 1, 1, 1, 1, 1, 1)
    assert rngd.field(copy, "limit") == -1
    assert rngd.field(copy, "dst.base") == 0
    assert rngd.field(Instruction("tu", "main", {}), "chain.op") == ("none",) * 12
    with pytest.raises(UserError, match="rngd has no command 'mm'"):
        rngd.field(Instruction("mm", "exec"), "size")


@pytest.mark.parametrize(
    ("command", "queue", "fields"), [("dma", "dma", COPY), ("tu", "main", PASS), ("tu", "main", PRODUCT)]
)
def test_good_instructions_pass(
    rngd: Machine, command: str, queue: str, fields: dict[str, FieldValue]
) -> None:
    assert rngd.check(Instruction(command, queue, fields)) == []


# Each case: command, queue, base fields, changed fields, parts of the one message.
REFUSED: list[tuple[str, str, dict[str, FieldValue], dict[str, FieldValue], list[str]]] = [
    ("tu", "dma", PASS, {}, ["queue is 'dma', not one of main, sub"]),
    ("tu", "main", PASS, {"colour": 3}, ["unknown field 'colour'"]),
    ("tu", "main", PASS, {"size": (70_000,)}, ["size[0] is 70000, outside 1 … 65536"]),
    ("tu", "main", PASS, {"size": (1,) * 9}, ["size has 9 elements, at most 8 fit"]),
    ("tu", "main", PASS, {"size": 64}, ["size is 64, not a tuple of up to 8"]),
    ("tu", "main", PASS, {"reduce": Reg(1, 2)}, ["reduce is 1 + r2, but takes no register"]),
    ("tu", "main", PASS, {"out.base": Reg(0, 64)}, ["out.base adds register 64, the machine has 0 … 63"]),
    ("tu", "main", PASS, {"stream.type": "f16"}, ["stream.type is 'f16', not one of none, i4, i8"]),
    ("tu", "main", PASS, {"reduce": "3"}, ["reduce is '3', not an integer"]),
    ("tu", "main", PASS, {"fill": float("nan")}, ["fill is nan, not a number"]),
    ("tu", "main", PASS, {"fill": 1e39}, ["fill is 1e+39, too large for f32"]),
    ("tu", "main", PASS, {"out.type": "none"}, ["used(out) = 0", "a pass stores its results"]),
    ("tu", "main", PASS, {"out.base": 12}, ["alignment(out) = 12, granule(out) = 8"]),
    ("tu", "main", PASS, {"out.base": 524_200}, ["last(out) = 524455, space(out) = 524288"]),
    ("tu", "main", PASS, {"ring_dim": 1, "size": (32,)}, ["extent(ring_dim) = 32, slices = 64"]),
    ("tu", "sub", PASS, {"ring_dim": 1}, ["queue = sub", "the switch serves the main context"]),
    ("tu", "main", PASS, {"out.memory": "vrf", "out.type": "bf16", "out.strides": (2,)}, ["bits(out) = 16"]),
    ("tu", "main", PASS, {"mask.dim": 9}, ["mask.dim is 9, outside 0 … 8"]),
    ("tu", "main", PASS, {"chain.op": ("exp", "exp")}, ["chain.op[1] = exp finds no free", "after exp"]),
    ("tu", "main", PASS, {"chain.op": ("max", "mul")}, ["chain.op[1] = mul", "after max"]),
    ("tu", "main", PASS, {"chain.op": ("mul",), "chain.source": ("operand",)}, ["which has no type"]),
    ("tu", "sub", PRODUCT, {}, ["queue = sub", "the sub context has no contraction"]),
    ("tu", "main", PRODUCT, {"stationary.type": "bf16"}, ["f32, type(stationary) = bf16"]),
    ("tu", "main", PRODUCT, {"operand.type": "f32"}, ["used(operand) = 1", "vector engine only"]),
    ("tu", "main", PRODUCT, {"chain.op": ("mul",), "chain.source": ("stash",)}, ["the stash holds"]),
    ("tu", "main", PRODUCT, {"chain.op": ("reduce_add",)}, ["has reduced the dimensions already"]),
    ("tu", "main", PRODUCT, {"size": (2, 2048), "reduce": 1, "out.strides": (0, 4)},
     ["accumulators = 2048, accumulator_count = 1024"]),
    ("dma", "dma", COPY, {"type": "none"}, ["a copy needs an element type"]),
    ("dma", "dma", COPY, {"dst.base": 4}, ["alignment(dst) = 4, granule(dst) = 8"]),
    ("dma", "dma", COPY, {"index.dim": 1, "src.memory": "dm"}, ["memory(src) = dm", "gathers read hbm"]),
    ("dma", "dma", COPY, {"src.base": 4 * 48 << 30}, ["the source must lie in the memory"]),
    ("signal", "control", {"sem": 64}, {}, ["sem is 64, outside 0 … 63"]),
    ("set", "control", {"rd": 0}, {}, ["rd = 0", "register 0 is always zero"]),
]  # fmt: skip


@pytest.mark.parametrize(("command", "queue", "fields", "changed", "parts"), REFUSED)
def test_violated_constraints_are_named(
    rngd: Machine,
    command: str,
    queue: str,
    fields: dict[str, FieldValue],
    changed: dict[str, FieldValue],
    parts: list[str],
) -> None:
    problems = rngd.check(Instruction(command, queue, fields | changed))
    assert len(problems) == 1, problems
    assert problems[0].startswith(f"{command}: ")
    for part in parts:
        assert part in problems[0]


def test_every_violation_is_listed(rngd: Machine) -> None:
    bad = PASS | {"ring_dim": 1, "size": (3,), "out.base": 4, "chain.op": ("log", "exp", "sin")}
    problems = rngd.check(Instruction("tu", "sub", bad))
    assert len(problems) == 4, problems


def test_semaphore_uses_are_checked(rngd: Machine) -> None:
    many = tuple(SemaphoreUse(i, 1) for i in range(5))
    assert (
        "5 waits are given, the format has room for 4" in rngd.check(Instruction("tu", "main", PASS, many))[0]
    )
    wrong = (SemaphoreUse(64, 1), SemaphoreUse(1, 0), SemaphoreUse(1, 256))
    problems = rngd.check(Instruction("tu", "main", PASS, (), wrong))
    assert [p.split(":")[1].strip() for p in problems] == [
        "signal on semaphore 64, the machine has 0 … 63",
        "signal of 0 tokens on semaphore 1, outside 1 … 255",
        "signal of 256 tokens on semaphore 1, outside 1 … 255",
    ]


def test_register_values_are_left_to_the_simulator(rngd: Machine) -> None:
    assert rngd.check(Instruction("tu", "main", PASS | {"out.base": Reg(524_288, 3)})) == []


CHAINS = [
    (("mul", "exp"), True), (("exp", "mul"), True), (("mul", "mul", "mul"), True), (("mul",) * 4, False),
    (("exp", "reduce_add", "ring_add"), True), (("reduce_add", "exp"), False), (("mul", "select"), True),
    (("sqrt", "rdiv"), True), (("mul", "add", "max", "min"), True), (("sub", "sub"), False), ((), True),
]  # fmt: skip


@pytest.mark.parametrize(("ops", "fits"), CHAINS)
def test_chains_follow_the_order_of_the_vector_units(rngd: Machine, ops: tuple[str, ...], fits: bool) -> None:
    assert rngd.chain_fits("tu", ops) is fits


def test_every_chain_operation_has_a_unit(machine: Machine) -> None:
    name = "tu" if machine.name == "rngd" else "vec"
    without = [op for op in CHAIN_OPS if not machine.chain_fits(name, (op,))]
    assert without == ([] if machine.slices > 1 else ["ring_add", "ring_max", "ring_min"])


def test_toy_limits(toy: Machine) -> None:
    assert toy.check(Instruction("mm", "exec", PASS))[0].startswith("mm: 'used(stream) and used(stationary)'")
    chain_fields = {"chain.op": ("mul",), "chain.source": ("vrf",)}
    assert "there is no vector register file" in toy.check(Instruction("vec", "exec", PASS | chain_fields))[0]
    odd = {"out.base": 3, "out.type": "i8", "out.strides": (1,)}
    assert toy.check(Instruction("vec", "exec", PASS | odd)) == [], "single bytes can be written"
