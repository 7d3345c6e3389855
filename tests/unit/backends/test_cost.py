"""Costs against the worked examples and measurements that the public RNGD pages give."""

from __future__ import annotations

import pytest
from npuc.backends.instruction import FieldValue, Instruction, Reg
from npuc.backends.machine import Machine

# Fields that make a plain bf16 stream of N flits; the pictures are read to about 8 cycles.
PICTURE = 8


def stream(size: tuple[int, ...], strides: tuple[int, ...], type_: str = "bf16") -> dict[str, FieldValue]:
    return {"size": size, "stream.strides": strides, "stream.type": type_}


def move(elements: int, memory: str, queue: str) -> Instruction:
    fields = stream((elements,), (2,)) | {"out.memory": memory, "out.strides": (2,), "out.type": "bf16"}
    return Instruction("tu", queue, fields)


def matmul(rows: int, k_outer: int, groups: int, lanes: int, k: int, type_: str, width: int) -> Instruction:
    """x[rows, K] · w[groups · lanes, K]ᵀ with K = k_outer · k, column groups inside the outer reduction."""
    length = k_outer * k * width
    return Instruction("tu", "main", {
        "size": (rows, k_outer, groups, lanes, k), "reduce": 0b10010,
        "stream.strides": (length, k * width, 0, 0, width), "stream.type": type_,
        "stationary.strides": (0, k * width, lanes * length, length, width), "stationary.type": type_,
        "out.strides": (groups * lanes * 4, 0, lanes * 4, 4, 0), "out.type": "f32",
    })  # fmt: skip


@pytest.mark.parametrize("flits", [16, 50])
def test_contraction_takes_264_cycles_and_its_flits(rngd: Machine, flits: int) -> None:
    # One output lane: every flit of the stream is multiplied once.
    cost = rngd.cost(matmul(flits, 1, 1, 1, 16, "bf16", 2))
    assert cost.stages["fetch"] == cost.stages["contract"] == flits
    assert cost.cycles == pytest.approx(264 + flits, abs=PICTURE)


