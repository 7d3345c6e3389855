"""Artifacts: directories with all that a model needs to run, read with suspicion.

artifact.json     the manifest (npuc.runtime.manifest), written last
machine.npu       the machine description, where the target was given by one
model/            configuration, generation configuration, tokenizer, chat template
programs/         NAME.stage0.elf, one per bucket
weights/          rank0.safetensors, packed for the target (npuc.runtime.weights)
debug/            PHASE.mlir: the IR that the lowering started from
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from npuc.backends.machine import Machine, load_machine, parse_machine
from npuc.backends.registry import load_target
from npuc.ir.errors import UserError
from npuc.runtime.json_schema import parse_json
from npuc.runtime.manifest import (
    FILE_NAME,
    MAX_BYTES,
    FileEntry,
    RankWeights,
    Region,
    WeightPlacement,
    check_inside,
    check_path,
    read_manifest,
)
from npuc.runtime.weights import WeightFile

MACHINE_FILE = "machine.npu"
MAX_JSON_BYTES = 64 << 20


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def rank_file(rank: int) -> str:
    """The path of a rank's weights inside an artifact."""
    return f"weights/rank{rank}.safetensors"


def program_file(name: str, stage: int = 0) -> str:
    """The path of a program inside an artifact."""
    return f"programs/{name}.stage{stage}.elf"


def debug_file(phase: str) -> str:
    """The path of the IR inside an artifact from which it was lowered; ``phase`` is the one it is in."""
    return f"debug/{phase}.mlir"


def weight_file(path: Path, rank: RankWeights) -> WeightFile:
    """A rank's weights, with the checksums that the manifest says."""
    return WeightFile(path, rank.header_sha256, {p.name: p.crc32 for p in rank.tensors})


def check_weights(weights: WeightFile, rank: RankWeights, memory: dict[str, Region]) -> None:
    """Checks that the placements are those of the file's tensors, inside the memory for weights."""
    if sorted(p.name for p in rank.tensors) != sorted(weights.tensors):
        raise UserError(
            "inconsistent-artifact", "the manifest places other tensors than the file has", where=rank.file
        )
    for placement in rank.tensors:
        tensor = weights.tensors[placement.name]
        if tensor.bytes % placement.count:
            raise UserError(
                "inconsistent-artifact",
                f"{tensor.name} has {tensor.bytes} bytes for {placement.count} layers",
                where=rank.file,
            )
        check_inside(placed_region(placement, tensor.bytes), memory["weights"], f"weight {tensor.name}")


