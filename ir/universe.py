"""Registration of dialects and passes with xDSL: lazy factories, nothing else.

One line each. A pass is found by its name: ``tile-matmul`` is class ``TileMatmulPass`` in
``passes/tile_matmul.py``; a dialect ``graph`` is ``GRAPH`` in ``ir/graph.py``.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe

T = TypeVar("T")

DIALECTS = ("dist", "graph", "npu", "nquant", "tile")

PASSES = (
    "allocate-buffers",
    "assign-layouts",
    "assign-shardings",
    "fold-constants",
    "hoist-repeats",
    "inline-calls",
    "insert-sync",
    "join-parameters",
    "lower-nquant",
    "lower-to-npu",
    "lower-to-tile",
    "multi-buffer",
    "order-commands",
    "outline-rows",
    "pack-weights",
    "pad-shards",
    "partition",
    "place-caches",
    "quantize-weights",
    "raise-gated",
    "raise-rms-norm",
    "raise-rope",
    "scatter-rows",
    "select-commands",
    "specialize",
    "split-linears",
    "split-rows",
    "spread-rows",
    "stagger-rows",
    "verify-legality",
)


def load_dialect(name: str) -> Dialect:
    """The dialect of this name."""
    return getattr(importlib.import_module(f"npuc.ir.{name}"), name.upper())


def class_name(name: str) -> str:
    """The class of a pass: ``tile-matmul`` → ``TileMatmulPass``."""
    return "".join(part.capitalize() for part in name.split("-")) + "Pass"


def load_pass(name: str) -> type[ModulePass]:
    """The pass of this name."""
    module = importlib.import_module(f"npuc.passes.{name.replace('-', '_')}")
    return getattr(module, class_name(name))


def _factories(names: tuple[str, ...], load: Callable[[str], T]) -> dict[str, Callable[[], T]]:
    return {name: partial(load, name) for name in names}


NPUC_UNIVERSE = Universe(
    all_dialects=_factories(DIALECTS, load_dialect), all_passes=_factories(PASSES, load_pass)
)
