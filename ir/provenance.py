"""Choosing operations by where they come from: a function, a program, or a module of the checkpoint."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

_INDEX = re.compile(r"(?<=\.)\d+(?=\.|$)")


def matches_path(pattern: str, path: str) -> bool:
    """Whether a module path is what a glob means: that module, or one inside of it.

    The number of a layer stands for all layers of its kind, whose code is the same:
    ``model.layers.3.mlp`` means ``model.layers.{}.mlp`` and ``model.layers.{}.mlp.up_proj``.
    """
    general = _INDEX.sub("{}", pattern)
    return any(fnmatchcase(path, p) or fnmatchcase(path, f"{p}.*") for p in (pattern, general))


def matches_symbol(pattern: str, symbol: str) -> bool:
    """Whether a symbol is what a glob means, with or without ``@``."""
    return fnmatchcase(symbol, pattern.removeprefix("@"))