def placed_region(placement: WeightPlacement, size: int) -> Region:
    """The bytes of main memory from the first to the last of a placed tensor of ``size`` bytes."""
    return Region(placement.address, placement.stride * (placement.count - 1) + size // placement.count)


def machine_of_program(file: Path, target: str) -> Machine:
    """The machine of a program's file: the one that the artifact around it describes, else its target.

    Raises:
        UserError: ``machine-description`` or ``unknown-target``.
    """
    described = file.resolve().parent.parent / MACHINE_FILE
    return load_machine(described) if described.is_file() else load_target(target).machine


class Artifact:
    """An artifact on disk, checked when opened.

    The manifest's hash, the presence and size of every file, and the hashes of everything under ``model/``
    are checked here; a program's hash and a weight's CRC when they are read; all hashes by :meth:`check`.

    Args:
        path: the directory.

    Raises:
        UserError: ``no-artifact``, ``damaged-artifact``, ``inconsistent-artifact``, ``bad-json`` or
            ``unsupported-version``.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.manifest = read_manifest(self._manifest_bytes(), str(self.path / FILE_NAME))
        for entry in self.manifest.files:
            size = self.file_path(entry.path).stat().st_size
            if size != entry.bytes:
                raise self._damaged(entry.path, f"it has {size} bytes, the manifest says {entry.bytes}")
            if entry.path.startswith("model/"):
                self._check_hash(entry)

    def _manifest_bytes(self) -> bytes:
        path = self.path / FILE_NAME
        try:
            if not path.is_file():
                raise UserError(
                    "no-artifact",
                    f"there is no artifact: {FILE_NAME} is missing",
                    where=str(self.path),
                    remedy="give a directory that irc compile wrote",
                )
            with path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except OSError as error:
            raise UserError("no-artifact", f"cannot read: {error.strerror}", where=str(path)) from error
        if len(data) > MAX_BYTES:
            raise UserError("damaged-artifact", f"larger than {MAX_BYTES} bytes", where=str(path))
        return data

    def _damaged(self, file: str, message: str) -> UserError:
        return UserError(
            "damaged-artifact",
            message,
            where=str(self.path / file),
            remedy="copy or compile the artifact again",
        )

    def _check_hash(self, entry: FileEntry) -> None:
        try:
            found = sha256_of_file(self.file_path(entry.path))
        except OSError as error:
            raise self._damaged(entry.path, f"cannot read: {error.strerror}") from error
        if found != entry.sha256:
            raise self._damaged(entry.path, f"its SHA-256 is {found}, the manifest says {entry.sha256}")

    def file_path(self, file: str) -> Path:
        """The path of one of the artifact's regular files, which cannot be outside of its directory.

        Raises:
            UserError: ``damaged-artifact`` when it is missing or no regular file in the directory.
        """
        path = self.path / check_path(file)
        inside = path.resolve().is_relative_to(self.path.resolve())
        if not inside or not path.is_file():
            raise self._damaged(
                file, "the file is missing" if inside else "the file lies outside the artifact"
            )
        return path

    def read_file(self, file: str) -> bytes:
        """The contents of a listed file, its hash checked.

        Raises:
            UserError: ``missing-file`` or ``damaged-artifact``.
        """
        self._check_hash(self.manifest.file(file))
        return self.file_path(file).read_bytes()

    def read_json(self, file: str) -> dict[str, Any]:
        """A listed JSON file's object; an empty one when there is no such file.

        Raises:
            UserError: ``damaged-artifact`` or ``bad-json``.
        """
        entry = next((entry for entry in self.manifest.files if entry.path == file), None)
        if entry is None:
            return {}
        if entry.bytes > MAX_JSON_BYTES:
            raise UserError("bad-json", f"larger than {MAX_JSON_BYTES} bytes", where=str(self.path / file))
        value = parse_json(self.read_file(file), str(self.path / file))
        if not isinstance(value, dict):
            raise UserError("bad-json", "the file holds no object", where=str(self.path / file))
        return value  # pyright: ignore[reportUnknownVariableType]

    @cached_property
    def machine(self) -> Machine:
        """The machine that the artifact is for: the one it describes, else the registered target.

        Raises:
            UserError: ``damaged-artifact``, ``machine-description`` or ``unknown-target``.
        """
        if any(entry.path == MACHINE_FILE for entry in self.manifest.files):
            return parse_machine(self.read_file(MACHINE_FILE), str(self.path / MACHINE_FILE))
        return load_target(self.manifest.target).machine

    @property
    def start_file(self) -> str:
        """The file of the IR that the artifact was lowered from.

        Raises:
            UserError: ``no-debug``: it was compiled without.
        """
        found = [entry.path for entry in self.manifest.files if entry.path.startswith("debug/")]
        if not found:
            raise UserError(
                "no-debug",
                "the artifact does not hold the IR that it was lowered from",
                where=str(self.path),
                remedy="compile it without --no-debug",
            )
        return found[0]

    @property
    def model_path(self) -> Path:
        """The directory with configuration and tokenizer."""
        return self.path / "model"

    def weights(self, rank: int = 0) -> WeightFile:
        """The weights of a rank, for reading.

        Raises:
            UserError: ``no-weights``, ``damaged-weights`` or ``inconsistent-artifact``.
        """
        if not self.manifest.weights:
            raise UserError(
                "no-weights",
                "the artifact was compiled without weights and is for timing only",
                where=str(self.path),
                remedy="compile the checkpoint without --no-weights",
            )
        entry = self.manifest.weights[rank]
        weights = weight_file(self.file_path(entry.file), entry)
        check_weights(weights, entry, self.manifest.memory)
        return weights

    def check(self) -> None:
        """Checks the SHA-256 of every file, and that there are no others.

        Raises:
            UserError: ``damaged-artifact``, naming the first file at fault.
        """
        listed = {entry.path for entry in self.manifest.files} | {FILE_NAME}
        for entry in self.manifest.files:
            self._check_hash(entry)
        for path in sorted(self.path.rglob("*")):
            if path.is_file() and str(path.relative_to(self.path)) not in listed:
                raise self._damaged(str(path.relative_to(self.path)), "the manifest does not list this file")
