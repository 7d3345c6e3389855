"""The manifest of an artifact: ``artifact.json`` as dataclasses, its checks and its embedded hash."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, cast

from npuc.ir.errors import UserError
from npuc.runtime.element_types import element_type
from npuc.runtime.json_schema import canonical_json, decode, encode, parse_json

FORMAT = 2
FILE_NAME = "artifact.json"
MAX_BYTES = 256 << 20
KINDS = ("prefill", "decode", "extend")
RANK_ALIGNMENT = 4096
REGIONS = ("weights", "cache", "io", "scratch")
_PATH = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9._+-]*(/[A-Za-z0-9_+-][A-Za-z0-9._+-]*){0,7}")


@dataclass(frozen=True)
class SourceWeights:
    """One weight file of the checkpoint; ``header_sha256`` covers a safetensors file's length and header."""

    file: str
    bytes: int
    header_sha256: str


@dataclass(frozen=True)
class Source:
    """What was compiled."""

    name: str
    architecture: str
    config_sha256: str
    weights: tuple[SourceWeights, ...]


@dataclass(frozen=True)
class Region:
    """A part of main memory, in bytes."""

    base: int
    bytes: int

    @property
    def end(self) -> int:
        """The first address after it."""
        return self.base + self.bytes


@dataclass(frozen=True)
class IoTensor:
    """A program's input or output in main memory, row-major."""

    address: int
    shape: tuple[int, ...]
    type: str

    @property
    def region(self) -> Region:
        """The bytes it takes."""
        return Region(self.address, math.prod(self.shape) * element_type(self.type).bytes)


@dataclass(frozen=True)
class Program:
    """One bucket: ``batch`` rows of up to ``new_tokens`` new tokens, attending to ``length`` positions."""

    name: str
    kind: str
    batch: int
    length: int
    new_tokens: int
    file: str
    entries: tuple[str, ...]
    io: dict[str, IoTensor]


@dataclass(frozen=True)
class Cache:
    """The caches of the layers of one kind: [layer][slot][key, then value] from ``address``."""

    name: str
    layers: tuple[int, ...]
    heads: int
    key_size: int
    value_size: int
    type: str
    address: int
    bytes: int


@dataclass(frozen=True)
class WeightPlacement:
    """Where a tensor of a weight file goes in main memory.

    With ``count`` > 1 the tensor's first dimension is the layer, and layers lie ``stride`` bytes apart.
    ``crc32`` is that of its bytes in the file.
    """

    name: str
    address: int
    count: int = 1
    stride: int = 0
    crc32: int = 0


@dataclass(frozen=True)
class RankWeights:
    """The weights of one rank; ``header_sha256`` covers the file's length field and header."""

    rank: int
    file: str
    header_sha256: str
    tensors: tuple[WeightPlacement, ...]


