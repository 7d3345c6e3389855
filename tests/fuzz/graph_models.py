"""Random language models as the frontends make them: embedding, layers with caches, head.

Sizes are awkward on purpose (1, 3, 7, 65), blocks come in any order. What is not continuous, such as a
comparison of values, chooses between continuations that meet, so that rounding does not show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graph_builder import Builder, Weights, tensor_type, width
from hypothesis import strategies as st
from npuc.ir import graph
from npuc.ir.graph import BATCH, CTX, SEQ
from npuc.ir.graph_types import element_of, shape_of
from npuc.passes.pipeline import finish_phase
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, StringAttr, bf16, f32, i32, i64
from xdsl.ir import Attribute, Operation, SSAValue

WIDTHS = (4, 8, 16, 1, 2, 3, 7, 12, 30, 33, 64, 65, 130)
HEAD_SIZES = (8, 4, 2, 6, 16, 10, 1, 3, 5, 7, 32)
VOCABULARIES = (8, 2, 7, 65, 131)
CONTEXT = 160
SMOOTH = ("tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "erf", "sin", "cos", "neg", "abs", "relu")
"""Elementwise operations that are defined everywhere and grow no faster than their input."""


@dataclass(frozen=True)
class Shared:
    """What all layers of a model have in common.

    Attributes:
        hidden: size of the hidden states.
        element: the compile type.
        rotated: size of the rotary tables, 0 without.
    """

    hidden: int
    element: Attribute
    rotated: int


@dataclass
class Layer:
    """A layer's body under construction."""

    draw: st.DrawFn
    b: Builder
    shared: Shared
    mask: SSAValue
    tables: tuple[SSAValue, ...]

    def choose(self, *values: object) -> object:
        return self.draw(st.sampled_from(values))

    def flag(self) -> bool:
        return self.draw(st.booleans())


def norm(layer: Layer, x: SSAValue) -> SSAValue:
    """RMS norms spelt as models spell them, layer norms, single operations, or none."""
    b, kind = layer.b, layer.choose("rms", "none", "layer", "rms op", "offset", "unweighted")
    if kind == "none":
        return x
    name = f"norm{len(b.weights.declared)}"
    eps = 1e-5 if layer.flag() else 1e-2
    if kind == "layer":
        weight = b.param(f"{name}.weight", width(x)) if layer.flag() else None
        bias = b.param(f"{name}.bias", width(x)) if layer.flag() else None
        return b.add(graph.LayerNormOp(x, weight, bias, eps))
    if kind == "rms op":
        return b.add(graph.RmsNormOp(x, b.param(f"{name}.weight", width(x)), eps, float(layer.flag())))
    wide = b.cast(x, f32)
    squares = b.binary("mul", wide, wide) if layer.flag() else b.binary("pow", wide, b.number(2.0, f32))
    root = b.unary("rsqrt", b.binary("add", b.reduce(squares, "mean"), b.number(eps, f32)))
    scaled = b.binary("mul", wide, root)
    if kind == "unweighted":
        return b.cast(scaled, element_of(x))
    weight = b.param(f"{name}.weight", width(x))
    if kind == "offset":
        factor = b.binary("add", b.cast(weight, f32), b.number(1.0, f32))
        return b.cast(b.binary("mul", scaled, factor), element_of(x))
    pair = [b.cast(scaled, element_of(x)), weight]
    return b.binary("mul", *(pair if layer.flag() else pair[::-1]))


