"""Programs on simulated memories: fields, addresses, registers, limits, errors."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from commands_of import HALT, RNGD, TOY, WINDOW, control, dma, port, tu
from npuc.backends.elf import Program
from npuc.backends.instruction import Instruction, Reg
from npuc.backends.machine import Machine
from npuc.ir.errors import UserError
from npuc.runtime.simulator import Simulator

S = RNGD.slices
F32 = torch.float32


def encoded(machine: Machine, instructions: list[Instruction], location: str = "") -> Program:
    text = b"".join(machine.encode(instruction) for instruction in instructions)
    return Program(machine.name, text, {"main": 0}, [(0, location)] if location else [])


def run(sim: Simulator, *instructions: Instruction, params: tuple[int, ...] = ()) -> None:
    """Run commands as an encoded program."""
    sim.run(sim.load(encoded(sim.machine, [*instructions, HALT])), params=params)


def load_slices(address: int, n: int, to: int = 0) -> Instruction:
    """f32 [S, n] in main memory to each slice's dm."""
    return dma((S, n), ("hbm", address, (4 * n, 4)), ("dm", to, (WINDOW, 4)))


def store_slices(address: int, n: int, frm: int = 0) -> Instruction:
    return dma((S, n), ("dm", frm, (WINDOW, 4)), ("hbm", address, (4 * n, 4)))


def test_slices_take_their_parts_and_give_them_back() -> None:
    sim = Simulator(RNGD, 1 << 16)
    x = torch.randn(S, 8)
    sim.write(0, x)
    doubled = tu((8,), port("stream", 0, 4), port("out", 64, 4), chain__op=("add",), chain__source=("stash",))
    run(sim, load_slices(0, 8), doubled, store_slices(0x8000, 8, 64))
    assert torch.equal(sim.read(0x8000, (S, 8), F32), 2 * x)


def test_matrix_product_distributed_over_slices() -> None:
    """x[M, K] with K in chunks over the slices, w[N, K] with N in chunks: every slice sees all of x."""
    sim = Simulator(RNGD, 1 << 22)
    m, chunk = 3, 2
    x, w = torch.randn(m, S * chunk), torch.randn(S * chunk, S * chunk)
    sim.write(0, x)
    sim.write(1 << 20, w)
    k = S * chunk
    run(
        sim,
        dma((S, m, chunk), ("hbm", 0, (4 * chunk, 4 * k, 4)), ("dm", 0, (WINDOW, 4 * chunk, 4))),
        dma((S, chunk, k), ("hbm", 1 << 20, (4 * chunk * k, 4 * k, 4)), ("dm", 1024, (WINDOW, 4 * k, 4))),
        tu((chunk * k,), port("stream", 1024, 4), port("out", 512, 4), out__memory="trf"),
        tu(
            (m, chunk, S, chunk),
            port("stream", 0, 4 * chunk, 0, 0, 4),
            port("stationary", 512, 0, 4 * k, 4 * chunk, 4),
            port("out", 256, 4 * chunk, 4),
            reduce=0b1100,
            ring_dim=3,
        ),
        dma((S, m, chunk), ("dm", 256, (WINDOW, 4 * chunk, 4)), ("hbm", 1 << 21, (4 * chunk, 4 * k, 4))),
    )
    torch.testing.assert_close(sim.read(1 << 21, (m, k), F32), x @ w.t())


def test_ring_sums_masks_and_limits_over_slices() -> None:
    """Elements of a vector of 100 in chunks of 2 are summed; the padding, NaN, is not."""
    sim = Simulator(RNGD, 1 << 16)
    x = torch.full((2 * S,), torch.nan)
    x[:100] = torch.arange(100.0)
    sim.write(0, x)
    reduced = tu(
        (2,),
        port("stream", 0, 4),
        port("out", 64, 0),
        reduce=1,
        chain__op=("reduce_add", "ring_add"),
        limit__dim=1,
        limit__slice=2,
        limit__limit=100,
    )
    masked = tu(
        (2,), port("stream", 0, 4), port("out", 128, 4), mask__dim=1, mask__slice=2, mask__limit=Reg(0, 1)
    )
    loaded = load_slices(0, 2)
    run(sim, control("set", rd=1, imm=100), loaded, reduced, masked, store_slices(0x1000, 1, 64))
    run(sim, store_slices(0x2000, 2, 128))
    assert sim.read(0x1000, (S,), F32).tolist() == [4950.0] * S
    assert torch.equal(sim.read(0x2000, (2 * S,), F32), torch.nan_to_num(x))


