"""Reader of safetensors files: headers validated completely before any byte of data is touched.

Format: https://github.com/huggingface/safetensors (8 bytes little-endian header length, a JSON
object name → {dtype, shape, data_offsets}, then the data without holes).
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from npuc.ir.errors import UserError
from torch import Tensor

MAX_HEADER = 100_000_000  # bytes, as in the reference implementation
MAX_RANK = 16
INDEX_NAME = "model.safetensors.index.json"
_CHUNK = 1 << 26

# Bits per element and the torch type that views the bytes; None where torch has no such type.
DTYPES: dict[str, tuple[int, torch.dtype | None]] = {
    "BOOL": (8, torch.bool), "U8": (8, torch.uint8), "I8": (8, torch.int8),
    "F8_E4M3": (8, torch.float8_e4m3fn), "F8_E5M2": (8, torch.float8_e5m2),
    "F8_E8M0": (8, torch.float8_e8m0fnu), "F8_E4M3FNUZ": (8, torch.float8_e4m3fnuz),
    "F8_E5M2FNUZ": (8, torch.float8_e5m2fnuz), "F4": (4, None), "F6_E2M3": (6, None), "F6_E3M2": (6, None),
    "U16": (16, torch.uint16), "I16": (16, torch.int16), "F16": (16, torch.float16),
    "BF16": (16, torch.bfloat16), "U32": (32, torch.uint32), "I32": (32, torch.int32),
    "F32": (32, torch.float32), "C64": (64, torch.complex64),
    "U64": (64, torch.uint64), "I64": (64, torch.int64), "F64": (64, torch.float64),
}  # fmt: skip


@dataclass(frozen=True)
class TensorSource:
    """Where the bytes of one tensor are.

    Attributes:
        file: path relative to the checkpoint's directory.
        offset: first byte in the file; ``bytes`` follow.
        dtype: type name of the format, e.g. ``BF16``.
    """

    file: str
    offset: int
    bytes: int
    dtype: str
    shape: tuple[int, ...]


def _fail(
    path: Path, field: str, kind: str, message: str, remedy: str = "download the file again"
) -> UserError:
    return UserError(kind, message, where=f"{path}: {field}" if field else str(path), remedy=remedy)


def _unique(path: Path, field: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these pairs; a key that occurs twice is an error."""
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise _fail(path, field, "duplicate-key", f"the key {key!r} occurs twice")
        result[key] = value
    return result


def _parse_json(path: Path, field: str, text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text.decode(), object_pairs_hook=lambda pairs: _unique(path, field, pairs))
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _fail(path, field, "bad-json", f"not valid JSON: {type(error).__name__}: {error}") from error
    if not isinstance(value, dict):
        raise _fail(path, field, "bad-json", f"expected a JSON object, got {type(value).__name__}")
    return value


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header's object, the offset of the data and its length."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(8)
            if len(prefix) < 8:
                raise _fail(path, "", "truncated-file", f"has {size} bytes, expected at least 8")
            (length,) = struct.unpack("<Q", prefix)
            if length > MAX_HEADER:
                message = f"the header length is {length} bytes, the limit is {MAX_HEADER}"
                raise _fail(path, "header", "bad-header", message)
            if 8 + length > size:
                message = f"the header length is {length} bytes, the file has {size}"
                raise _fail(path, "header", "truncated-file", message)
            text = file.read(length)
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise _fail(path, "", "missing-file", message, "check the path") from error
    return _parse_json(path, "header", text), 8 + length, size - 8 - length


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _parse_entry(path: Path, name: str, entry: Any, data: int, room: int) -> TensorSource:
    """One tensor of the header, its range inside ``room`` bytes of data that start at ``data``."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _fail(path, name, "bad-header", "expected exactly dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _fail(
            path, name, "unknown-dtype", f"unknown dtype {dtype!r}", "convert the tensor to a known type"
        )
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_natural(d) for d in shape):
        raise _fail(path, name, "bad-header", f"the shape {str(shape)[:80]} is not a list of sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_natural(o) for o in offsets):
        raise _fail(path, name, "bad-header", f"data_offsets {str(offsets)[:80]} are not two offsets")
    start, stop = offsets
    if start > stop or stop > room:
        message = f"bytes {start} … {stop} lie outside the data, which has {room}"
        raise _fail(path, name, "truncated-file", message)
    bits = prod(shape) * DTYPES[dtype][0]
    if bits % 8 or bits // 8 != stop - start:
        message = f"has {stop - start} bytes, but {dtype}{shape} needs {bits / 8:g}"
        raise _fail(path, name, "size-mismatch", message)
    return TensorSource(path.name, data + start, stop - start, dtype, tuple(shape))


def read_file(path: Path) -> dict[str, TensorSource]:
    """The tensors of one file by name, ``file`` being the file's own name.

    Raises:
        UserError: when the file is missing, truncated, or its header is not valid.
    """
    header, data, room = _read_header(path)
    header.pop("__metadata__", None)
    found = {name: _parse_entry(path, name, entry, data, room) for name, entry in header.items()}
    end = data
    for name, source in sorted(found.items(), key=lambda item: (item[1].offset, item[1].bytes)):
        if source.offset != end:
            what = "overlaps the tensor before it" if source.offset < end else "leaves a hole before it"
            raise _fail(
                path, name, "bad-header", f"starts at byte {source.offset} and {what}, expected {end}"
            )
        end += source.bytes
    if end != data + room:
        raise _fail(path, "", "bad-header", f"{data + room - end} bytes at the end belong to no tensor")
    return found


def _shard_path(root: Path, index: Path, tensor: str, name: Any) -> Path:
    """The path of a shard, which must lie in the checkpoint's directory."""
    if (
        not isinstance(name, str)
        or not name
        or name != Path(name).name
        or name in (".", "..")
        or "\0" in name
    ):
        message = f"the shard {str(name)[:120]!r} is not a file name"
        raise _fail(index, f"weight_map: {tensor}", "bad-index", message, "shards lie beside the index")
    path = root / name
    if not _inside(root, path):
        message = f"the shard {name!r} is a link that leaves the directory"
        raise _fail(
            index, f"weight_map: {tensor}", "bad-index", message, "copy the file instead of linking it"
        )
    return path


