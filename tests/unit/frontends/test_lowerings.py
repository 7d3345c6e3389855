"""Each ATen lowering computes what torch computes, with symbolic batch and sequence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import pytest
import torch
import torch.nn.functional as F
from npuc.frontends import aten_compute, aten_elementwise, aten_shape, trace_model
from npuc.frontends.fx_import import LOWERINGS, FxImporter, affine
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


Cases = Mapping[str, Callable[..., Tensor]]


class Wrapped(nn.Module):
    """All functions in one graph: an export takes about a second."""

    def __init__(self, functions: Cases) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, a: Tensor, b: Tensor) -> list[Tensor]:
        return [function(a, b) for function in self.functions.values()]


def imported(functions: Cases, *inputs: Tensor) -> ModuleOp:
    """The module of functions of two tensors whose first dimensions are batch and sequence."""
    names = (SIZES["batch"], SIZES["seq"])
    shapes = [tuple(names[i] if i < 2 else d for i, d in enumerate(x.shape)) for x in inputs]
    with FakeTensorMode():
        fakes = [torch.empty(s, dtype=x.dtype) for s, x in zip(shapes, inputs, strict=True)]
    program = trace_model.export_program(Wrapped(functions), fakes, "test")
    nodes = list(program.graph.nodes)
    constants = {
        spec.arg.name: program.constants[spec.target]
        for spec in program.graph_signature.input_specs
        if spec.target is not None
    }
    block = Block()
    importer = FxImporter(
        block,
        size_symbols(TracedGraph(program, "", "")),
        lambda _: "here",
        lambda imp, node, _, __: imp.dense(constants[node.name]),
    )
    for node in [n for n in nodes if n.op == "placeholder"][-2:]:
        importer.argument(node)
    importer.run(nodes)
    results = [importer.value(node) for node in nodes[-1].args[0]]
    importer.builder.insert(ReturnOp(*results))
    types = [a.type for a in block.args], [r.type for r in results]
    module = ModuleOp([FuncOp("main", types, Region(block))])
    module.verify()
    return module


def values(dtype: torch.dtype = torch.float32, last: int = 6) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    if not dtype.is_floating_point:
        return [torch.randint(0, 9, (2, 3, last), generator=generator, dtype=dtype) for _ in range(2)]
    return [torch.randn(2, 3, last, generator=generator).to(dtype) for _ in range(2)]


class Group:
    """Cases that are exported together, and their results."""

    def __init__(self, cases: Cases, dtype: torch.dtype) -> None:
        self.cases, self.dtype = cases, dtype

    @cached_property
    def results(self) -> dict[str, Tensor]:
        inputs = values(self.dtype)
        narrow = [x.int() if x.dtype == torch.int64 else x for x in inputs]
        outputs = interpret(imported(self.cases, *inputs), narrow, None)
        return dict(zip(self.cases, outputs, strict=True))

    def check(self, name: str, tolerance: float) -> None:
        got, want = self.results[name], self.cases[name](*values(self.dtype))
        assert tuple(got.shape) == tuple(want.shape)
        assert got.dtype == (torch.int32 if want.dtype == torch.int64 else want.dtype)
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
    "flat router": lambda a, b: (
        torch.softmax(a.reshape(-1, 6), -1).view(-1, 2, 3).amax(-1).view(*a.shape[:2], 2)
    ),
    "flat broadcast": lambda a, b: (a.reshape(-1, 1, 6) * b.reshape(1, -1, 6).transpose(0, 1)).view(a.shape),
    "flat aligned": lambda a, b: (a.reshape(-1, 6)[None] + torch.ones(4, 1, 6)).sum(0).view(a.shape),
    "flat reduction": lambda a, b: a.reshape(-1, 6).mean(0),
    "flat transpose": lambda a, b: (a.reshape(-1, 6).t() * 2).t().reshape(b.shape),
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
    "positions": lambda a, b: a[:, :, [-1]] + b[:, :, torch.tensor([2, 0, 2])],
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
    "topk": lambda a, b: a.topk(3, -1).values + a.topk(3, -1).indices,
    "max": lambda a, b: a.max(-1).values + b.max(1).values.amax(-1, keepdim=True),
    "argument of max": lambda a, b: a.max(-1, keepdim=True).indices,
    "gather": lambda a, b: a.gather(-1, b.topk(2, -1).indices),
    "gather of rows": lambda a, b: torch.gather(
        torch.arange(18.0).view(3, 6).repeat(a.shape[0], 1, 1),
        1,
        (a[..., :1] > 0).long().repeat(1, 1, 6),
    ),
    "gather of numbers": lambda a, b: torch.gather(
        torch.arange(3.0)[None].expand(a.shape[0], 3), 1, (b[..., 0] > 0).long()
    ),
    "scatter": lambda a, b: a.scatter(-1, b.topk(2, -1).indices, 7.0),
    "scatter source": lambda a, b: a.scatter(-1, b.topk(2, -1).indices, a[..., 1:3]),
    "flat routing": lambda a, b: (
        a.reshape(-1, 6).gather(1, b.reshape(-1, 6).topk(2, -1)[1]).view(*a.shape[:2], 2)
    ),
    "matmul": lambda a, b: a @ b.transpose(1, 2),
    "vector product": lambda a, b: a @ torch.arange(6.0),
    "linear": lambda a, b: F.linear(a, torch.ones(3, 6), torch.arange(3.0)),
    "slice scatter": lambda a, b: torch.slice_scatter(a, b[..., :2], -1, 1, 3),
    "empty then filled": lambda a, b: torch.empty_like(a).copy_(b),
}  # fmt: skip


BFLOAT16: Cases = {
    "scaled": lambda a, b: a * 0.3,
    "eps": lambda a, b: a + 1e-3,
    "mixed": lambda a, b: a * b - a / 3,
    "gated": lambda a, b: F.silu(a) * b,
    "norm": lambda a, b: (
        (a.float() * torch.rsqrt(a.float().pow(2).mean(-1, keepdim=True) + 1e-6)).to(a.dtype)
    ),
    "softmax": lambda a, b: torch.softmax(a, -1, dtype=torch.float32).to(a.dtype),
    "promoted": lambda a, b: a.float() + b,
    "compared": lambda a, b: a > 0.3,
}  # fmt: skip

INTEGERS: Cases = {
    "scaled": lambda a, b: a + 2 * b,
    "alpha": lambda a, b: torch.add(a, b, alpha=2),
    "floor": lambda a, b: a // 3 - b % 4,
    "true division": lambda a, b: a / 4,
    "bits": lambda a, b: (a & 3) | b,
    "float": lambda a, b: a.float() * 0.5,
    "equal": lambda a, b: (a == b).long(),
    "maximum": lambda a, b: torch.maximum(a, b).amax(-1),
    "sum": lambda a, b: a.sum(-1),
}

FLOAT_GROUP = Group(CASES, torch.float32)
BFLOAT16_GROUP = Group(BFLOAT16, torch.bfloat16)
INTEGER_GROUP = Group(INTEGERS, torch.int64)


@pytest.mark.parametrize("name", CASES)
def test_float(name: str) -> None:
    FLOAT_GROUP.check(name, 1e-5)


@pytest.mark.parametrize("name", BFLOAT16)
def test_bfloat16(name: str) -> None:
    """Types and roundings are torch's: the results are equal to the bit."""
    BFLOAT16_GROUP.check(name, 0.0)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers(name: str) -> None:
    INTEGER_GROUP.check(name, 1e-6)


def test_an_operator_without_lowering() -> None:
    with pytest.raises(UserError) as caught:
        imported({"i0": lambda a, b: torch.special.i0(a)}, *values())
    text = str(caught.value)
    assert caught.value.kind == "unsupported-op"
    assert "aten.special_i0" in text or "aten.i0" in text
    assert text.startswith("here: ")
    assert "@lowers" in caught.value.remedy


def test_sizes_that_are_not_affine() -> None:
    with pytest.raises(UserError, match="not affine"):
        imported({"all": lambda a, b: a.reshape(-1).exp()}, *values())


def test_work_along_flattened_rows() -> None:
    with pytest.raises(UserError, match="flattened batch"):
        imported({"along rows": lambda a, b: a.reshape(-1, 6).softmax(0)}, *values())


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