@pytest.mark.parametrize(("limit", "rows"), [(-1, 4), (0, 0), (3, 3), (9, 4)])
def test_constant_copy_limits(limit: int, rows: int) -> None:
    sim = Simulator(RNGD, 1 << 12)
    sim.write(0, torch.ones(4, 2))
    run(sim, dma((4, 2), ("hbm", 0, (8, 4)), ("hbm", 256, (8, 4)), limit=limit))
    assert sim.read(256, (4, 2), F32).sum().item() == 2 * rows


@pytest.mark.parametrize(("valid", "rows"), [(-5, 0), (-1, 0), (2, 2), (7, 4)])
def test_copy_limits_in_registers(valid: int, rows: int) -> None:
    """A register that holds -1 is a limit below 0, not the constant that means none."""
    sim = Simulator(RNGD, 1 << 12)
    sim.write(0, torch.ones(4, 2))
    limited = dma((4, 2), ("hbm", 0, (8, 4)), ("hbm", 256, (8, 4)), limit=Reg(0, 1))
    run(sim, control("param", rd=1, index=0), limited, params=(valid,))
    assert sim.read(256, (4, 2), F32).sum().item() == 2 * rows


def test_a_clipped_copy_may_reach_behind_the_memory() -> None:
    sim = Simulator(RNGD, 512)
    sim.write(0, torch.ones(4))
    limited = dma((4, 1), ("hbm", 0, (4, 4)), ("hbm", 504, (4, 4)), limit=Reg(0, 1))
    program = sim.load([control("param", rd=1, index=0), limited, HALT])
    sim.run(program, params=(2,))
    assert sim.read(504, (2,), F32).tolist() == [1, 1]
    with pytest.raises(UserError, match="bytes 0x1f8 to 0x207 of hbm do not all exist"):
        sim.run(program, params=(4,))


def test_gather_reads_rows_from_a_list() -> None:
    sim = Simulator(RNGD, 1 << 14)
    table = torch.randn(10, 4)
    sim.write(0, table)
    sim.write(1024, torch.tensor([7, 0, 9], dtype=torch.int32))
    gather = dma(
        (3, 4), ("hbm", 0, (0, 4)), ("hbm", 2048, (16, 4)), index__base=1024, index__dim=1, index__scale=16
    )
    run(sim, gather)
    assert torch.equal(sim.read(2048, (3, 4), F32), table[[7, 0, 9]])
    sim.write(1024, torch.tensor([7, 2000, 9], dtype=torch.int32))
    with pytest.raises(UserError, match=r"dma at 0x0: index 2000 lies outside"):
        run(sim, gather)


def test_registers_move_the_addresses_of_a_loop() -> None:
    sim = Simulator(RNGD, 1 << 14)
    x = torch.randn(3, S, 2)
    sim.write(0, x)
    run(
        sim,
        control("loop", rd=1, count=3),
        control("mul", rd=2, rs=1, imm=S * 8),
        dma((S, 2), ("hbm", Reg(0, 2), (8, 4)), ("dm", 0, (WINDOW, 4))),
        tu((2,), port("stream", 0, 4), port("out", 64, 4), chain__op=("mul",), chain__source=("imm",),
           chain__value=(3.0,)),
        dma((S, 2), ("dm", 64, (WINDOW, 4)), ("hbm", Reg(0x2000, 2), (8, 4))),
        control("end"),
    )  # fmt: skip
    assert torch.equal(sim.read(0x2000, (3, S, 2), F32), x * 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.int8])
