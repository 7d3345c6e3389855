"""Canonical forms of `graph` operations: what does nothing goes, shape operations compose, rows are few."""

from __future__ import annotations

from math import prod

from npuc.ir.graph_elementwise import BINARY, BinaryOp, CastOp
from npuc.ir.graph_model import LayerNormOp, RmsNormOp, SelectRowsOp
from npuc.ir.graph_shape import BroadcastOp, ConcatOp, ConstantOp, PadOp, ReshapeOp, SliceOp, TransposeOp
from npuc.ir.graph_types import DimsAttr, element_of, ints, shape_of
from xdsl.dialects.builtin import (
    AnyFloat,
    IntegerType,
    NoneAttr,
    TensorType,
    bf16,
    f16,
    f32,
    i1,
    i8,
    i32,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.pattern_rewriter import PatternRewriter, RewritePattern, op_type_rewrite_pattern
from xdsl.rewriter import Rewriter

# Conversions that keep every value: whatever follows them may start from the narrow type.
EXACT: dict[Attribute, tuple[Attribute, ...]] = {
    i1: (i8, i32, f16, bf16, f32),
    i8: (i32, f16, f32),
    bf16: (f32,),
    f16: (f32,),
}


def _replace(rewriter: PatternRewriter, old: Operation, new: Operation) -> None:
    """Replaces an operation, keeping its module path and location."""
    new.location = old.location
    if "module" in old.attributes:
        new.attributes["module"] = old.attributes["module"]
    rewriter.replace(old, new)


def _unplaced(value: SSAValue) -> bool:
    """Whether a tensor has no placement yet: what composes logically need not where the slices matter."""
    return isinstance(value.type, TensorType) and isinstance(value.type.encoding, NoneAttr | DimsAttr)


class DropIdentity(RewritePattern):
    """x cast, reshaped, broadcast, sliced, padded, concatenated or transposed to itself → x."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if len(op.operands) != 1 or op.operands[0].type != op.results[0].type:
            return
        if isinstance(op, TransposeOp) and list(ints(op.perm)) != sorted(ints(op.perm)):
            return
        rewriter.replace(op, [], [op.operands[0]])


class CastOfCast(RewritePattern):
    """cast(cast(x)) → cast(x), where the inner one loses nothing."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: CastOp, rewriter: PatternRewriter, /) -> None:
        inner = op.input.owner
        if not isinstance(inner, CastOp):
            return
        if element_of(inner.result) in EXACT.get(element_of(inner.input), ()):
            new = CastOp.create(operands=[inner.input], result_types=op.result_types)
            _replace(rewriter, op, new)


class ReshapeOfReshape(RewritePattern):
    """reshape(reshape(x)) → reshape(x)."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: ReshapeOp, rewriter: PatternRewriter, /) -> None:
        inner = op.input.owner
        if isinstance(inner, ReshapeOp) and _unplaced(op.input):
            _replace(rewriter, op, ReshapeOp(inner.input, shape_of(op.result)))


class BroadcastOfBroadcast(RewritePattern):
    """broadcast(broadcast(x)) → broadcast(x)."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: BroadcastOp, rewriter: PatternRewriter, /) -> None:
        inner = op.input.owner
        if isinstance(inner, BroadcastOp) and _unplaced(op.input):
            _replace(rewriter, op, BroadcastOp(inner.input, shape_of(op.result)))


class TransposeOfTranspose(RewritePattern):
    """transpose(transpose(x)) → transpose(x) with the permutations composed."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: TransposeOp, rewriter: PatternRewriter, /) -> None:
        inner = op.input.owner
        if isinstance(inner, TransposeOp) and _unplaced(op.input):
            first = ints(inner.perm)
            _replace(rewriter, op, TransposeOp(inner.input, [first[p] for p in ints(op.perm)]))


# Mnemonic → the constant that changes nothing on the right, and whether it may stand on the left too.
# A float has no neutral +0.0 in addition (−0.0 + 0.0 is +0.0): −0.0 is the one.
NEUTRAL: dict[str, tuple[float, bool]] = {
    "add": (-0.0, True),
    "sub": (0.0, False),
    "mul": (1.0, True),
    "div": (1.0, False),
    "pow": (1.0, False),
    "floordiv": (1.0, False),
}


class DropNeutral(RewritePattern):
    """x + (−0), x − 0, x · 1, x / 1, x¹ → x; integers are added to 0."""

    def match_and_rewrite(self, op: Operation, rewriter: PatternRewriter, /) -> None:
        if not isinstance(op, BinaryOp):
            return
        neutral, commutes = NEUTRAL[op.name.removeprefix("graph.")]
        if op.name == BINARY["floordiv"].name and not isinstance(element_of(op.lhs), IntegerType):
            return
        for value, constant in ((op.lhs, op.rhs), *([(op.rhs, op.lhs)] if commutes else [])):
            if value.type == op.result.type and _is_constant(constant, neutral):
                rewriter.replace(op, [], [value])
                return


def _is_constant(value: SSAValue, wanted: float) -> bool:
    """Whether a value is one number, the wanted one; the sign of a float's zero counts."""
    owner = value.owner
    if not isinstance(owner, ConstantOp) or prod(owner.value.type.get_shape()) != 1:
        return False
    found = next(iter(owner.value.get_values()))
    if isinstance(element_of(value), AnyFloat):
        return str(found) == str(wanted)
    return found == wanted


class SelectRowsOfNorm(RewritePattern):
    """select_rows(norm(x)) → norm(select_rows(x)): rows that nobody wants are not normalized."""

    @op_type_rewrite_pattern
    def match_and_rewrite(self, op: SelectRowsOp, rewriter: PatternRewriter, /) -> None:
        norm = op.input.owner
        if not isinstance(norm, RmsNormOp | LayerNormOp) or not op.input.has_one_use():
            return
        if not _unplaced(op.result):
            return
        selected = SelectRowsOp.create(
            operands=[norm.input], result_types=op.result_types, attributes=op.attributes
        )
        selected.location, selected.result.name_hint = op.location, op.result.name_hint
        moved = norm.clone({norm.input: selected.result})
        moved.results[0].name_hint = norm.results[0].name_hint
        Rewriter.replace_value_with_new_type(moved.results[0], op.result.type)
        rewriter.replace(op, [selected, moved])
        rewriter.erase(norm)


PATTERNS: dict[str, tuple[RewritePattern, ...]] = {
    CastOp.name: (DropIdentity(), CastOfCast()),
    ReshapeOp.name: (DropIdentity(), ReshapeOfReshape()),
    BroadcastOp.name: (DropIdentity(), BroadcastOfBroadcast()),
    TransposeOp.name: (DropIdentity(), TransposeOfTranspose()),
    SliceOp.name: (DropIdentity(),),
    PadOp.name: (DropIdentity(),),
    ConcatOp.name: (DropIdentity(),),
    SelectRowsOp.name: (SelectRowsOfNorm(),),
    **{f"graph.{mnemonic}": (DropNeutral(),) for mnemonic in NEUTRAL},
}
