"""Runs as straight-line code leave main memory as runs command by command do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from commands_of import HALT, RNGD, TOY, WINDOW, control, dma, port, tu
from npuc.backends.instruction import Instruction, Reg
from npuc.ir.command_spec import Bound
from npuc.ir.errors import UserError
from npuc.runtime.simulator import LoadedProgram, Simulator
from npuc.runtime.simulator.affine import Affine, NotAffine
from npuc.runtime.simulator.dispatched import dispatched
from npuc.runtime.simulator.forwarding import Forwarding, moves
from npuc.runtime.simulator.liveness import live
from npuc.runtime.simulator.straight_line import prepare
from torch import Tensor

S = RNGD.slices
BYTES = 1 << 20
OUT = 1 << 19
MOVED = tu((8,), port("stream", 0, 4), port("out", 0, 4), out__memory="trf")


def load_slices(address: int | Reg, n: int, to: int = 0) -> Instruction:
    """f32 [S, n] in main memory to each slice's dm."""
    return dma((S, n), ("hbm", address, (4 * n, 4)), ("dm", to, (WINDOW, 4)))


def spread(address: int, n: int, to: int = 0) -> Instruction:
    """f32 [n] in main memory to the dm of all slices."""
    return dma((S, n), ("hbm", address, (0, 4)), ("dm", to, (WINDOW, 4)))


def store_slices(address: int | Reg, n: int, frm: int = 0) -> Instruction:
    return dma((S, n), ("dm", frm, (WINDOW, 4)), ("hbm", address, (4 * n, 4)))


def doubled(frm: int, to: int, n: int = 8) -> Instruction:
    return tu((n,), port("stream", frm, 4), port("out", to, 4), chain__op=("add",), chain__source=("stash",))


