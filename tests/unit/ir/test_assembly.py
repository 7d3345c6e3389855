"""Custom assembly loses nothing: print → parse → print is identical, over examples and random operations."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from npuc.backends.instruction import FieldValue, Instruction, Reg, SemaphoreUse
from npuc.ir import chain, tile
from npuc.ir.assembly import float_text
from npuc.ir.npu import CommandOp
from npuc.ir.parsing import IRParser
from npuc.ir.printing import print_ir
from npuc.ir.tile_spec import BINARY_STEPS, COPY_PORTS, PASS_PORTS, REDUCE_STEPS, RING_STEPS, UNARY_STEPS
from npuc.ir.universe import DIALECTS, NPUC_UNIVERSE
from xdsl.context import Context
from xdsl.dialects import builtin, func, test
from xdsl.dialects.builtin import (
    AnyFloat,
    BFloat16Type,
    BytesAttr,
    DenseIntOrFPElementsAttr,
    Float8E4M3FNType,
    Float32Type,
    IndexType,
    ModuleOp,
    TensorType,
)
from xdsl.ir import Block, Region
from xdsl.utils.exceptions import ParseError

Parse = Callable[[str], ModuleOp]
Ports = dict[str, tile.Port]
EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "filecheck" / "dialects").glob("*/ops*.mlir"))
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def context() -> Context:
    found = Context()
    for name, dialect in NPUC_UNIVERSE.all_dialects.items():
        found.register_dialect(name, dialect)
    for dialect in (builtin.Builtin, func.Func, test.Test):
        found.load_dialect(dialect)
    return found


def check_round_trip(module: ModuleOp) -> None:
    """Both forms read back as the same module, and each text is printed again as it was."""
    for generic in (False, True):
        text = print_ir(module, generic=generic)
        again = IRParser(context(), text).parse_module()
        assert again.is_structurally_equivalent(module), text
        assert print_ir(again, generic=generic) == text
        assert print_ir(again, generic=not generic) == print_ir(module, generic=not generic)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_examples(parse_ir: Parse, path: Path) -> None:
    check_round_trip(parse_ir(path.read_text()))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_mlir_accepts_examples(parse_ir: Parse, iree_opt: Callable[[str], str], path: Path) -> None:
    iree_opt(print_ir(parse_ir(path.read_text()), generic=True))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_operation_has_an_example(parse_ir: Parse, dialect: str) -> None:
    shown = {
        op.name
        for path in EXAMPLES
        if path.parent.name == dialect
        for op in parse_ir(path.read_text()).walk()
    }
    names = {op.name for op in NPUC_UNIVERSE.all_dialects[dialect]().operations}
    if dialect == "graph":  # one elementwise operation of a kind stands for all
        from npuc.ir.graph import BINARY, UNARY

        names -= {f"graph.{mnemonic}" for mnemonic in (*UNARY, *BINARY)}
    assert names <= shown


def test_steps_are_those_of_the_kernels() -> None:
    known = (*UNARY_STEPS, *BINARY_STEPS, *REDUCE_STEPS, *RING_STEPS)
    assert sorted(known) == sorted(chain.CHAIN_OPS)


# xDSL's parser reads no infinity in a dense array: MLIR writes it in hexadecimal.
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
small = st.integers(-300, 300)


@given(st.floats(width=32))
def test_floats_read_back(value: float) -> None:
    text = float_text(value)
    assert struct.pack("<f", float(text)) == struct.pack("<f", value) or value != value
    assert "." in text or text.lstrip("-") in ("inf", "nan")


@given(st.sampled_from([(Float32Type(), 4), (BFloat16Type(), 2), (Float8E4M3FNType(), 1)]), st.data())
def test_dense_floats_read_back(kind: tuple[AnyFloat, int], data: st.DataObject) -> None:
    """Any bits: infinities and NaN are printed as bit patterns."""
    element, size = kind
    patterns = data.draw(st.lists(st.binary(min_size=size, max_size=size), min_size=1, max_size=3))
    dense = DenseIntOrFPElementsAttr(TensorType(element, [len(patterns)]), BytesAttr(b"".join(patterns)))
    again = IRParser(context(), str(dense)).parse_attribute()
    assert isinstance(again, DenseIntOrFPElementsAttr)
    for before, after in zip(dense.get_values(), again.get_values(), strict=True):
        assert before == after or (before != before and after != after)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("dense<[0xFF800000, 1.0]> : tensor<2xf32>", [float("-inf"), 1.0]),
        ("dense<0x3F80> : tensor<2xbf16>", [1.0, 1.0]),
        ("dense<0x3F80> : tensor<1xi32>", [0x3F80]),
    ],
)
def test_hexadecimal_literals_are_bits_as_in_mlir(text: str, values: list[float]) -> None:
    found = IRParser(context(), text).parse_attribute()
    assert isinstance(found, DenseIntOrFPElementsAttr)
    assert list(found.get_values()) == values


def test_a_bit_pattern_longer_than_its_type_is_an_error() -> None:
    with pytest.raises(ParseError, match="bf16 has 2 bytes, this literal more"):
        IRParser(context(), "dense<0x1FF80> : tensor<bf16>").parse_attribute()


@st.composite
def ports(
    draw: st.DrawFn, names: tuple[str, ...], rank: int, counts: tuple[int, int]
) -> dict[str, tile.Port]:
    """Ports over buffers and indices that are numbered by first use, as text numbers them."""
    found: dict[str, tile.Port] = {}
    for name in names:
        length = 1 if name == "index" else rank
        terms = draw(st.lists(st.tuples(st.integers(0, counts[1] - 1), small.filter(bool)), max_size=3))
        found[name] = tile.Port(
            draw(st.integers(0, counts[0] - 1)),
            draw(small),
            tuple(draw(st.lists(small, min_size=length, max_size=length))),
            tuple(draw(st.lists(st.integers(0, 2), min_size=length, max_size=length))),
            tuple(terms),
        )
    return found


def limits(rank: int, indices: int) -> st.SearchStrategy[tile.Limit]:
    dims = st.integers(0, rank - 1)
    constant = st.builds(tile.Limit, dims, small, small)
    value = st.builds(tile.Limit, dims, st.just(0), small, st.integers(0, indices - 1))
    return st.one_of(constant, value)


steps = st.one_of(
    st.builds(tile.Step, st.sampled_from(UNARY_STEPS + REDUCE_STEPS + RING_STEPS)),
    st.builds(tile.Step, st.sampled_from(BINARY_STEPS), st.just("imm"), floats),
    st.builds(tile.Step, st.sampled_from(BINARY_STEPS), st.sampled_from(["stash", "operand", "vrf"]), floats),
)


@st.composite
def passes(draw: st.DrawFn) -> tile.PassSpec:
    rank = draw(st.integers(1, 8))
    names = tuple(draw(st.permutations(PASS_PORTS)))[: draw(st.integers(1, 5))]
    return tile.PassSpec(
        tuple(draw(st.lists(st.integers(1, 9), min_size=rank, max_size=rank))),
        draw(ports(names, rank, (3, 3))),
        tuple(draw(st.lists(st.integers(0, rank - 1), unique=True))),
        draw(st.integers(-1, rank - 1)),
        draw(st.none() | limits(rank, 3)),
        tuple(draw(st.lists(steps, max_size=5))),
        draw(st.none() | limits(rank, 3)),
        draw(st.none() | floats),
    )


@st.composite
def copies(draw: st.DrawFn) -> tile.CopySpec:
    rank = draw(st.integers(1, 4))
    limit = draw(st.none() | st.builds(tile.Limit, st.just(0), small))
    dim, scale = draw(st.just((-1, 0)) | st.tuples(st.integers(0, rank - 1), small))
    size = tuple(draw(st.lists(st.integers(1, 9), min_size=rank, max_size=rank)))
    return tile.CopySpec(size, draw(ports(COPY_PORTS, rank, (3, 3))), limit, dim, scale)


def check_spec(operation: type[tile.PassOp] | type[tile.CopyOp], spec: tile.PassSpec | tile.CopySpec) -> None:
    """The text of an operation with this spec is printed again as it was, and means the same."""
    buffer = tile.buffer_type((4, 8), builtin.f32, "dm")
    block = Block(arg_types=[buffer] * 3 + [IndexType()] * 3)
    op = operation(spec, block.args[:3], block.args[3:], "model.layers.{}")  # type: ignore[arg-type]
    block.add_ops([op, func.ReturnOp()])
    types = builtin.FunctionType.from_lists([arg.type for arg in block.args], [])
    text = print_ir(ModuleOp([func.FuncOp("f", types, Region(block))]))
    again = IRParser(context(), text).parse_module()
    assert print_ir(again) == text
    (found,) = [o for o in again.walk() if isinstance(o, tile.PassOp | tile.CopyOp)]
    function = found.parent_block()
    assert function is not None
    for name, port in found.spec.ports.items():
        wanted = spec.ports[name]
        assert found.buffers[port.buffer] is function.args[wanted.buffer]
        terms = [(found.indices[k], c) for k, c in port.index]
        assert terms == [(function.args[3 + k], c) for k, c in wanted.index]
        assert (port.offset, port.strides, port.slices) == (wanted.offset, wanted.strides, wanted.slices)


@RELAXED
@given(passes())
def test_passes_read_back(spec: tile.PassSpec) -> None:
    check_spec(tile.PassOp, spec)


@RELAXED
@given(copies())
def test_copies_read_back(spec: tile.CopySpec) -> None:
    check_spec(tile.CopyOp, spec)


words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=6)
names = st.from_regex(r"[a-z][a-z0-9._]{0,8}", fullmatch=True)
numbers = st.integers(-(2**40), 2**40)
fields: st.SearchStrategy[FieldValue] = st.one_of(
    numbers,
    floats,
    words,
    names,
    st.builds(Reg, numbers, st.integers(0, 63)),
    st.lists(numbers, max_size=4).map(tuple),
    st.lists(floats, min_size=1, max_size=4).map(tuple),
    st.lists(words | names, min_size=1, max_size=4).map(tuple),
)
uses = st.lists(st.builds(SemaphoreUse, st.integers(0, 99), st.integers(1, 9)), max_size=3).map(tuple)
commands = st.builds(
    Instruction, names, names, st.dictionaries(names | words.filter(bool), fields), uses, uses
)


@RELAXED
@given(commands, words)
def test_commands_read_back(command: Instruction, module: str) -> None:
    check_round_trip(ModuleOp([CommandOp(command, module)]))