@pytest.mark.parametrize(("size", "measured"), [(512, 325), (1600, 460)])
def test_store_to_trf_takes_260_cycles_and_8_bytes_a_cycle(rngd: Machine, size: int, measured: int) -> None:
    cost = rngd.cost(move(size // 2, "trf", "sub"))
    assert cost.cycles == pytest.approx(measured, abs=PICTURE)
    assert cost.dram_bytes == 0


@pytest.mark.parametrize(("flits", "measured"), [(1, 264 + 64 * 3), (16, 264 + 64 * 18)])
def test_switch_takes_the_ring_times_its_flits(rngd: Machine, flits: int, measured: int) -> None:
    fields = stream((64, flits, 16), (0, 32, 2)) | {
        "ring_dim": 1,
        "out.strides": (flits * 32, 32, 2),
        "out.type": "bf16",
    }
    cost = rngd.cost(Instruction("tu", "main", fields))
    assert cost.stages["fetch"] == flits, "a slice fetches its own part only"
    assert cost.cycles == pytest.approx(measured, abs=PICTURE)


def test_worked_matmul_keeps_every_multiplier_busy(rngd: Machine) -> None:
    # 32×32 outputs, K = 64, four column groups held still by the stream adapter.
    cost = rngd.cost(matmul(32, 2, 4, 8, 32, "bf16", 2))
    assert cost.stages["fetch"] == 128
    assert cost.stages["contract"] == 256
    assert cost.cycles == pytest.approx(535, abs=16)


def test_refetching_for_each_column_group_costs_four_times_the_stream(rngd: Machine) -> None:
    assert rngd.cost(matmul(32, 1, 4, 8, 64, "bf16", 2)).stages["fetch"] == 4 * 128


@pytest.mark.parametrize(
    ("type_", "width", "k", "macs"), [("i8", 1, 64, 512), ("bf16", 2, 32, 256), ("f32", 4, 16, 64)]
)
def test_contraction_rate_of_each_type(rngd: Machine, type_: str, width: int, k: int, macs: int) -> None:
    cost = rngd.cost(matmul(16, 2, 4, 8, k, type_, width))
    assert cost.stages["contract"] == 16 * 2 * 4 * 8 * k // macs


def test_idle_lanes_and_short_runs_waste_multipliers(rngd: Machine) -> None:
    full = rngd.cost(matmul(16, 4, 1, 8, 32, "bf16", 2)).stages["contract"]
    assert rngd.cost(matmul(16, 4, 1, 1, 32, "bf16", 2)).stages["contract"] == full, (
        "1 lane takes as long as 8"
    )
    scattered = matmul(16, 4, 1, 8, 32, "bf16", 2)
    scattered.fields["stream.strides"] = (256, 64, 0, 0, 4)
    assert rngd.cost(scattered).stages["contract"] == 16 * full, "a flit for each element"


def cut_matmul(type_: str, width: int, rows: int, together: int, columns: int, k: int) -> Instruction:
    """x[rows, 64 · k] · w[columns, 64 · k]ᵀ; x is cut over the slices, so many rows are inside the ring."""
    return Instruction("tu", "main", {
        "size": (rows // together, 64, together, columns, k), "reduce": 0b10010, "ring_dim": 2,
        "stream.strides": (together * k * width, 0, k * width, 0, width), "stream.type": type_,
        "stationary.strides": (0, k * width, 0, 64 * k * width, width), "stationary.type": type_,
        "out.strides": (together * columns * 4, 0, columns * 4, 4, 0), "out.type": "f32",
    })  # fmt: skip


# k, rows inside the ring; packets of 64 bytes that 512 rows make a column, flits that a slice sends: by hand.
SHORT_RUNS = [
    ("f8e4m3", 1, 16, 1, 512 * 32, 512),  # one row's 16 bytes make a padded flit
    ("f8e4m3", 1, 16, 2, 256 * 64, 256),  # two rows: a flit, half a packet
    ("f8e4m3", 1, 16, 4, 128 * 64, 256),  # four: full
    ("f8e4m3", 1, 16, 32, 16 * 64 * 8, 256),  # eight full packets of a slice's 32 rows
    ("f8e4m3", 1, 1, 32, 16 * 64, 16),  # 32 rows of one byte: no packet has more than 32 sums
    ("f8e4m3", 1, 12, 4, 512 * 32, 512),  # 12 bytes are no power of two, so that rows share nothing
    ("f8e4m3", 1, 48, 4, 512 * 64, 1024),
    ("bf16", 2, 16, 1, 512 * 32, 512),  # a flit each from two neighbours on the ring
    ("bf16", 2, 8, 4, 128 * 64, 256),
    ("bf16", 2, 32, 1, 512 * 64, 1024),
]


@pytest.mark.parametrize(("type_", "width", "k", "together", "packets", "flits"), SHORT_RUNS)
def test_rows_share_packets(
    rngd: Machine, type_: str, width: int, k: int, together: int, packets: int, flits: int
) -> None:
    cost = rngd.cost(cut_matmul(type_, width, 512, together, 32, k))
    assert cost.stages["contract"] == 4 * packets, "32 columns are 4 groups of the 8 lanes"
    assert cost.stages["switch"] == 64 * (flits + 2)
    assert cost.stages["commit"] == 512 * 32 * 4 // 32


def test_results_leave_the_lanes_eight_a_cycle(rngd: Machine) -> None:
    # 512 rows by 8 columns of one 16-byte product each: 128 packets, but 512 flits of results.
    fields = cut_matmul("f8e4m3", 1, 512, 1, 8, 16).fields | {"ring_dim": 0}
    assert (
        rngd.cost(Instruction("tu", "main", fields | {"size": (512, 1, 1, 8, 16)})).stages["contract"] == 512
    )


def test_rows_inside_the_ring_need_accumulators(rngd: Machine) -> None:
    fits, too_many = (cut_matmul("f8e4m3", 1, 512, rows, 32, 16) for rows in (32, 64))
    assert rngd.check(fits) == []
    assert "accumulators = 2048" in rngd.check(too_many)[0]


def test_rows_apart_share_no_packet(rngd: Machine) -> None:
    together = cut_matmul("f8e4m3", 1, 512, 4, 32, 16)
    apart = together.fields | {"stream.strides": (128, 0, 32, 0, 1)}
    assert rngd.cost(Instruction("tu", "main", apart)).stages["contract"] == 4 * 512 * 32


def test_float_steps_run_at_half_width(rngd: Machine) -> None:
    fields = stream((1024,), (4,), "f32") | {"out.strides": (4,), "out.type": "f32", "chain.source": ("imm",)}
    clip = rngd.cost(Instruction("tu", "main", {**fields, "chain.op": ("max",)}))
    multiply = rngd.cost(Instruction("tu", "main", {**fields, "chain.op": ("mul",)}))
    assert clip.stages["vector"] == 128
    assert multiply.stages["vector"] == 256


def test_sub_context_moves_8_bytes_a_cycle(rngd: Machine) -> None:
    assert rngd.cost(move(1024, "dm", "main")).stages["commit"] == 64
    assert rngd.cost(move(1024, "dm", "sub")).stages["commit"] == 256


# The cast to f32 puts out 32 bytes a cycle: 8 elements, however narrow they were.
@pytest.mark.parametrize(("type_", "width"), [("f8e4m3", 1), ("bf16", 2), ("f32", 4)])
@pytest.mark.parametrize(("queue", "access"), [("main", 32), ("sub", 8)])
def test_vector_passes_fetch_8_elements_a_cycle(
    rngd: Machine, type_: str, width: int, queue: str, access: int
) -> None:
    plain = stream((1024,), (width,), type_) | {"out.strides": (width,), "out.type": type_}
    clipped = plain | {"chain.op": ("max",), "chain.source": ("imm",)}
    added = clipped | {"operand.strides": (width,), "operand.type": type_, "chain.source": ("operand",)}
    moved, one, two = (
        rngd.cost(Instruction("tu", queue, f)).stages["fetch"] for f in (plain, clipped, added)
    )
    assert moved == 1024 * width // access, "what is moved is not cast"
    assert one == 1024 * width // min(access, 8 * width)
    assert two == 2 * one, "the operand is fetched in between"


def copy(
    size: tuple[int, ...], src: str, src_strides: tuple[int, ...], dst: str, dst_strides: tuple[int, ...]
) -> Instruction:
    return Instruction("dma", "dma", {
        "size": size, "type": "i8",
        "src.memory": src, "src.strides": src_strides, "dst.memory": dst, "dst.strides": dst_strides,
    })  # fmt: skip


def test_dma_examples(rngd: Machine) -> None:
    # 64 requests from HBM to HBM: 628 cycles; 16 MB from HBM to DM by one engine: 66,036; DM to DM: 131,572.
    assert rngd.cost(copy((64, 256), "hbm", (512, 1), "hbm", (512, 1))).cycles == 628
    spread = (64, 1024, 256), (4 << 20, 256, 1)
    assert rngd.cost(copy(spread[0], "hbm", (1 << 18, 256, 1), "dm", spread[1])).cycles == 66_036
    assert rngd.cost(copy(spread[0], "dm", spread[1], "dm", spread[1])).cycles == pytest.approx(
        131_572, abs=1
    )


def test_partial_writes_to_hbm_are_slow(rngd: Machine) -> None:
    # 16 scattered bf16: 3,575 cycles measured.
    cost = rngd.cost(copy((16, 2), "dm", (8, 1), "hbm", (4096, 1)))
    assert cost.cycles == pytest.approx(3575, rel=0.05)


def test_dram_bytes_are_whole_bursts(rngd: Machine) -> None:
    assert rngd.cost(copy((16, 256), "hbm", (512, 1), "dm", (256, 1))).dram_bytes == 16 * 256
    assert rngd.cost(copy((16, 8), "hbm", (4096, 1), "dm", (8, 1))).dram_bytes == 16 * 64
    assert rngd.cost(copy((16, 256), "hbm", (512, 1), "hbm", (256, 1))).dram_bytes == 2 * 16 * 256
    assert rngd.cost(copy((16, 256), "dm", (512, 1), "dm", (256, 1))).dram_bytes == 0


def test_constant_limit_clips_the_first_dimension(rngd: Machine) -> None:
    whole = copy((16, 256), "hbm", (512, 1), "dm", (256, 1))
    half = Instruction("dma", "dma", whole.fields | {"limit": 8})
    none = Instruction("dma", "dma", whole.fields | {"limit": 0})
    runtime = Instruction("dma", "dma", whole.fields | {"limit": Reg(0, 5)})
    assert [rngd.cost(c).cycles for c in (whole, half, none, runtime)] == [516, 508, 500, 516]


def test_gathered_rows_are_separate_runs(rngd: Machine) -> None:
    rows = copy((32, 64), "hbm", (64, 1), "dm", (64, 1))
    gather = Instruction("dma", "dma", rows.fields | {"index.dim": 1, "index.scale": 64})
    assert rngd.cost(rows).stages["read"] == 8, "one run of 2048 bytes"
    assert rngd.cost(gather).stages["read"] == 32
    assert rngd.cost(gather).dram_bytes == 32 * 64 + 32 * 4, "rows and index list"


def test_toy_costs(toy: Machine) -> None:
    product = Instruction("mm", "exec", {
        "size": (4, 8, 16), "reduce": 0b100, "stream.type": "f32", "stream.strides": (64, 0, 4),
        "stationary.type": "f32", "stationary.strides": (0, 64, 4), "out.type": "f32", "out.strides": (32, 4),
    })  # fmt: skip
    assert toy.check(product) == []
    cost = toy.cost(product)
    assert cost.stages == {"fetch": (256 + 512) // 32, "contract": 512 // 16, "store": 128 // 32}
    assert cost.cycles == 10 + 32
    assert toy.cost(Instruction("halt", "control")).cycles == 0