def _inside(root: Path, path: Path) -> bool:
    """Whether a shard's real place is in the directory, or in the blob store of the same hub repository."""
    target, folder = path.resolve(), root.resolve()
    if target.parent == folder:
        return True
    is_snapshot = folder.parent.name == "snapshots"
    return is_snapshot and target.parent == folder.parent.parent / "blobs"


def read_checkpoint(root: Path) -> dict[str, TensorSource]:
    """The tensors of a directory: one ``model.safetensors``, or shards listed in an index.

    Raises:
        UserError: when files are missing, invalid, or contradict the index.
    """
    index = root / INDEX_NAME
    if not index.exists():
        single = root / "model.safetensors"
        if not single.exists():
            raise _fail(
                root, "", "missing-file", "has no model.safetensors", "save the model with safetensors"
            )
        if not _inside(root, single):
            message = "is a link that leaves the directory"
            raise _fail(single, "", "bad-index", message, "copy the file instead of linking it")
        return read_file(single)
    if index.stat().st_size > MAX_HEADER:
        raise _fail(index, "", "bad-index", f"has {index.stat().st_size} bytes, the limit is {MAX_HEADER}")
    mapping = _parse_json(index, "", index.read_bytes()).get("weight_map")
    if not isinstance(mapping, dict) or not mapping:
        raise _fail(index, "weight_map", "bad-index", "expected an object tensor name → file name")
    shards: dict[str, dict[str, TensorSource]] = {}
    found: dict[str, TensorSource] = {}
    for tensor, name in mapping.items():
        path = _shard_path(root, index, tensor, name)
        if name not in shards:
            shards[name] = read_file(path)
        if tensor not in shards[name]:
            raise _fail(index, f"weight_map: {tensor}", "bad-index", f"{name} does not hold this tensor")
        found[tensor] = shards[name][tensor]
    return found


def require(
    tensors: Mapping[str, TensorSource], name: str, shape: tuple[int, ...] | None, where: str
) -> TensorSource:
    """The tensor of this name, and of this shape where one is given.

    Raises:
        UserError: when it is missing or has another shape.
    """
    if name not in tensors:
        remedy = "the checkpoint is incomplete or of another model"
        raise UserError("missing-tensor", f"the tensor {name} is missing", where=where, remedy=remedy)
    source = tensors[name]
    if shape is not None and source.shape != shape:
        message = f"{name} has shape {list(source.shape)}, the model expects {list(shape)}"
        remedy = "config.json and the weights are of different models"
        raise UserError("shape-mismatch", message, where=f"{where}: {source.file}", remedy=remedy)
    return source


def read(root: Path, source: TensorSource) -> Tensor:
    """The tensor's values, in the file's type, read from its byte range alone.

    Raises:
        UserError: when the file became shorter, or torch has no such type.
    """
    dtype = DTYPES[source.dtype][1]
    path = root / source.file
    if dtype is None:
        raise _fail(path, "", "unknown-dtype", f"tensors of type {source.dtype} cannot be read as values")
    buffer = bytearray(source.bytes)
    view, done = memoryview(buffer), 0
    try:
        with path.open("rb", buffering=0) as file:
            while done < source.bytes:
                got = os.preadv(file.fileno(), [view[done : done + _CHUNK]], source.offset + done)
                if not got:
                    raise _fail(
                        path, "", "truncated-file", f"ends before byte {source.offset + source.bytes}"
                    )
                done += got
    except OSError as error:
        raise _fail(
            path, "", "missing-file", f"cannot be read: {error.strerror}", "check the path"
        ) from error
    if not buffer:
        return torch.empty(source.shape, dtype=dtype)
    return torch.frombuffer(buffer, dtype=torch.uint8).view(dtype).reshape(source.shape)


def read_rows(root: Path, source: TensorSource, start: int, stop: int) -> Tensor:
    """Rows ``start`` to ``stop`` (exclusive) along the first dimension, as `read`."""
    row = source.bytes // max(1, source.shape[0])
    shape = (stop - start, *source.shape[1:])
    part = TensorSource(source.file, source.offset + start * row, (stop - start) * row, source.dtype, shape)
    return read(root, part)
