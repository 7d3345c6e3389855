"""Makes what ranks will share divisible among them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from npuc.ir import graph
from npuc.ir.graph_types import int_array
from npuc.passes.algorithms.shares import EMPTY, deal, deal_groups
from npuc.passes.resizing import resize, update_signatures
from npuc.passes.shardings import Cut, cuts, sizes
from npuc.passes.weight_variants import WeightVariants, Wrap, step
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

DEALT_ATTRIBUTE = "dealt"
"""Of a cache: which of the model's heads its heads are, −1 for none."""


@dataclass(frozen=True)
class PadShardsPass(ModulePass):
    """Pads heads, features and vocabulary with zeros to equal shares; the module computes what it did.

    Where there are more ranks than heads of keys, those are repeated, and the queries' heads follow theirs.
    """

    name = "pad-shards"
    tensor_parallel: int

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        padder = _Padder(op, self.tensor_parallel)
        for cut in cuts(op):
            padder.deal(cut)
        padder.rewrite()


@dataclass
class _Padder:
    module: ModuleOp
    ranks: int
    dealt: dict[int, tuple[int, ...]] = field(default_factory=dict[int, tuple[int, ...]])
    shapes: dict[SSAValue, list[int]] = field(default_factory=dict[SSAValue, list[int]])
    wraps: dict[graph.ParamOp, dict[str, Wrap]] = field(default_factory=dict[graph.ParamOp, dict[str, Wrap]])

    def deal(self, cut: Cut) -> None:
        """Notes what becomes of a class; that of queries decides over that of their keys."""
        if cut.keys is None:
            blocks = self.dealt.get(id(cut)) or deal(cut.blocks, self.ranks)
        else:
            blocks, keys = deal_groups(cut.blocks, cut.keys.blocks, self.ranks)
            self.dealt[id(cut.keys)] = keys
        if blocks == tuple(range(cut.blocks)):
            return
        for value, dim in cut.dims:
            unit = sizes(value)[dim] // cut.blocks
            self.shapes.setdefault(value, list(sizes(value)))[dim] = unit * len(blocks)
            if isinstance(value.owner, graph.ParamOp):
                text = f"{dim}: {unit} x {blocks}"
                self.wraps.setdefault(value.owner, {})[text] = _wrap(dim, unit, blocks, sizes(value)[dim])
        for op in self.module.body.block.ops:
            if isinstance(op, graph.CacheDeclOp) and op.sym_name.data in cut.caches:
                unit = op.heads.value.data // cut.blocks
                heads = [b * unit + n if b != EMPTY else EMPTY for b in blocks for n in range(unit)]
                op.attributes["heads"] = IntegerAttr(len(heads), 64)
                op.attributes[DEALT_ATTRIBUTE] = int_array(heads)

    def rewrite(self) -> None:
        """Changes weights and shapes as noted."""
        variants = WeightVariants(self.module)
        for param, wraps in self.wraps.items():
            variants.change(param, wraps, self.shapes[param.result])
        variants.finish()
        resize(self.shapes)
        update_signatures(self.module)


def _wrap(dim: int, unit: int, blocks: Sequence[int], size: int) -> Wrap:
    """The recipe step that takes blocks of a dimension, or pads it where they are as they were."""
    whole = size // unit
    if tuple(blocks[:whole]) == tuple(range(whole)) and {*blocks[whole:]} <= {EMPTY}:
        return lambda source: step("pad", source, dim=dim, size=unit * len(blocks))
    return lambda source: step("take", source, dim=dim, unit=unit, blocks=blocks)
