"""Modules that were imported from a configuration alone: their programs can be timed, but not run."""

from __future__ import annotations

from typing import Any

from npuc.ir import graph
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp, StringAttr


def is_timing_only(module: ModuleOp) -> bool:
    """Whether a weight of the module has no file to be read from."""
    return any(
        isinstance(op, graph.WeightOp) and _without_file(op.sources.data[0]) for op in module.body.block.ops
    )


def _without_file(recipe: Any) -> bool:
    """Whether a recipe reads a byte range of a file without a name."""
    if not isinstance(recipe, DictionaryAttr):
        return False
    entries = recipe.data
    if "op" not in entries:
        return entries["file"] == StringAttr("")
    parts: Any = entries["sources"] if "sources" in entries else (entries.get("source"),)
    return any(_without_file(part) for part in parts)
