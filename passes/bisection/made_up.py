"""A checkpoint made up for a module: whatever it reads is there, with values that their place decides.

Faults of a compiler show with any weights; so an artifact can be searched without the checkpoint that it was
compiled from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import torch
from npuc.frontends.safetensors import DTYPES
from npuc.ir import graph
from npuc.ir.errors import UserError
from torch import Tensor
from xdsl.dialects.builtin import DictionaryAttr, ModuleOp


def make_up(module: ModuleOp, folder: Path) -> None:
    """Writes the byte ranges that the weights of a module are read from.

    Raises:
        UserError: ``no-weights``, ``bad-source``: the module does not say where.
    """
    for op in module.ops:
        if isinstance(op, graph.WeightOp):
            for source in op.sources.data:
                for entries in _ranges(source):
                    _write(entries, folder, op.sym_name.data)


def _ranges(source: DictionaryAttr) -> Iterator[dict[str, Any]]:
    entries: Any = source.data
    if "file" in entries:
        yield entries
    for part in (*(entries["sources"].data if "sources" in entries else ()), entries.get("source")):
        if part is not None:
            yield from _ranges(part)


def _write(entries: dict[str, Any], folder: Path, name: str) -> None:
    file, offset = entries["file"].data, entries["offset"].value.data
    if not file:
        message = "it was imported without weights, so nothing says where they would be"
        raise UserError("no-weights", message, where=name, remedy="compile without --no-weights")
    if Path(file).name != file:
        raise UserError("bad-source", f"the source file {file!r} is not in the checkpoint's directory")
    values = _values(f"{file} {offset}", graph.ints(entries["shape"]), DTYPES[entries["dtype"].data][1])
    path = folder / file
    with path.open("r+b" if path.exists() else "w+b") as out:
        out.seek(offset)
        out.write(values.contiguous().flatten().view(torch.uint8).numpy().tobytes())


def _values(place: str, shape: tuple[int, ...], dtype: torch.dtype | None) -> Tensor:
    """Rows about as long as 1; numbers, such as scales, a little below 1; integers of all sizes."""
    seed = int.from_bytes(hashlib.sha256(place.encode()).digest()[:4], "little")
    generator = torch.Generator().manual_seed(seed)
    if dtype is not None and not dtype.is_floating_point:
        limits = torch.iinfo(dtype) if dtype != torch.bool else torch.iinfo(torch.uint8)
        low, high = max(limits.min, -127), min(limits.max, 127)
        return torch.randint(low, high + 1, shape, generator=generator).to(dtype)
    if prod(shape) == 1:
        return (0.5 + torch.rand(shape, generator=generator) / 2).to(dtype or torch.uint8)
    return (torch.randn(shape, generator=generator) * shape[-1] ** -0.5).to(dtype or torch.uint8)