def test_types_are_stored_rounded(dtype: torch.dtype) -> None:
    names = {torch.bfloat16: "bf16", torch.float8_e4m3fn: "f8e4m3", torch.int8: "i8"}
    sim = Simulator(RNGD, 1 << 14)
    x = torch.randn(S, 8) * 10
    sim.write(0, x)
    item = dtype.itemsize
    cast = tu((8,), port("stream", 0, 4), port("out", 64, item, type=names[dtype]))
    back = dma((S, 8), ("dm", 64, (WINDOW, item)), ("hbm", 0x2000, (8 * item, item)), type=names[dtype])
    run(sim, load_slices(0, 8), cast, back)
    expected = x.round() if dtype == torch.int8 else x
    assert torch.equal(sim.read(0x2000, (S, 8), dtype).float(), expected.to(dtype).float())


def test_the_toy_machine_runs_too() -> None:
    sim = Simulator(TOY, 1 << 12)
    x, w = torch.randn(2, 4), torch.randn(3, 4)
    sim.write(0, x)
    sim.write(64, w)

    def move(size: tuple[int, ...], src: tuple[str, int], dst: tuple[str, int]) -> Instruction:
        fields = {"size": size, "type": "f32", "src.memory": src[0], "src.base": src[1], "src.strides": (4,)}
        to = {"dst.memory": dst[0], "dst.base": dst[1], "dst.strides": (4,)}
        return Instruction("move", "load", {**fields, **to})

    product = {"size": (2, 3, 4), "reduce": 4}
    ports = [port("stream", 0, 16, 0, 4), port("stationary", 64, 0, 16, 4), port("out", 256, 12, 4)]
    for part in ports:
        product |= part
    run(
        sim,
        move((8,), ("dram", 0), ("spm", 0)),
        move((12,), ("dram", 64), ("spm", 64)),
        Instruction("mm", "exec", product),
        move((6,), ("spm", 256), ("dram", 512)),
    )
    torch.testing.assert_close(sim.read(512, (2, 3), F32), x @ w.t())


def test_errors_name_offset_and_location() -> None:
    sim = Simulator(RNGD, 256)
    late = replace(store_slices(128, 1), location="")
    program = encoded(RNGD, [control("set", rd=1, imm=4), late, HALT], "tile.copy model.layers.0.mlp")
    with pytest.raises(
        UserError, match=r"dma at 0x10, tile.copy model.layers.0.mlp: dst: bytes 0x80 to 0x17f"
    ):
        sim.run(sim.load(program))


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (tu((2,), port("stream", 2, 4), port("out", 64, 4)), "address 0x2 is no multiple"),
        (tu((2,), port("stream", 0, 6), port("out", 64, 4)), "stride 6 is no multiple"),
        (tu((2,), port("stream", 0, 4, type="i4"), port("out", 64, 4)), "no arithmetic for element type i4"),
        (tu((2,), port("stream", Reg(1 << 19, 1), 4), port("out", 64, 4)), "of dm do not all exist"),
        (dma((65, 2), ("hbm", 0, (8, 4)), ("dm", 0, (WINDOW, 4))), "slices 0 to 64 of dm do not all exist"),
        (dma((2, 2), ("hbm", 0, (8, 4)), ("dm", 1 << 19, (WINDOW, 4))), "of dm do not all exist"),
        (tu((2,), port("stream", 0, 4)), "a pass without out"),
    ],
)
def test_impossible_commands_are_refused(command: Instruction, message: str) -> None:
    sim = Simulator(RNGD, 1 << 12)
    with pytest.raises(UserError, match=message) as caught:
        sim.run(sim.load([command, HALT]))
    assert caught.value.where.startswith(command.command)


def test_wrong_target_and_host_bounds() -> None:
    sim = Simulator(RNGD, 64)
    with pytest.raises(UserError, match="the program is for toy, the simulated machine is rngd"):
        sim.load(Program("toy", b""))
    with pytest.raises(UserError, match="bytes 0x3c to 0x43 of hbm"):
        sim.write(60, torch.zeros(2))


def test_cores_share_the_main_memory_only() -> None:
    sim = Simulator(RNGD, 1 << 12, cores=2)
    sim.write(0, torch.ones(S, 1))
    load = sim.load([load_slices(0, 1), HALT])
    store = sim.load([store_slices(1024, 1), HALT])
    sim.run(load, core=0)
    sim.run(store, core=1)
    assert sim.read(1024, (S,), F32).sum().item() == 0
    sim.run(store, core=0)
    assert sim.read(1024, (S,), F32).sum().item() == S
