"""What a specialized module holds: a module per bucket, and each bucket its sizes."""

from __future__ import annotations

from typing import NamedTuple

from npuc.ir.tile import integer
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp


class Sizes(NamedTuple):
    """What a bucket's program is made for."""

    batch: int
    new_tokens: int
    length: int


def buckets_of(module: ModuleOp) -> list[ModuleOp]:
    """The nested modules, one per bucket; none before `specialize`."""
    return [op for op in module.body.block.ops if isinstance(op, ModuleOp)]


def sizes_of(bucket: ModuleOp) -> Sizes:
    """Batch, new tokens and attention length of a bucket."""
    sizes = bucket.attributes["npuc.bucket"]
    assert isinstance(sizes, DictionaryAttr)
    return Sizes(*(integer(sizes.data[name]) for name in Sizes._fields))