def rotated(layer: Layer, x: SSAValue) -> SSAValue:
    """Rotary embedding of x [B,H,N,D], by halves or as one operation; dimensions past the tables pass."""
    b, size = layer.b, layer.shared.rotated
    if not layer.tables or width(x) < size:
        return x
    cos, sin = layer.tables
    if layer.flag():
        return b.add(graph.RopeOp(x, cos, sin, layer.flag()))
    part = x if width(x) == size else b.columns(x, 0, size)
    cos, sin = (b.reshape(t, shape_of(t)[0], 1, *shape_of(t)[1:]) for t in (cos, sin))
    half = b.concat(b.unary("neg", b.columns(part, size // 2, size)), b.columns(part, 0, size // 2))
    turned = b.binary("add", b.binary("mul", part, cos), b.binary("mul", half, sin))
    return turned if width(x) == size else b.concat(turned, b.columns(x, size, width(x)))


def attention(layer: Layer, x: SSAValue) -> SSAValue:
    """Attention with a cache: grouped heads, biases, norms of queries and keys, rope, masks, soft caps."""
    b, draw = layer.b, layer.draw
    groups, per_group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    size = draw(st.sampled_from(HEAD_SIZES))
    value_size = draw(st.sampled_from(HEAD_SIZES)) if draw(st.integers(0, 9)) == 9 else size
    assert b.layers is not None
    name = b.weights.cache(b.layers, groups, (size, value_size), b.element)
    outer, b.module = b.module, f"{b.module}.{name}"
    bias, normed, rope = layer.flag(), layer.flag(), layer.flag()

    def heads(part: str, count: int, each: int) -> SSAValue:
        flat = b.linear(x, f"{part}_proj", count * each, bias=bias)
        split = b.reshape(flat, BATCH, SEQ, count, each)
        if normed and part != "v":
            split = norm(layer, split)
        found = b.transpose(split, 0, 2, 1, 3)
        return rotated(layer, found) if rope and part != "v" else found

    query, key = heads("q", groups * per_group, size), heads("k", groups, size)
    update = graph.KvUpdateOp(key, heads("v", groups, value_size), name)
    b.add(update)
    softcap = draw(st.sampled_from([0.0, 0.0, 5.0]))
    mask = layer.mask
    result = b.add(graph.AttentionOp(query, update.keys, update.values, mask, size**-0.5, softcap))
    flat = b.reshape(result, BATCH, SEQ, groups * per_group * value_size)
    result = b.linear(flat, "o_proj", layer.shared.hidden, bias=bias)
    b.module = outer
    return result


def mlp(layer: Layer, x: SSAValue) -> SSAValue:
    b, inner, bias = layer.b, layer.draw(st.sampled_from(WIDTHS)), layer.flag()
    activation = layer.draw(st.sampled_from(SMOOTH))
    name = f"mlp{len(b.weights.declared)}"
    outer, b.module = b.module, f"{b.module}.{name}"
    value = b.unary(activation, b.linear(x, "gate_proj", inner, bias=bias))
    if layer.flag():
        up = b.linear(x, "up_proj", inner, bias=bias)
        value = b.binary("mul", *((value, up) if layer.flag() else (up, value)))
    result = b.linear(value, "down_proj", layer.shared.hidden, bias=bias)
    b.module = outer
    return result


def chain(layer: Layer, x: SSAValue) -> SSAValue:
    """Elementwise operations one after the other, with numbers, vectors, and earlier values."""
    b, value = layer.b, x
    for _ in range(layer.draw(st.integers(1, 6))):
        kind = layer.choose("unary", "number", "vector", "earlier", "root", "choice", "wide")
        if kind == "unary":
            value = b.unary(layer.draw(st.sampled_from(SMOOTH)), value)
        elif kind in ("number", "vector", "earlier"):
            other = {
                "number": lambda: b.number(layer.draw(st.sampled_from([0.5, 1.0, -0.0, 2.0, -3.0]))),
                "vector": lambda: b.param(f"vector{len(b.weights.declared)}", width(x)),
                "earlier": lambda: x,
            }[str(kind)]()
            name = layer.draw(st.sampled_from(["add", "sub", "mul", "maximum", "minimum"]))
            value = b.binary(name, *((value, other) if layer.flag() else (other, value)))
        elif kind == "root":
            away = b.binary("add", b.unary("abs", value), b.number(1.0))
            value = b.unary(str(layer.choose("sqrt", "rsqrt", "log", "reciprocal")), away)
        elif kind == "choice":
            zero = b.number(0.0)
            above = b.binary(str(layer.choose("gt", "ge")), value, zero)
            value = b.add(graph.WhereOp(above, value, b.binary("mul", value, b.number(0.25))))
        else:
            wide = b.cast(value, f32)
            value = b.cast(b.unary("exp", b.unary("tanh", wide)), b.element)
    return value


def over_columns(layer: Layer, x: SSAValue) -> SSAValue:
    """Reductions and softmax over the last dimension."""
    b = layer.b
    kind = layer.choose("softmax", "mean", "sum", "max", "min")
    if kind == "softmax":
        return b.add(graph.SoftmaxOp(x, -1))
    reduced = b.reduce(x, str(kind))
    if kind == "sum":
        reduced = b.binary("mul", reduced, b.number(1 / width(x)))
    return b.binary(str(layer.choose("sub", "add", "mul")), x, reduced)


def split(layer: Layer, x: SSAValue) -> SSAValue:
    """Columns apart and together again: slices, in another order, as heads, padded."""
    b, size = layer.b, width(x)
    kind = layer.choose("halves", "heads", "strided", "padded")
    if kind == "halves" and size > 1:
        at = layer.draw(st.integers(1, size - 1))
        parts = [b.columns(x, 0, at), b.columns(x, at, size)]
        if layer.flag():
            parts[0] = b.unary("tanh", parts[0])
        return b.concat(*(parts[::-1] if layer.flag() else parts))
    if kind == "heads":
        count = layer.draw(st.sampled_from([n for n in range(1, size + 1) if size % n == 0]))
        heads = b.reshape(x, BATCH, SEQ, count, size // count)
        if layer.flag():
            return b.reshape(norm(layer, heads), BATCH, SEQ, size)
        if layer.flag():
            moved = b.unary("sin", b.transpose(heads, 0, 2, 1, 3))
            return b.reshape(b.transpose(moved, 0, 2, 1, 3), BATCH, SEQ, size)
        return b.reshape(b.transpose(heads, 0, 1, 3, 2), BATCH, SEQ, size)
    if kind == "strided" and size % 2 == 0:
        return b.concat(b.columns(x, 0, size, 2), b.columns(x, 1, size, 2))
    low, high = layer.draw(st.integers(0, 3)), layer.draw(st.integers(0, 3))
    padded = b.add(graph.PadOp(x, [0, 0, low], [0, 0, high], 0.5))
    return b.columns(padded, high, high + size)


def projection(layer: Layer, x: SSAValue) -> SSAValue:
    """A square linear layer, or two of which the first is narrow."""
    b, name = layer.b, f"proj{len(layer.b.weights.declared)}"
    if layer.flag():
        x = b.linear(x, f"{name}_down", layer.draw(st.sampled_from(WIDTHS[:8])))
    return b.linear(x, name, layer.shared.hidden, bias=layer.flag())


BLOCKS: dict[str, Callable[[Layer, SSAValue], SSAValue]] = {
    "mlp": mlp,
    "attention": attention,
    "projection": projection,
    "chain": chain,
    "over columns": over_columns,
    "split": split,
}


def body(layer: Layer, x: SSAValue) -> SSAValue:
    """A few blocks, most with a norm before and a residual around."""
    for kind in layer.draw(st.lists(st.sampled_from(list(BLOCKS)), min_size=1, max_size=3)):
        value = BLOCKS[kind](layer, norm(layer, x))
        if layer.draw(st.integers(0, 4)) == 4:
            value = norm(layer, value)
        x = layer.b.binary("add", x, value) if layer.draw(st.integers(0, 4)) < 4 else value
    return x


def _mask(draw: st.DrawFn, b: Builder, positions: SSAValue) -> SSAValue:
    """Causal, or with a sliding window as well."""
    keys = b.reshape(b.add(graph.IotaOp([CTX], 0)), 1, 1, 1, CTX)
    rows = b.reshape(positions, BATCH, 1, SEQ, 1)
    seen = b.binary("le", keys, rows)
    if draw(st.integers(0, 3)) < 3:
        return seen
    window = draw(st.integers(1, 9))
    near = b.binary("gt", keys, b.binary("sub", rows, b.constant([window], [], i32)))
    return b.binary("and", seen, near)


def _tables(b: Builder, positions: SSAValue, shared: Shared) -> tuple[SSAValue, ...]:
    """Cosines and sines of the rotary embedding."""
    size = shared.rotated
    if not size:
        return ()
    wide = b.cast(b.reshape(positions, BATCH, SEQ, 1), f32)
    frequencies = b.constant([100.0 ** (-2 * i / size) for i in range(size // 2)], [size // 2], f32)
    angles = b.binary("mul", wide, frequencies)
    both = b.concat(angles, angles)
    return tuple(b.cast(b.unary(name, both), shared.element) for name in ("cos", "sin"))


def _layer_function(
    draw: st.DrawFn, weights: Weights, shared: Shared, kind: int, layers: list[int], extras: list[SSAValue]
) -> Operation:
    hidden = tensor_type([BATCH, SEQ, shared.hidden], shared.element)
    names = ("mask", "cos", "sin")
    arguments = [("hidden", hidden), *zip(names, (e.type for e in extras), strict=False)]
    b = Builder(weights, arguments, shared.element, layers)
    b.module = "model.layers.{}"
    layer = Layer(draw, b, shared, b.block.args[1], tuple(b.block.args[2:]))
    return b.function(f"layer_kind{kind}", body(layer, b.block.args[0]), private=True)


def _head(draw: st.DrawFn, b: Builder, x: SSAValue, vocabulary: int, tied: str) -> SSAValue:
    b.module = "lm_head"
    rows = b.add(graph.SelectRowsOp(x))
    if draw(st.booleans()):
        table = b.add(graph.ParamOp(tied, b.weights.declared[tied].type))  # pyright: ignore
        logits = b.add(graph.LinearOp(rows, table, None))
    else:
        b.module = ""
        b.module = "head"
        logits = b.linear(rows, "lm_head", vocabulary, bias=draw(st.booleans()))
    if draw(st.booleans()):
        logits = b.binary("mul", logits, b.number(0.5))
    if draw(st.booleans()):
        capped = b.unary("tanh", b.binary("div", logits, b.number(8.0)))
        logits = b.binary("mul", capped, b.number(8.0))
    return logits


@st.composite
def models(draw: st.DrawFn, most: int = 4) -> ModuleOp:
    """A module of phase `import` with at most so many layers."""
    shared = Shared(
        draw(st.sampled_from(WIDTHS)),
        draw(st.sampled_from((f32, bf16))),
        draw(st.sampled_from([n for n in (0, *HEAD_SIZES) if n % 2 == 0])),
    )
    vocabulary = draw(st.sampled_from(VOCABULARIES))
    weights = Weights()
    index = tensor_type([BATCH, SEQ], i32)
    b = Builder(weights, [("tokens", index), ("positions", index)], shared.element)
    tokens, positions = b.block.args
    b.module = "model.embed_tokens"
    table = b.param("weight", vocabulary, shared.hidden)
    x = b.add(graph.EmbeddingOp(table, tokens))
    b.module = "model.embed_positions"
    if draw(st.booleans()):
        places = b.add(graph.EmbeddingOp(b.param("weight", CONTEXT, shared.hidden), positions))
        x = b.binary("add", x, places)
    b.module = "model"
    extras = [_mask(draw, b, positions), *_tables(b, positions, shared)]
    kinds = draw(st.lists(st.integers(0, 1), max_size=most))
    functions = [
        _layer_function(draw, weights, shared, k, [i for i, own in enumerate(kinds) if own == k], extras)
        for k in dict.fromkeys(kinds)
    ]
    for first, run in _runs(kinds):
        layers = list(range(first, first + run))
        b.module = "model.layers.{}"
        x = b.add(graph.LayersOp(f"layer_kind{kinds[first]}", layers, [x], extras))
    b.module = "model"
    main = Layer(draw, b, shared, extras[0], tuple(extras[1:]))
    x = norm(main, x)
    logits = _head(draw, b, x, vocabulary, "model.embed_tokens.weight")
    module = ModuleOp([*weights.declared.values(), *functions, b.function("main", logits)])
    module.attributes |= {
        "npuc.model_type": StringAttr("random"),
        "npuc.dtype": StringAttr("float32" if shared.element == f32 else "bfloat16"),
        "npuc.vocab_size": IntegerAttr(vocabulary, i64),
        "npuc.max_context": IntegerAttr(CONTEXT, i64),
    }
    finish_phase(module, "import")
    return module


def _runs(kinds: list[int]) -> list[tuple[int, int]]:
    """First layer and length of each run of layers of one kind."""
    found: list[tuple[int, int]] = []
    for number, kind in enumerate(kinds):
        if number and kinds[number - 1] == kind:
            found[-1] = found[-1][0], found[-1][1] + 1
        else:
            found.append((number, 1))
    return found
