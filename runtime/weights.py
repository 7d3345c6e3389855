"""Weight files of an artifact: safetensors, written and read in pieces.

Tensors lie in the file in the order of the plan, without gaps. The CRC-32 of each is in the manifest, not in
the header: so a file is made from front to back, and its SHA-256 with it.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import torch
from npuc.ir.errors import UserError
from npuc.runtime.element_types import BY_SAFETENSORS_NAME, ElementType, element_type
from npuc.runtime.json_schema import parse_json

MAX_HEADER_BYTES = 100_000_000
PIECE_BYTES = 16 << 20
CRC_DIGITS = 8

Pieces = Iterable[torch.Tensor | bytes]


class TensorPlan(NamedTuple):
    """A tensor to be written: its name, IR element type and shape."""

    name: str
    type: str
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * element_type(self.type).bytes


def raw_bytes(tensor: torch.Tensor) -> memoryview:
    """The row-major bytes of a tensor, without a copy where it is contiguous."""
    return memoryview(cast("Any", tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))


def _header(plan: Sequence[TensorPlan]) -> bytes:
    """The length field and header."""
    entries: dict[str, Any] = {"__metadata__": {"format": "npuc"}}
    start = 0
    for tensor in plan:
        stop = start + tensor.bytes
        name = element_type(tensor.type).safetensors_name
        entries[tensor.name] = {"dtype": name, "shape": list(tensor.shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


class WeightWriter:
    """Writes one weight file in pieces; resumes a file that was interrupted.

    Tensors may be written in any order. What is finished is noted in ``PATH.journal``, so that a writer
    opened again with the same path and plan skips it: :meth:`write` then does not ask for its pieces.

    Args:
        path: the final path; until :meth:`close` the data is in ``PATH.partial``.
        plan: all tensors, in file order.
        recipe: what decides their values, beside the plan; a file of another recipe is not resumed.

    Attributes:
        checksums: CRC-32 of each tensor that is in the file.
        sha256: of the whole file, once it is closed.
    """

    def __init__(self, path: Path, plan: Sequence[TensorPlan], recipe: str = "") -> None:
        self.path = path
        self._plan = {tensor.name: tensor for tensor in plan}
        if len(self._plan) != len(plan):
            raise ValueError("two tensors of a weight file have the same name")
        self._header = _header(plan)
        self._offsets = dict(zip(self._plan, _starts(plan, len(self._header)), strict=True))
        self._partial = path.with_name(path.name + ".partial")
        self._journal = path.with_name(path.name + ".journal")
        self._identity = hashlib.sha256(self._header + recipe.encode()).hexdigest()
        self.checksums = self._resumed()
        self.sha256 = ""
        self._file = self._open(len(self._header) + sum(t.bytes for t in plan))
        self._hash, self._hashed = hashlib.sha256(self._header), len(self._header)

    def _resumed(self) -> dict[str, int]:
        """CRCs of the tensors that an interrupted writer of the same plan finished."""
        if not (self._partial.exists() and self._journal.exists()):
            return {}
        lines = self._journal.read_text().split("\n")[:-1]
        if not lines or lines[0] != self._identity:
            return {}
        done = (line.rpartition(" ") for line in lines[1:])
        return {name: int(crc, 16) for name, _, crc in done if name in self._plan and len(crc) == CRC_DIGITS}

    def _open(self, size: int) -> BinaryIO:
        if not self.checksums:
            self._partial.write_bytes(self._header)
            self._journal.write_text(self._identity + "\n")
        file = self._partial.open("r+b")
        file.truncate(size)
        return file

    def done(self, name: str) -> bool:
        """Whether the tensor is already in the file."""
        return name in self.checksums

    def write(self, name: str, pieces: Pieces | Callable[[], Pieces]) -> None:
        """Writes one tensor.

        Args:
            name: a name of the plan.
            pieces: tensors of the planned type, or bytes, whose concatenation is the tensor, row-major; or a
                function that makes them, which is not called when the tensor is already in the file.

        Raises:
            ValueError: when the pieces have another type or size than planned.
        """
        if self.done(name):
            return
        tensor, crc, position = self._plan[name], 0, 0
        self._hash_finished()
        running = self._hash.copy() if self._hashed == self._offsets[name] else None
        self._file.seek(self._offsets[name])
        for piece in pieces() if callable(pieces) else pieces:
            data = _checked_bytes(piece, tensor)
            position += len(data)
            if position > tensor.bytes:
                break
            crc = zlib.crc32(data, crc)
            self._file.write(data)
            if running is not None:
                running.update(data)
        if position != tensor.bytes:
            raise ValueError(f"{name}: {position} bytes or more were given, {tensor.bytes} planned")
        if running is not None:
            self._hash, self._hashed = running, self._hashed + position
        self._finished(name, crc)

    def _finished(self, name: str, crc: int) -> None:
        self._file.flush()
        self.checksums[name] = crc
        with self._journal.open("a") as journal:
            journal.write(f"{name} {crc:0{CRC_DIGITS}x}\n")

    def _hash_finished(self) -> None:
        """Goes on with the SHA-256 up to the first tensor that is missing; reads what another writer left."""
        for name, start in self._offsets.items():
            if not self.done(name):
                return
            stop = start + self._plan[name].bytes
            if self._hashed < stop:
                self._file.seek(self._hashed)
            while self._hashed < stop and (data := self._file.read(min(PIECE_BYTES, stop - self._hashed))):
                self._hash.update(data)
                self._hashed += len(data)

    def close(self) -> str:
        """Completes the file and moves it to its path.

        Returns:
            The SHA-256 of its length field and header.

        Raises:
            ValueError: when a planned tensor was not written.
        """
        missing = [name for name in self._plan if not self.done(name)]
        if missing:
            raise ValueError(f"weights were not written: {', '.join(missing[:5])}")
        self._hash_finished()
        self.sha256 = self._hash.hexdigest()
        os.fsync(self._file.fileno())
        self._file.close()
        self._partial.rename(self.path)
        self._journal.unlink()
        return hashlib.sha256(self._header).hexdigest()

    def abandon(self) -> None:
        """Closes the unfinished file; another writer may go on with it."""
        self._file.close()


def _starts(plan: Sequence[TensorPlan], start: int) -> Iterator[int]:
    for tensor in plan:
        yield start
        start += tensor.bytes


def _checked_bytes(piece: torch.Tensor | bytes, tensor: TensorPlan) -> memoryview:
    if isinstance(piece, bytes):
        return memoryview(piece)
    if piece.dtype != element_type(tensor.type).torch_type:
        raise ValueError(f"{tensor.name}: a piece of type {piece.dtype}, {tensor.type} planned")
    return raw_bytes(piece)


class StoredTensor(NamedTuple):
    """A tensor in a weight file; ``offset`` counts from the start of the file."""

    name: str
    type: ElementType
    shape: tuple[int, ...]
    offset: int
    bytes: int


def header_sha256(path: Path) -> str:
    """The SHA-256 of a weight file's length field and header."""
    return hashlib.sha256(_read_header(path)).hexdigest()


