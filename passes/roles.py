"""What the functions of a specialized program are for. Their names say it: `specialize` gives them."""

from __future__ import annotations

from xdsl.dialects.func import FuncOp

BODY = "body"
"""Tokens to hidden states; it runs the layers."""
HEADS = {"all": "head_all", "last": "head_last"}
"""Hidden states to logits, of all rows or of the last one, by the entry that calls it."""


def is_head(function: FuncOp) -> bool:
    """Whether a function makes logits."""
    return function.sym_name.data in HEADS.values()


def is_layer(function: FuncOp) -> bool:
    """Whether a function, no entry, is the body of layers."""
    return function.sym_name.data != BODY and not is_head(function)
