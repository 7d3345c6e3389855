"""Which operations and value types may occur after each phase, as data, and the check of a module.

A module carries the name of its phase in the attribute ``npuc.phase``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

from npuc.ir.graph import DimsAttr
from npuc.ir.tile_placements import GridAttr, HostAttr, ReplicatedAttr, SlicedAttr, SpreadAttr
from xdsl.dialects.builtin import (
    IndexType,
    MemRefType,
    ModuleOp,
    NoneAttr,
    StringAttr,
    TensorType,
    UnregisteredOp,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation
from xdsl.utils.exceptions import PassFailedException

PHASE_ATTRIBUTE = "npuc.phase"


@dataclass(frozen=True)
class Legality:
    """What may occur after a phase.

    Attributes:
        operations: patterns of operation names.
        values: kinds of values, as `value_kind` names them.
        excluded: patterns of names that ``operations`` matches but that may not occur.
    """

    operations: tuple[str, ...]
    values: tuple[str, ...]
    excluded: tuple[str, ...] = ()

    def allows(self, name: str) -> bool:
        """Whether an operation of this name may occur."""
        return _matches(name, self.operations) and not _matches(name, self.excluded)


_FUNCTIONS = ("builtin.module", "func.func", "func.return")
_DECLARATIONS = ("graph.weight", "tile.packed", "tile.cache_decl")
_PLACEMENT = ("graph.relayout",)

LEGALITY: dict[str, Legality] = {
    # Sizes may be symbolic until the buckets are known. Checkpoints may be quantized.
    "import": Legality((*_FUNCTIONS, "graph.*", "nquant.*"), ("tensor", "symbolic tensor"), _PLACEMENT),
    "optimize": Legality((*_FUNCTIONS, "graph.*", "nquant.*"), ("tensor", "symbolic tensor"), _PLACEMENT),
    # A compile quantizes what it was asked to.
    "quantize": Legality((*_FUNCTIONS, "graph.*", "nquant.*"), ("tensor", "symbolic tensor"), _PLACEMENT),
    # One static function per bucket, calling its body and head.
    "specialize": Legality((*_FUNCTIONS, "func.call", "graph.*", "nquant.*"), ("tensor",), _PLACEMENT),
    # What ranks exchange is explicit.
    "partition": Legality(
        (*_FUNCTIONS, "func.call", "graph.*", "nquant.*", "dist.*"), ("tensor",), _PLACEMENT
    ),
    # Every tensor has a placement; indices and tables have become weights.
    "layout": Legality(
        (*_FUNCTIONS, "func.call", "graph.*", "nquant.*", "dist.*", "tile.packed", "tile.cache_decl"),
        ("placed tensor",),
        ("graph.iota", "graph.cache_decl"),
    ),
    # Buffers only: nothing of the tensor level is left but the weights' sources.
    "tile": Legality((*_FUNCTIONS, "tile.*", "graph.weight"), ("buffer", "index")),
    "schedule": Legality(("builtin.module", "npu.*", *_DECLARATIONS), ()),
    "emit": Legality(("builtin.module", "npu.*", *_DECLARATIONS), ()),
}

PHASES = tuple(LEGALITY)


class Violation(NamedTuple):
    """Something that may not occur: where it came from in the checkpoint, and what it is."""

    module: str
    found: str


def value_kind(kind: Attribute) -> str:
    """How the tables call a type: ``buffer``, ``index``, or a tensor with the kind of its sizes."""
    if isinstance(kind, MemRefType):
        return "buffer"
    if isinstance(kind, IndexType):
        return "index"
    if not isinstance(kind, TensorType):
        return str(kind)
    if isinstance(kind.encoding, DimsAttr):
        return "symbolic tensor"
    if isinstance(kind.encoding, ReplicatedAttr | SlicedAttr | SpreadAttr | GridAttr | HostAttr):
        return "placed tensor"
    if kind.encoding != NoneAttr():
        return f"tensor encoded as {kind.encoding.name}"
    return "tensor"


def module_path(op: Operation) -> str:
    """The checkpoint module that an operation came from, or else the function that it stands in."""
    found: Operation | None = op
    while found is not None:
        module = found.attributes.get("module")
        if isinstance(module, StringAttr) and module.data:
            return module.data
        if isinstance(found, FuncOp):
            return f"@{found.sym_name.data}"
        found = found.parent_op()
    return "module"


def violations(module: ModuleOp, phase: str) -> Iterator[Violation]:
    """Everything in a module that may not occur after a phase."""
    legal = LEGALITY[phase]
    for op in module.walk():
        name = op.op_name.data if isinstance(op, UnregisteredOp) else op.name
        if not legal.allows(name):
            yield Violation(module_path(op), f"{name} may not occur")
            continue
        blocks = (block for region in op.regions for block in region.blocks)
        types = [*op.result_types, *(kind for block in blocks for kind in block.arg_types)]
        for kind in types:
            if value_kind(kind) not in legal.values:
                yield Violation(module_path(op), f"{name} has a value of type {kind}: {value_kind(kind)}")


def check_phase(module: ModuleOp, phase: str) -> None:
    """Check a module against the table of a phase.

    Raises:
        PassFailedException: listing all violations, each once with the number of times it occurs.
    """
    found = Counter(violations(module, phase))
    if not found:
        return
    lines = [f"  {v.module}: {v.found}" + (f" ({n} times)" if n > 1 else "") for v, n in found.items()]
    legal = LEGALITY[phase]
    allowed = f"operations {', '.join(legal.operations)}"
    allowed += f" without {', '.join(legal.excluded)}" if legal.excluded else ""
    allowed += f"; values {', '.join(legal.values) or 'none'}"
    raise PassFailedException("\n".join([f"illegal after phase {phase}, which allows {allowed}:", *lines]))


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