def after(program: list[Instruction], params: tuple[int, ...], *, straight: bool, runs: int = 1) -> Tensor:
    """Main memory after some runs, random bytes before."""
    simulator = Simulator(RNGD, BYTES)
    simulator.write(0, torch.randn(BYTES // 4, generator=torch.Generator().manual_seed(0)))
    loaded = simulator.load([*program, HALT])
    for _ in range(runs):
        result = simulator.run(loaded, params=params, straight=straight)
        assert result.commands == sum(c.queue != "control" for c in program)
    return simulator.read(0, (BYTES // 4,), torch.float32)


def assert_same(program: list[Instruction], params: tuple[int, ...] = (), runs: int = 2) -> None:
    plain = after(program, params, straight=False, runs=runs)
    assert torch.equal(after(program, params, straight=True, runs=runs).nan_to_num(), plain.nan_to_num())


def prepared(program: list[Instruction], parameters: int = 0) -> Forwarding:
    simulator = Simulator(RNGD, BYTES)
    loaded: LoadedProgram = simulator.load([*program, HALT])
    flow = Forwarding(simulator.cores[0].own)
    for command in dispatched(loaded, "main", parameters, simulator.cores[0].memories):
        flow.add(command)
    return flow


def test_a_product_reads_weights_where_they_were_moved_from() -> None:
    product = tu(
        (2, S, 4),
        port("stream", 4096, 0, 0, 4),
        port("stationary", 0, 16, 0, 4),
        port("out", 8192, 4),
        reduce=0b110,
        ring_dim=2,
    )
    program = [load_slices(0, 8), load_slices(0x8000, 4, 4096), MOVED, product, store_slices(OUT, 2, 8192)]
    flow = prepared(program)
    stationary = flow.commands[3].reads["stationary"]
    assert (stationary.memory.name, stationary.start, stationary.steps[0]) == ("hbm", (0, 0), (0, 32))
    kept = live(flow.commands, Simulator(RNGD, 0).cores[0].own)
    assert [command.number for command in kept] == [4, 5]  # neither copies nor the move are needed
    plain, straight = (after(program, (), straight=way) for way in (False, True))
    torch.testing.assert_close(straight, plain, equal_nan=True)


def test_what_is_the_same_in_all_slices_is_computed_once() -> None:
    program = [spread(0, 8), doubled(0, 64), doubled(64, 128), store_slices(OUT, 8, 128)]
    flow = prepared(program)
    assert [command.uniform for command in flow.commands] == [True, True, True, False]
    assert not flow.commands[1].needed
    assert flow.commands[3].reads["src"].steps[0] == (0, 0)
    assert_same(program)


def test_slices_and_steps_that_nothing_reads_are_not_computed() -> None:
    """Padding: 16 slices and 6 elements of what is spread over all slices are stored."""
    few = dma((16, 6), ("dm", 128, (WINDOW, 4)), ("hbm", OUT, (24, 4)))
    program = [load_slices(0, 8), doubled(0, 64), doubled(64, 128), few]
    kept = live(prepared(program).commands, Simulator(RNGD, 0).cores[0].own)
    assert [command.sizes[:2] for command in kept] == [(16, 6), (16, 6), (16, 6)]
    assert_same(program)


def test_slices_that_take_part_in_a_sum_are_computed() -> None:
    summed = tu((8,), port("stream", 64, 4), port("out", 128, 4), chain__op=("ring_add",))
    one = dma((1, 8), ("dm", 128, (WINDOW, 4)), ("hbm", OUT, (32, 4)))
    program = [load_slices(0, 8), doubled(0, 64), summed, one]
    kept = live(prepared(program).commands, Simulator(RNGD, 0).cores[0].own)
    assert [command.sizes[0] for command in kept] == [S, S, 1]
    assert_same(program)


def test_a_slice_of_its_own_among_equal_ones() -> None:
    """One slice's part is overwritten: the others' must be there."""
    one = dma((8,), ("hbm", 0x1000, (4,)), ("dm", 3 * WINDOW + 64, (4,)))
    program = [spread(0, 8), doubled(0, 64), one, store_slices(OUT, 8, 64)]
    assert prepared(program).commands[1].needed
    assert_same(program)


def test_what_changed_behind_a_move_is_not_read_through_it() -> None:
    program = [load_slices(0, 8), doubled(0, 512), store_slices(0, 8, 512), MOVED]
    read = tu((8,), port("stream", 512, 4), port("stationary", 0, 4), port("out", 1024, 4))
    program += [read, store_slices(OUT, 8, 1024)]
    assert prepared(program).commands[4].reads["stationary"].memory.name == "dm"
    assert_same(program)


def test_parts_and_pieces() -> None:
    """A buffer written in two halves, with a gap, and read whole."""
    half = tu((4,), port("stream", 0, 4), port("out", 64, 8))
    program = [load_slices(0, 16), doubled(0, 64), half, store_slices(OUT, 8, 64)]
    assert_same(program)


@pytest.mark.parametrize("at", [0, 64, 0x4000])
def test_addresses_from_parameters(at: int) -> None:
    """The store may hit what a later command reads through a move: then the program is run as it stands."""
    program = [
        control("param", rd=1, index=0),
        load_slices(0, 8),
        MOVED,
        doubled(0, 512),
        store_slices(Reg(0, 1), 8, 512),
        tu((8,), port("stream", 512, 4), port("stationary", 0, 4), port("out", 1024, 4)),
        store_slices(OUT, 8, 1024),
    ]
    assert prepared(program, 1).relied == {("hbm", 0, S * 32)}
    assert_same(program, (at,))


@pytest.mark.parametrize("limit", [-1, 0, 3, 4, 11, 200, 10_000])
def test_limits_from_parameters(limit: int) -> None:
    masked = tu(
        (3, 4),
        port("stream", 0, 16, 4),
        port("out", 64, 16, 4),
        mask__dim=2,
        mask__slice=4,
        mask__limit=Reg(0, 1),
    )
    copied = dma((4, 2), ("hbm", 0, (8, 4)), ("hbm", OUT + 0x10000, (8, 4)), limit=Reg(0, 1))
    program = [control("param", rd=1, index=0), load_slices(0, 12), masked, copied, store_slices(OUT, 12, 64)]
    assert_same(program, (limit,))


K, Q, P, V = 0x4000, 0x40, 0x60, 0x100  # in dm
CACHE = 1 << 18


def attention(moved: list[Instruction]) -> list[Instruction]:
    """Products with a cache at address r1 of which the first r2 positions count, 4 positions in a slice.

    Args:
        moved: what comes between reading the cache and multiplying.
    """
    kept = {"mask__slice": 4, "mask__limit": Reg(0, 2), "out__memory": "trf"}
    cache = dma((S, 64), ("hbm", Reg(CACHE, 1), (256, 4)), ("dm", K, (WINDOW, 4)))
    keys = tu((4, 16), port("stream", K, 64, 4), port("out", 0, 64, 4), mask__dim=1, **kept)
    values = tu((16, 4), port("stream", K, 4, 64), port("out", 256, 16, 4), mask__dim=2, **kept)
    scores = tu(
        (2, 4, 8), port("stream", Q, 32, 0, 4), port("stationary", 0, 32, 64, 4), port("out", 0x80, 16, 4),
        reduce=0b100,
    )  # fmt: skip
    summed = tu(
        (2, 8, 4), port("stream", P, 16, 0, 4), port("stationary", 256, 128, 16, 4), port("out", V, 32, 4),
        reduce=0b100, chain__op=("ring_add",),
    )  # fmt: skip
    parameters = [control("param", rd=1, index=0), control("param", rd=2, index=1)]
    loads = [spread(0, 16, Q), load_slices(0x2000, 8, P), cache]
    stores = [store_slices(OUT, 8, 0x80), store_slices(OUT + 0x8000, 16, V)]
    return [*parameters, *loads, *moved, keys, values, scores, summed, *stores]


def close(program: list[Instruction], params: tuple[int, ...]) -> None:
    plain, straight = (after(program, params, straight=way) for way in (False, True))
    torch.testing.assert_close(straight, plain, rtol=1e-4, atol=1e-4, equal_nan=True)


@pytest.mark.parametrize("limit", [-3, 0, 1, 4, 30, 255, 256, 10_000])
def test_masked_positions_are_not_multiplied(limit: int) -> None:
    flow = prepared(attention([]), 2)
    kept = live(flow.commands, Simulator(RNGD, 0).cores[0].own)
    products = [command for command in kept if command.within is not None]
    assert [command.reads["stationary"].memory.name for command in products] == ["hbm", "hbm"]
    assert [command.within for command in products] == [Bound(1, 4), Bound(2, 4)]
    assert {command.number for command in kept}.isdisjoint({3, 4, 5})  # no copy and no masked moves
    close(attention([]), (0x400, limit))


def test_values_that_are_not_finite_meet_the_masked_zeros() -> None:
    """0 · infinity is NaN: masked positions of a score and a sum show it."""
    program = attention([])
    simulators = [Simulator(RNGD, BYTES) for _ in range(2)]
    found: list[Tensor] = []
    for simulator, way in zip(simulators, (False, True), strict=True):
        data = torch.ones(BYTES // 4)
        data[3] = float("inf")  # of the first head's query
        data[0x2000 // 4 + 8 * 20] = float("nan")  # of the first head's weights, in a slice behind the limit
        simulator.write(0, data)
        simulator.run(simulator.load([*program, HALT]), params=(0, 30), straight=way)
        found.append(simulator.read(OUT, (BYTES // 8,), torch.float32))
    assert found[0].isnan().any()
    assert torch.equal(found[0].nan_to_num(), found[1].nan_to_num())
    assert torch.equal(found[0].isnan(), found[1].isnan())


@pytest.mark.parametrize(("position", "ready"), [(0, True), (0x10000, False), (0x20000, True)])
def test_a_cache_that_is_written_before_it_is_multiplied(position: int, ready: bool) -> None:
    """The product must see what the copy saw."""
    moved = [control("param", rd=3, index=2), store_slices(Reg(CACHE - 0x10000, 3), 8, P)]
    simulator = Simulator(RNGD, BYTES)
    loaded = simulator.load([*attention(moved), HALT])
    core = simulator.cores[0]
    code = prepare(loaded, "main", 3, core.memories, core.own)
    assert code is not None
    assert code.ready((0x400, 30, position)) == ready
    close(attention(moved), (0x400, 30, position))


def test_a_cache_that_leaves_the_memory() -> None:
    simulator = Simulator(RNGD, BYTES)
    loaded = simulator.load([*attention([]), HALT])
    with pytest.raises(UserError, match="do not all exist"):
        simulator.run(loaded, params=(BYTES - CACHE - 1024, 4), straight=True)


def test_a_local_read_at_an_address_from_parameters() -> None:
    """What a move read in a scratchpad, at a row that only a run knows, is overwritten before it is used."""

    def copied(src: tuple[str, int], dst: tuple[str, int]) -> Instruction:
        fields: dict[str, Any] = {"size": (8,), "type": "f32"}
        for name, (memory, base) in (("src", src), ("dst", dst)):
            fields |= {f"{name}.memory": memory, f"{name}.base": base, f"{name}.strides": (4,)}
        return Instruction("move", "load", fields)

    row = {"stream.base": Reg(0, 1), "stream.strides": (4,), "stream.type": "f32"}
    moved: dict[str, Any] = {"size": (8,), **row, "out.base": 512, "out.strides": (4,), "out.type": "f32"}
    program = [
        control("param", rd=1, index=0),
        *(copied(("dram", 32 * i), ("spm", 32 * i)) for i in range(3)),
        Instruction("vec", "exec", moved),
        copied(("dram", 512), ("spm", 64)),
        copied(("spm", 512), ("dram", 4096)),
    ]
    found: list[Tensor] = []
    for way in (False, True):
        simulator = Simulator(TOY, 8192)
        simulator.write(0, torch.arange(2048.0))
        simulator.run(simulator.load([*program, HALT]), params=(64,), straight=way)
        found.append(simulator.read(4096, (8,), torch.float32))
    assert torch.equal(*found)
    assert found[0][0] == 16


def test_loops_walk_over_addresses() -> None:
    body = [load_slices(Reg(0, 2), 8), doubled(0, 64), store_slices(Reg(OUT, 2), 8, 64)]
    loop = [control("loop", rd=1, count=5), control("mul", rd=2, rs=1, imm=2048), *body, control("end")]
    plain, straight = Simulator(RNGD, BYTES), Simulator(RNGD, BYTES)
    for simulator, way in ((plain, False), (straight, True)):
        simulator.write(0, torch.arange(5 * S * 8.0))
        assert simulator.run(simulator.load([*loop, HALT]), straight=way).commands == 15
    assert torch.equal(plain.main.storage, straight.main.storage)


def test_errors_name_the_command() -> None:
    simulator = Simulator(RNGD, 4096)
    simulator.write(0, torch.tensor([999], dtype=torch.int32))
    gather = dma(
        (1, 4), ("hbm", 64, (0, 4)), ("hbm", 128, (16, 4)),
        index__base=0, index__dim=1, index__scale=16, location="model.embed_tokens",
    )  # fmt: skip
    with pytest.raises(UserError, match="index 999") as raised:
        simulator.run(simulator.load([gather, HALT]), straight=True)
    assert "model.embed_tokens" in (raised.value.where or "")


def test_affine_values() -> None:
    a, b = Affine.parameter(0), Affine.parameter(2)
    value = (a * 3 + b) + 5
    assert isinstance(value, Affine)
    assert value.at([2, 100, 7]) == 18
    assert a * 2 + a * -2 == 0
    with pytest.raises(NotAffine):
        range(10)[a]


def test_moves() -> None:
    commands = prepared([load_slices(0, 8), MOVED, doubled(0, 64)]).commands
    assert [moves(command) for command in commands] == [True, True, False]
