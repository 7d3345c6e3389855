"""Passes and copies against plain Python loops over random nests, strides and types."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from naive_commands import NaivePass, naive_copy
from npuc.backends.model import CHAIN_OPS as DECLARED_OPS
from npuc.ir.chain import CHAIN_OPS
from npuc.ir.commands import (
    At,
    Bound,
    CopySpec,
    PassSpec,
    Port,
    Step,
    compile_pass,
    run_copy,
    run_pass,
    torch_type,
)
from npuc.ir.errors import UserError

F32, BF16, I32, I8, F8 = (torch_type(name) for name in ("f32", "bf16", "i32", "i8", "f8e4m3"))
QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def layout(
    draw: st.DrawFn, sizes: list[int], varies: list[bool], *, signed: bool = True
) -> tuple[list[int], int, int]:
    """Strides without two indices at one place, elements needed and offset of index 0."""
    strides, gap = [0] * len(sizes), draw(st.integers(1, 2))
    for axis in draw(st.permutations(range(len(sizes)))):
        if varies[axis]:
            strides[axis] = gap
            gap = gap * sizes[axis] + draw(st.integers(0, 2))
    offset = draw(st.integers(0, 3))
    for axis, size in enumerate(sizes):
        if axis > 0 and draw(st.integers(0, 5)) == 0:
            offset += strides[axis] * (size - 1)
            strides[axis] = -strides[axis]
    return strides, gap + offset + 4, offset


class Drawn:
    """A random pass: spec, flat memories and offsets."""

    def __init__(self, draw: st.DrawFn, *, contracts: bool):
        self.draw = draw
        nest = draw(st.integers(1, 4))
        self.size = [draw(st.integers(1, 4)) for _ in range(nest)]
        self.slices = draw(st.integers(1, 4))
        self.ring = draw(st.sampled_from([None, *range(nest)]))
        if self.ring is not None:
            self.size[self.ring] = self.slices
        self.reduce = frozenset(d for d in range(nest) if draw(st.booleans()))
        self.flats: dict[str, torch.Tensor] = {}
        self.offsets: dict[str, int] = {}
        types = [F32, BF16, I32, I8, F8]
        ports = {"stream": self.port("stream", draw(st.sampled_from(types)), draw(self.flags()))}
        if contracts:
            ports["stationary"] = self.port("stationary", draw(st.sampled_from(types)), draw(self.flags()))
        for name in ("operand", "vrf"):
            kept = [v and d - 1 not in self.reduce for d, v in enumerate(draw(self.flags()))]
            ports[name] = self.port(name, draw(st.sampled_from(types)), kept)
        kept = [d - 1 not in self.reduce for d in range(nest + 1)]
        ports["out"] = self.port("out", draw(st.sampled_from([F32, F32, BF16, I32])), kept)
        self.spec = PassSpec(
            size=tuple(self.size),
            slices=self.slices,
            reduce=self.reduce,
            ring_dim=self.ring,
            chain=self.chain(contracts),
            mask=draw(st.none() | self.bounds()),
            within=draw(st.none() | self.bounds()) if contracts else None,
            limit=None if contracts or not self.reduce else draw(st.none() | self.bounds()),
            **ports,
        )

    def flags(self) -> st.SearchStrategy[list[bool]]:
        n = len(self.size) + 1
        return st.lists(st.booleans(), min_size=n, max_size=n)

    def bounds(self) -> st.SearchStrategy[Bound]:
        return st.builds(Bound, st.integers(0, len(self.size) - 1), st.integers(0, 3))

    def port(self, name: str, dtype: torch.dtype, varies: list[bool]) -> Port:
        strides, elements, offset = layout(self.draw, [self.slices, *self.size], varies)
        if name == "stream" and self.ring is not None:  # both its strides along the ring count
            elements += abs(strides[0]) * self.slices
        values = torch.arange(elements) % 9 - 4  # exact in every type, sums in any order
        self.flats[name] = values[torch.randperm(elements, generator=torch.manual_seed(elements))].to(dtype)
        self.offsets[name] = offset
        return Port(dtype, tuple(strides))

    def chain(self, contracts: bool) -> tuple[Step, ...]:
        ops = ("add", "sub", "rsub", "mul", "max", "min", "eq", "lt", "ge", "and", "or", "select")
        source = st.sampled_from(
            ["imm", "operand", "vrf"] if self.reduce else ["imm", "operand", "vrf", "stash"]
        )
        steps = st.builds(Step, st.sampled_from(ops), source, st.integers(-3, 3).map(float))
        chain = list(self.draw(st.lists(steps, max_size=3)))
        if self.draw(st.booleans()):
            chain.append(Step("abs"))
        if self.reduce and not contracts:
            kind = self.draw(st.sampled_from(["reduce_add", "reduce_max", "reduce_min"]))
            chain.insert(self.draw(st.integers(0, len(chain))), Step(kind))
        if self.draw(st.integers(0, 3)) == 0:
            ring = self.draw(st.sampled_from(["ring_add", "ring_max", "ring_min"]))
            groups = [n for n in range(1, self.slices + 1) if self.slices % n == 0]
            size = self.draw(st.none() | st.sampled_from(groups))
            chain.append(Step(ring) if size is None else Step(ring, "imm", size))
        return tuple(chain)

    def check(self, mask_limit: int, limit: int) -> None:
        lists = {
            name: (flat.to(torch.float32).tolist(), self.offsets[name]) for name, flat in self.flats.items()
        }
        expected = self.flats["out"].clone()
        with np.errstate(invalid="ignore"):
            results = NaivePass(self.spec, lists, mask_limit, limit).run()
        for place, value in results.items():
            expected[place] = saturated(float(value), expected.dtype)
        run_pass(self.spec, {n: At(f, self.offsets[n]) for n, f in self.flats.items()}, mask_limit, limit)
        torch.testing.assert_close(self.flats["out"], expected, rtol=0, atol=0, equal_nan=True)


def saturated(value: float, dtype: torch.dtype) -> float:
    if dtype.is_floating_point:
        return value
    return 0 if math.isnan(value) else max(-(2**31), min(value, 2**31 - 1))


@st.composite
def drawn_passes(draw: st.DrawFn, *, contracts: bool) -> Drawn:
    return Drawn(draw, contracts=contracts)


@QUICK
@given(drawn_passes(contracts=False), st.integers(-1, 8), st.integers(-1, 8))
def test_passes_without_contraction_equal_the_loop_nest(drawn: Drawn, mask_limit: int, limit: int) -> None:
    drawn.check(mask_limit, limit)


@QUICK
@given(drawn_passes(contracts=True), st.integers(-1, 8))
def test_contractions_equal_the_loop_nest(drawn: Drawn, mask_limit: int) -> None:
    drawn.check(mask_limit, 0)


@pytest.mark.parametrize("dtype", [F8, BF16])
def test_rows_inside_the_ring_give_what_rows_outside_give(dtype: torch.dtype) -> None:
    slices, rows, columns, k, together = 4, 8, 3, 5, 2
    x = ((torch.arange(slices * rows * k) % 9) - 4).view(slices, rows, k)
    w = ((torch.arange(slices * columns * slices * k) % 7) - 3).view(slices, columns, slices, k)
    expected = torch.einsum("trk,sctk->src", x, w).float()

    def run(*loops: tuple[int, int, int, int], ring: int, reduce: set[int]) -> torch.Tensor:
        size, *strides = zip(*loops, strict=True)
        own = rows * k, columns * slices * k, rows * columns  # of a slice, in each operand
        ports = [Port(t, (n, *s)) for t, n, s in zip((dtype, dtype, F32), own, strides, strict=True)]
        spec = PassSpec(size, ports[2], slices, frozenset(reduce), ports[0], ports[1], ring_dim=ring)
        out = torch.zeros(expected.numel())
        run_pass(spec, {"stream": At(x.to(dtype).flatten(), 0), "stationary": At(w.to(dtype).flatten(), 0),
                        "out": At(out, 0)})  # fmt: skip
        return out.view_as(expected)

    inner = (k, 1, 1, 0)
    column, turn = (columns, 0, slices * k, 1), (slices, 0, k, 0)
    outside = run((rows, k, 0, columns), column, turn, inner, ring=2, reduce={2, 3})
    blocks, block = (rows // together, together * k, 0, together * columns), (together, k, 0, columns)
    inside = run(blocks, turn, block, column, inner, ring=1, reduce={1, 4})
    assert torch.equal(outside, expected)
    assert torch.equal(inside, expected)


@st.composite
def drawn_copies(draw: st.DrawFn) -> tuple[CopySpec, list[int], list[int], int]:
    nest = draw(st.integers(1, 4))
    size = [draw(st.integers(1, 4)) for _ in range(nest)]
    reads, read_elements, read_at = layout(draw, size, [draw(st.booleans()) for _ in size])
    writes, write_elements, write_at = layout(draw, size, [True] * nest)
    dim = draw(st.sampled_from([None, *range(nest)]))
    scale = draw(st.integers(1, 3))
    item = draw(st.sampled_from([1, 2, 4]))
    spec = CopySpec(tuple(size), item, tuple(reads), tuple(writes), dim, scale if dim is not None else 0)
    return spec, [read_elements + 12, read_at], [write_elements, write_at], draw(st.integers(-1, 5))


@QUICK
@given(drawn_copies(), st.booleans())
def test_copies_equal_the_loop_nest(drawn: tuple[CopySpec, list[int], list[int], int], limited: bool) -> None:
    spec, (read_elements, read_at), (write_elements, write_at), limit = drawn
    dtype = {1: torch.uint8, 2: torch.bfloat16, 4: torch.float32}[spec.item]
    src = (torch.arange(read_elements) % 100).to(dtype)
    dst = torch.zeros(write_elements, dtype=dtype)
    rows = (
        None if spec.index_dim is None else torch.arange(spec.size[spec.index_dim], dtype=torch.int32) * 2 % 3
    )
    expected = dst.tolist()
    clip = limit if limited else None
    naive_copy(spec, src.tolist(), read_at, expected, write_at, rows, clip)
    run_copy(spec, At(src, read_at), At(dst, write_at), rows, clip)
    assert dst.tolist() == expected


@pytest.mark.parametrize("op", ["exp", "sqrt", "tanh", "sigmoid", "erf", "log", "sin", "cos", "abs", "floor"])
def test_each_unary_step(op: str) -> None:
    x = torch.tensor([0.25, 1.0, 2.5, 7.75])
    out = torch.zeros(4)
    spec = PassSpec((4,), Port(F32, (0, 1)), stream=Port(F32, (0, 1)), chain=(Step(op),))
    run_pass(spec, {"stream": At(x, 0), "out": At(out, 0)})
    loops = NaivePass(spec, {"stream": (x.tolist(), 0), "out": ([], 0)}, 0, 0).run()
    torch.testing.assert_close(out.tolist(), [float(loops[i]) for i in range(4)])


@pytest.mark.parametrize("n", [4, 4096])
def test_exp_has_no_subnormal_results(n: int) -> None:
    x = torch.tensor([-86.9, -100.0, -math.inf, math.nan]).repeat(n // 4)
    out = torch.zeros(n)
    port = Port(F32, (0, 1))
    run_pass(PassSpec((n,), port, stream=port, chain=(Step("exp"),)), {"stream": At(x, 0), "out": At(out, 0)})
    expected = torch.exp(torch.tensor([-86.9, -1e9, -1e9, math.nan])).repeat(n // 4)
    torch.testing.assert_close(out, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("op", "expected"), [("div", [2.0, -1.0]), ("rdiv", [0.5, -1.0]), ("ne", [1.0, 1.0])]
)
def test_division_and_inequality(op: str, expected: list[float]) -> None:
    out = torch.zeros(2)
    port = Port(F32, (0, 1))
    spec = PassSpec((2,), port, stream=port, operand=port, chain=(Step(op, "operand"),))
    operands = {"stream": At(torch.tensor([4.0, 3.0]), 0), "operand": At(torch.tensor([2.0, -3.0]), 0)}
    run_pass(spec, {**operands, "out": At(out, 0)})
    assert out.tolist() == expected


def test_masked_nan_does_not_leak() -> None:
    """A masked element is 0 in the sum, whatever was there; a limited one takes no part."""
    x = torch.tensor([1.0, 2.0, math.nan, math.inf])
    w, out = torch.ones(4), torch.zeros(1)
    port = Port(F32, (0, 1))
    total = PassSpec((4,), Port(F32, (0, 0)), reduce=frozenset({0}), stream=port)
    spec = replace(total, stationary=port, mask=Bound(0))
    run_pass(spec, {"stream": At(x, 0), "stationary": At(w, 0), "out": At(out, 0)}, mask_limit=2)
    assert out.item() == 3.0
    spec = replace(total, chain=(Step("reduce_max"),), limit=Bound(0))
    run_pass(spec, {"stream": At(x, 0), "out": At(out, 0)}, limit=2)
    assert out.item() == 2.0


def test_casts_round_to_even_and_saturate() -> None:
    x = torch.tensor([0.5, 1.5, -2.5, 3e9, -math.inf, math.nan])
    out = torch.zeros(6, dtype=I32)
    spec = PassSpec((6,), Port(I32, (0, 1)), stream=Port(F32, (0, 1)))
    run_pass(spec, {"stream": At(x, 0), "out": At(out, 0)})
    assert out.tolist() == [0, 2, -2, 2**31 - 1, -(2**31), 0]


def test_fp8_products_are_exact() -> None:
    """448 · 448 and 2⁻⁹ · 2⁻⁹ need more bits than the operands have."""
    x = torch.tensor([448.0, 2.0**-9]).to(F8)
    out = torch.zeros(2)
    port = Port(F8, (0, 1))
    spec = PassSpec((2,), Port(F32, (0, 1)), stream=port, stationary=port)
    run_pass(spec, {"stream": At(x, 0), "stationary": At(x, 0), "out": At(out, 0)})
    assert out.tolist() == [448.0**2, 2.0**-18]


def test_fill_writes_its_value() -> None:
    out = torch.zeros(6)
    spec = PassSpec((2, 2), Port(F32, (0, 3, 1)), fill=2.5)
    run_pass(spec, {"out": At(out, 0)})
    assert out.tolist() == [2.5, 2.5, 0, 2.5, 2.5, 0]


def test_overlapping_move_reads_everything_first() -> None:
    x = torch.arange(6.0)
    port = Port(F32, (0, 1))
    run_pass(PassSpec((5,), port, stream=port), {"stream": At(x, 0), "out": At(x, 1)})
    assert x.tolist() == [0, 0, 1, 2, 3, 4]
    run_copy(CopySpec((5,), 4, (1,), (1,)), At(x, 1), At(x, 0))
    assert x.tolist() == [0, 1, 2, 3, 4, 4]


def test_a_bound_pass_sees_new_data() -> None:
    """Binding keeps views, never values: also where the operand has to be gathered."""
    x, w, out = torch.ones(2), torch.ones(3 * 10), torch.zeros(6)
    spec = PassSpec(
        (2, 2),
        Port(F32, (2, 1, 0)),
        slices=3,
        reduce=frozenset({1}),
        stream=Port(F32, (0, 0, 1)),
        stationary=Port(F32, (10, 4, 1)),
    )
    run = compile_pass(spec).bind({"stream": At(x, 0), "stationary": At(w, 0), "out": At(out, 0)})
    run()
    w.mul_(2)
    x.mul_(3)
    run()
    assert out.tolist() == [12.0] * 6


PORT = Port(F32, (0, 1))
SUM = PassSpec((4,), Port(F32, (0, 0)), reduce=frozenset({0}), stream=PORT, chain=(Step("reduce_add"),))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(SUM, chain=()), "neither a contraction nor a reduce step"),
        (replace(SUM, out=PORT), "stored with a stride along dimension 0"),
        (replace(SUM, chain=(Step("reduce_add"), Step("reduce_max"))), "another reduce step"),
        (replace(SUM, chain=(Step("reduce_add"), Step("mul", "stash"))), "the stash varies"),
        (replace(SUM, reduce=frozenset(), chain=()), "several elements go to one address"),
        (replace(SUM, chain=(Step("mul", "operand"),)), "operand is not there"),
        (replace(SUM, chain=(Step("exp", "imm"),)), "takes no source"),
        (replace(SUM, chain=(Step("frobnicate", "imm"),)), "unknown step frobnicate"),
        (replace(SUM, size=()), "1 to 8 extents"),
        (replace(SUM, reduce=frozenset({2})), "do not all lie in the nest"),
        (replace(SUM, ring_dim=0), "ring walks over 4 slices of 1"),
        (replace(SUM, stream=None, stationary=PORT), "needs a stream"),
        (replace(SUM, stream=Port(F32, (0, 1, 1))), "2 strides, the nest 1 extents"),
    ],
)
def test_meaningless_passes_are_refused(spec: PassSpec, message: str) -> None:
    with pytest.raises(UserError, match=message):
        compile_pass(spec)


def test_copy_index_outside_the_table_is_refused() -> None:
    spec = CopySpec((1, 2), 4, (0, 1), (0, 1), 0, 2)
    with pytest.raises(UserError, match="index 3 lies outside the 3 rows"):
        run_copy(spec, At(torch.zeros(6), 0), At(torch.zeros(2), 0), torch.tensor([3], dtype=I32))


def test_every_declared_step_is_implemented() -> None:
    assert sorted(CHAIN_OPS) == sorted(DECLARED_OPS)


def test_unknown_types_are_refused() -> None:
    with pytest.raises(UserError, match="no arithmetic for element type f7"):
        torch_type("f7")