@dataclass(frozen=True)
class FileEntry:
    """One file of the artifact."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Parallel:
    """How many ranks share a layer, on how many chips; their memories lie `Manifest.rank_stride` apart."""

    tensor_parallel: int = 1
    chips: int = 1

    @property
    def ranks_per_chip(self) -> int:
        """Ranks of one chip."""
        return self.tensor_parallel // self.chips


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything the runtime needs to know; see the classes above.

    ``buckets`` maps prefill to BxN, decode to BxL and extend to BxNxL; ``pipeline`` is the string of passes.
    Without ``weights`` the artifact is for timing only.
    """

    format: int = FORMAT
    npuc: str
    target: str
    dtype: str
    source: Source
    recipe: dict[str, Any] | None
    pipeline: str = ""
    vocab_size: int
    max_context: int
    slots: int
    buckets: dict[str, tuple[tuple[int, ...], ...]]
    parallel: Parallel = field(default_factory=Parallel)
    memory: dict[str, Region]
    programs: tuple[Program, ...]
    caches: tuple[Cache, ...]
    weights: tuple[RankWeights, ...]
    files: tuple[FileEntry, ...] = ()
    sha256: str = ""

    @property
    def rank_stride(self) -> int:
        """Bytes from a rank's part of main memory to the next one's; inputs and outputs are in rank 0's."""
        end = max(region.end for region in self.memory.values())
        return -(-end // RANK_ALIGNMENT) * RANK_ALIGNMENT

    @property
    def main_memory_bytes(self) -> int:
        """Bytes that the ranks of a chip need together; for timing only, perhaps more than there are."""
        end = max(region.end for region in self.memory.values())
        return (self.parallel.ranks_per_chip - 1) * self.rank_stride + end

    def file(self, path: str) -> FileEntry:
        """The entry of the file at ``path``.

        Raises:
            UserError: ``missing-file`` when the manifest lists none.
        """
        for entry in self.files:
            if entry.path == path:
                return entry
        raise UserError("missing-file", f"the artifact has no file {path}", where=FILE_NAME)

    def program(self, name: str) -> Program:
        """The program called ``name``.

        Raises:
            UserError: ``no-program``.
        """
        for program in self.programs:
            if program.name == name:
                return program
        names = ", ".join(p.name for p in self.programs)
        raise UserError(
            "no-program", f"there is no program {name!r}", where=FILE_NAME, remedy=f"there are: {names}"
        )


def write_manifest(manifest: Manifest) -> bytes:
    """The file's bytes, with the SHA-256 of themselves embedded (computed with that field empty).

    Raises:
        UserError: when the manifest is inconsistent.
    """
    check_manifest(manifest)
    empty = canonical_json(encode(replace(manifest, sha256="")))
    return canonical_json(encode(replace(manifest, sha256=hashlib.sha256(empty).hexdigest())))


def read_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in a file's bytes, fully checked.

    Raises:
        UserError: ``bad-json``, ``unsupported-version``, ``damaged-artifact`` or ``inconsistent-artifact``.
    """
    value = parse_json(data, where)
    version = cast("dict[str, Any]", value).get("format") if isinstance(value, dict) else None
    if type(version) is int and version != FORMAT:
        raise UserError(
            "unsupported-version",
            f"the artifact has format {version}, this npuc reads format {FORMAT}",
            where=where,
            remedy="compile it again with this version",
        )
    manifest = decode(Manifest, value, where)
    empty = hashlib.sha256(canonical_json(encode(replace(manifest, sha256="")))).hexdigest()
    if empty != manifest.sha256 or canonical_json(encode(manifest)) != data:
        raise UserError(
            "damaged-artifact",
            f"the manifest's SHA-256 is {empty}, it says {manifest.sha256[:64]!r}",
            where=where,
            remedy="copy or compile the artifact again",
        )
    check_manifest(manifest)
    return manifest


def _inconsistent(message: str) -> UserError:
    return UserError("inconsistent-artifact", message, where=FILE_NAME, remedy="compile the artifact again")


def check_path(path: str) -> str:
    """``path`` if it is a plain relative path.

    Raises:
        UserError: ``inconsistent-artifact`` when it could leave the artifact's directory.
    """
    if not _PATH.fullmatch(path) or len(path) > 255:
        raise _inconsistent(f"{path[:80]!r} is no plain relative path")
    return path


def check_manifest(manifest: Manifest) -> None:
    """Checks that names are unique, sizes positive, and everything lies in its part of main memory.

    Raises:
        UserError: ``inconsistent-artifact``, naming the first fault.
    """
    _check_numbers(manifest)
    _check_files(manifest)
    _check_memory(manifest)
    for program in manifest.programs:
        _check_program(manifest, program)
    for rank in manifest.weights:
        _unique((p.name for p in rank.tensors), f"tensors of rank {rank.rank}")
        if any(p.count < 1 or p.stride < 0 or p.address < 0 for p in rank.tensors):
            raise _inconsistent(f"a weight of rank {rank.rank} has a negative address, count or stride")


def _unique(names: Iterable[str], what: str) -> None:
    seen = set[str]()
    for name in names:
        if name in seen:
            raise _inconsistent(f"two {what} are called {name!r}")
        seen.add(name)


def _check_numbers(manifest: Manifest) -> None:
    for name in ("vocab_size", "max_context", "slots"):
        if getattr(manifest, name) < 1:
            raise _inconsistent(f"{name} is {getattr(manifest, name)}")
    ranks, chips = manifest.parallel.tensor_parallel, manifest.parallel.chips
    if chips < 1 or ranks % chips:
        raise _inconsistent(f"{ranks} ranks on {chips} chips")
    if (
        ranks < 1
        or len(manifest.weights) not in (0, ranks)
        or any(w.rank != i for i, w in enumerate(manifest.weights))
    ):
        raise _inconsistent(f"{ranks} ranks with weights of ranks {[w.rank for w in manifest.weights]}")
    element_type(manifest.dtype)


def _check_files(manifest: Manifest) -> None:
    _unique((f.path for f in manifest.files), "files")
    listed = {check_path(f.path) for f in manifest.files}
    needed = [p.file for p in manifest.programs] + [w.file for w in manifest.weights]
    for path in needed:
        if check_path(path) not in listed:
            raise _inconsistent(f"the file {path} is not listed")
    if any(f.bytes < 0 for f in manifest.files):
        raise _inconsistent("a file has a negative size")


def _check_memory(manifest: Manifest) -> None:
    if sorted(manifest.memory) != sorted(REGIONS):
        raise _inconsistent(f"memory has the parts {sorted(manifest.memory)}, not {sorted(REGIONS)}")
    parts = sorted(manifest.memory.items(), key=lambda part: (part[1].base, part[1].bytes))
    if any(region.base < 0 or region.bytes < 0 for _, region in parts):
        raise _inconsistent("a part of memory has a negative base or size")
    for (low, a), (high, b) in pairwise(parts):
        if a.end > b.base:
            raise _inconsistent(f"the memory of {low} and {high} overlaps")
    _unique((c.name for c in manifest.caches), "caches")
    for cache in manifest.caches:
        element_type(cache.type)
        check_inside(Region(cache.address, cache.bytes), manifest.memory["cache"], f"cache {cache.name}")


def check_inside(part: Region, whole: Region, what: str) -> None:
    """Checks that ``part`` lies in ``whole``.

    Raises:
        UserError: ``inconsistent-artifact``.
    """
    if part.bytes < 0 or part.base < whole.base or part.end > whole.end:
        raise _inconsistent(
            f"{what} takes bytes {part.base} to {part.end}, outside of {whole.base} to {whole.end}"
        )


def _check_program(manifest: Manifest, program: Program) -> None:
    name = program.name
    if program.kind not in KINDS:
        raise _inconsistent(f"program {name} has the kind {program.kind!r}")
    if not (1 <= program.batch <= manifest.slots and 1 <= program.new_tokens <= program.length):
        raise _inconsistent(
            f"program {name} has {program.batch} rows of {program.new_tokens} new tokens "
            f"and {program.length} positions, with {manifest.slots} cache slots"
        )
    rows, batch = program.batch * program.new_tokens, program.batch
    shapes = {
        "tokens": (batch, program.new_tokens),
        "positions": (batch, program.new_tokens),
        "logits_last": (batch, manifest.vocab_size),
        "logits_all": (rows, manifest.vocab_size),
    }
    for key in ("tokens", *(f"logits_{entry}" for entry in program.entries)):
        if key not in program.io:
            raise _inconsistent(f"program {name} lacks the io tensor {key}")
    for key, tensor in program.io.items():
        check_inside(tensor.region, manifest.memory["io"], f"{key} of program {name}")
        expected = shapes.get(key, tensor.shape)
        padded = key.startswith("logits") and len(tensor.shape) == 2 and tensor.shape[1] > expected[1]
        if tensor.shape != expected and not (padded and tensor.shape[0] == expected[0]):
            raise _inconsistent(f"{key} of program {name} has shape {tensor.shape}, not {expected}")
    _unique((p.name for p in manifest.programs), "programs")