def _damaged(path: Path, message: str) -> UserError:
    return UserError("damaged-weights", message, where=str(path), remedy="copy or compile the artifact again")


def _read_header(path: Path) -> bytes:
    with path.open("rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(MAX_HEADER_BYTES, path.stat().st_size - 8):
            raise _damaged(path, f"the header's length field says {length} bytes")
        return start + file.read(length)


class WeightFile:
    """Reads a weight file, in bounded pieces.

    Args:
        path: the file.
        expected_header: SHA-256 of its length field and header.
        checksums: CRC-32 of each tensor.

    Raises:
        UserError: ``damaged-weights`` when the header differs or does not describe the file.
    """

    def __init__(self, path: Path, expected_header: str, checksums: Mapping[str, int]) -> None:
        self.path = path
        self._checksums = checksums
        header = _read_header(path)
        if hashlib.sha256(header).hexdigest() != expected_header:
            raise _damaged(path, "the header is not the one that the manifest names")
        entries = parse_json(header[8:], str(path))
        try:
            self.tensors = {t.name: t for t in _stored_tensors(entries, len(header))}
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _damaged(path, f"the header is not that of a weight file: {error!r}") from error
        end = max((t.offset + t.bytes for t in self.tensors.values()), default=len(header))
        if end != path.stat().st_size:
            raise _damaged(path, f"the file has {path.stat().st_size} bytes, its header describes {end}")

    def pieces(self, name: str, piece_bytes: int = PIECE_BYTES) -> Iterator[torch.Tensor]:
        """The bytes of a tensor as uint8 tensors of at most ``piece_bytes``.

        Raises:
            UserError: ``damaged-weights`` after the last piece, when the CRC differs: use the data only then.
        """
        tensor, crc = self.tensors[name], 0
        with self.path.open("rb") as file:
            file.seek(tensor.offset)
            for start in range(0, tensor.bytes, piece_bytes):
                data = bytearray(file.read(min(piece_bytes, tensor.bytes - start)))
                crc = zlib.crc32(data, crc)
                if data:
                    yield torch.frombuffer(data, dtype=torch.uint8)
        if crc != (expected := self._checksums[name]):
            raise _damaged(self.path, f"{name}: the CRC-32 is {crc:08x}, the manifest says {expected:08x}")

    def read(self, name: str) -> torch.Tensor:
        """A whole tensor.

        Raises:
            UserError: ``damaged-weights`` when its CRC differs.
        """
        tensor = self.tensors[name]
        data = torch.cat([torch.empty(0, dtype=torch.uint8), *self.pieces(name)])
        return data.view(tensor.type.torch_type).reshape(tensor.shape)


def _stored_tensors(entries: dict[str, Any], header_bytes: int) -> Iterator[StoredTensor]:
    """The tensors that a header describes, which must lie one after the other.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: when they do not.
    """
    position = 0
    for name, entry in entries.items():
        if name == "__metadata__":
            continue
        start, stop = (int(v) for v in entry["data_offsets"])
        shape = tuple(int(n) for n in entry["shape"])
        kind = BY_SAFETENSORS_NAME[entry["dtype"]]
        if start != position or min(shape, default=0) < 0 or stop - start != math.prod(shape) * kind.bytes:
            raise ValueError(f"{name} has shape {list(shape)} and bytes {start} to {stop}")
        position = stop
        yield StoredTensor(name, kind, shape, header_bytes + start, stop - start)
