"""Each ATen lowering computes what torch computes, with symbolic batch and sequence."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from npuc.frontends import aten_compute, aten_elementwise, aten_shape, trace_model
from npuc.frontends.fx_import import LOWERINGS, FxImporter, affine, input_type
from npuc.frontends.trace_model import SIZES, TracedGraph
from npuc.frontends.transformers_export import size_symbols
from npuc.ir.errors import UserError
from npuc.ir.graph import BATCH, CTX, SEQ
from npuc.ir.interpret import interpret
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Region

assert LOWERINGS
assert aten_compute
assert aten_elementwise
assert aten_shape


class Wrapped(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a, b)


def imported(function: Callable[..., Tensor], *inputs: Tensor) -> ModuleOp:
    """The module of a function of two tensors whose first dimensions are batch and sequence."""
    names = (SIZES["batch"], SIZES["seq"])
    shapes = [tuple(names[i] if i < 2 else d for i, d in enumerate(x.shape)) for x in inputs]
    with FakeTensorMode():
        fakes = [torch.empty(s, dtype=x.dtype) for s, x in zip(shapes, inputs, strict=True)]
    program = trace_model.export_program(Wrapped(function), fakes, "test")
    symbols = size_symbols(TracedGraph(program, "", ""))
    nodes = list(program.graph.nodes)
    placeholders = [n for n in nodes if n.op == "placeholder"]
    arguments = placeholders[-2:]
    block = Block(arg_types=[input_type(n, symbols) for n in arguments])

    def parameter(imp: FxImporter, node: torch.fx.Node, transposed: bool) -> object:
        spec = next(s for s in program.graph_signature.input_specs if s.arg.name == node.name)
        return None if transposed else imp.dense(program.constants[spec.target])

    importer = FxImporter(block, symbols, lambda _: "here", parameter)
    importer.env.update(zip(arguments, block.args, strict=True))
    importer.run(nodes)
    result = importer.value(nodes[-1].args[0][0])
    importer.builder.insert(ReturnOp(result))
    function_op = FuncOp("main", ([a.type for a in block.args], [result.type]), Region(block))
    module = ModuleOp([function_op])
    module.verify()
    return module


def values(dtype: torch.dtype = torch.float32, last: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    if not dtype.is_floating_point:
        return [torch.randint(0, 9, (2, 3, last), generator=generator, dtype=dtype) for _ in range(2)]
    return [torch.randn(2, 3, last, generator=generator).to(dtype) for _ in range(2)]


def compare(function: Callable[..., Tensor], inputs: list[Tensor], tolerance: float = 1e-6) -> None:
    module = imported(function, *inputs)
    narrow = [x.int() if x.dtype == torch.int64 else x for x in inputs]
    (got,) = interpret(module, narrow, None)
    want = function(*inputs)
    assert tuple(got.shape) == tuple(want.shape)
    expected_type = torch.int32 if want.dtype == torch.int64 else want.dtype
    assert got.dtype == expected_type
    assert torch.allclose(got.double(), want.double(), rtol=tolerance, atol=tolerance)


CASES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": lambda a, b: a + b,
    "alpha": lambda a, b: torch.add(a, b, alpha=3),
    "sub scalar": lambda a, b: a - 2,
    "rsub": lambda a, b: 1.5 - a,
    "mul broadcast": lambda a, b: a * b[..., :1],
    "div": lambda a, b: a / (b.abs() + 1),
    "floor div": lambda a, b: torch.div(a, b.abs() + 1, rounding_mode="floor"),
    "remainder": lambda a, b: a % 0.7,
    "square": lambda a, b: a**2,
    "cube": lambda a, b: a**3,
    "root": lambda a, b: a.abs() ** 0.5,
    "power": lambda a, b: a.abs() ** b,
    "clamp": lambda a, b: a.clamp(-0.5, 0.25),
    "clamp min": lambda a, b: a.clamp(min=0.1),
    "clamp max": lambda a, b: a.clamp_max(0.1),
    "compare": lambda a, b: (a < b) & ~(a > 0) | (b == b),
    "compare scalar": lambda a, b: a >= 0.5,
    "logic": lambda a, b: torch.logical_and(a > 0, b > 0) ^ (a > b),
    "where": lambda a, b: torch.where(a > b, a, 0.0),
    "masked fill": lambda a, b: a.masked_fill(b > 0, -1.0),
    "maximum": torch.maximum,
    "exp": lambda a, b: torch.exp(a),
    "log1p": lambda a, b: torch.log1p(a.abs()),
    "expm1": lambda a, b: torch.expm1(a),
    "trigonometry": lambda a, b: torch.sin(a) + torch.cos(b) + torch.tanh(a),
    "activations": lambda a, b: F.silu(a) + F.gelu(b) + F.gelu(a, approximate="tanh") + F.relu(b),
    "sigmoid": lambda a, b: torch.sigmoid(a),
    "softplus": lambda a, b: F.softplus(a),
    "erf": lambda a, b: torch.erf(a),
    "abs neg rsqrt": lambda a, b: torch.rsqrt(-(-a.abs()) + 1),
    "cast": lambda a, b: (a > 0).to(torch.float32) + a.to(torch.int32).float(),
    "bool arithmetic": lambda a, b: (a > 0).float() * (b > 0).float(),
    "view": lambda a, b: a.view(a.shape[0], a.shape[1], 2, 3).transpose(1, 2),
    "flatten to rows": lambda a, b: (a.reshape(-1, 6) * 2).view(a.shape),
    "flat norm": lambda a, b: F.layer_norm(a.reshape(-1, 6), (6,)).view(a.shape),
    "flat product": lambda a, b: (a.reshape(-1, 6) @ torch.ones(6, 4)).view(a.shape[0], -1, 4),
    "unsqueeze": lambda a, b: a.unsqueeze(1).expand(-1, 4, -1, -1),
    "squeeze": lambda a, b: a.unsqueeze(2).squeeze(2),
    "permute": lambda a, b: a.permute(2, 0, 1),
    "slice": lambda a, b: a[..., 1:5:2],
    "slice end": lambda a, b: a[..., -2:],
    "slice sequence": lambda a, b: a[:, 1:],
    "select": lambda a, b: a[..., 2],
    "select last": lambda a, b: a[..., -1],
    "split": lambda a, b: a.split([1, 2, 3], dim=-1)[2] * a.split(3, -1)[0],
    "chunk": lambda a, b: a.chunk(2, -1)[0] + a.chunk(2, -1)[1],
    "unbind": lambda a, b: a.view(*a.shape[:2], 2, 3).unbind(2)[1],
    "cat": lambda a, b: torch.cat([-a, b], -1),
    "cat sequence": lambda a, b: torch.cat([a, b], 1),
    "stack": lambda a, b: torch.stack([a, b], -2),
    "repeat": lambda a, b: a.repeat(1, 1, 3),
    "repeat new": lambda a, b: a.unsqueeze(1).repeat(1, 3, 1, 1),
    "repeat interleave": lambda a, b: a[:, :, None].expand(-1, -1, 2, -1).reshape(*a.shape[:2], -1),
    "pad": lambda a, b: F.pad(a, (1, 2), value=3.0),
    "full": lambda a, b: a + torch.full((3, 6), 2.0)[0] + torch.ones_like(b) + torch.zeros(6),
    "arange": lambda a, b: a + torch.arange(a.shape[1])[None, :, None] + torch.arange(1, 13, 2),
    "float arange": lambda a, b: a + torch.arange(0, 3, 0.5),
    "constant": lambda a, b: a * torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
    "table": lambda a, b: torch.tensor([1.0, 3.0, 9.0])[(a > 0).long()],
    "mean": lambda a, b: a.mean(-1, keepdim=True) + b.mean(),
    "sum": lambda a, b: a.sum((1, 2)) + a.sum(),
    "extremes": lambda a, b: a.amax(-1) - b.amin(-1),
    "any all": lambda a, b: (a > 0).any(-1) & ~(b > 5).all(-1),
    "variance": lambda a, b: a.var(-1, keepdim=True) + a.var(-1, correction=0, keepdim=True),
    "deviation": lambda a, b: torch.sqrt(a.var(-1)),
    "softmax": lambda a, b: torch.softmax(a, -1),
    "softmax in f32": lambda a, b: F.softmax(a, dim=1, dtype=torch.float32),
    "layer norm": lambda a, b: F.layer_norm(a, (6,), torch.arange(6.0), torch.ones(6), 1e-3),
    "rms norm": lambda a, b: F.rms_norm(a, (6,), torch.arange(6.0), 1e-3) + F.rms_norm(b, (6,)),
    "matmul": lambda a, b: a @ b.transpose(1, 2),
    "vector product": lambda a, b: a @ torch.arange(6.0),
    "linear": lambda a, b: F.linear(a, torch.ones(3, 6), torch.arange(3.0)),
    "slice scatter": lambda a, b: torch.slice_scatter(a, b[..., :2], -1, 1, 3),
    "empty then filled": lambda a, b: torch.empty_like(a).copy_(b),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_float(name: str) -> None:
    compare(CASES[name], values(), 1e-5)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a * 0.3,
        lambda a, b: a + 1e-3,
        lambda a, b: a * b - a / 3,
        lambda a, b: F.silu(a) * b,
        lambda a, b: (a.float() * torch.rsqrt(a.float().pow(2).mean(-1, keepdim=True) + 1e-6)).to(a.dtype),
        lambda a, b: torch.softmax(a, -1, dtype=torch.float32).to(a.dtype),
        lambda a, b: a.float() + b,
        lambda a, b: a > 0.3,
    ],
)
def test_bfloat16(function: Callable[..., Tensor]) -> None:
    """Types and roundings are torch's: the results are equal to the bit."""
    compare(function, values(torch.bfloat16), 0.0)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a + 2 * b,
        lambda a, b: a // 3 - b % 4,
        lambda a, b: a / 4,
        lambda a, b: (a & 3) | b,
        lambda a, b: a.float() * 0.5,
        lambda a, b: (a == b).long(),
        lambda a, b: torch.maximum(a, b).amax(-1),
        lambda a, b: a.sum(-1),
    ],
)
def test_integers(function: Callable[..., Tensor]) -> None:
    compare(function, values(torch.int64))


def test_an_operator_without_lowering() -> None:
    with pytest.raises(UserError) as caught:
        imported(lambda a, b: torch.special.i0(a), *values())
    text = str(caught.value)
    assert caught.value.kind == "unsupported-op"
    assert "aten.special_i0" in text or "aten.i0" in text
    assert text.startswith("here: ")
    assert "@lowers" in caught.value.remedy


def test_sizes_that_are_not_affine() -> None:
    with pytest.raises(UserError, match="not affine"):
        imported(lambda a, b: a.reshape(-1, 6).softmax(0), *values())


def test_affine_sizes() -> None:
    import sympy
    from torch.utils._sympy.functions import FloorDiv, Mod

    batch, seq, ctx = sympy.symbols("b s c", integer=True, positive=True)
    symbols = {batch: BATCH, seq: SEQ, ctx: CTX}
    cases = {
        seq + 3: lambda b, s, c: s + 3,
        2 * seq + ctx: lambda b, s, c: 2 * s + c,
        ctx - seq: lambda b, s, c: c - s,
        FloorDiv(seq, 4): lambda b, s, c: s // 4,
        Mod(ctx, 5): lambda b, s, c: c % 5,
    }
    for expression, want in cases.items():
        got = affine(expression, symbols)
        assert got.eval([3, 14, 27], []) == want(3, 14, 27)
    assert affine(sympy.Integer(7), symbols) == 7
