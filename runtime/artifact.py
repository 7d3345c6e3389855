"""Artifacts: directories with all that a model needs to run, written atomically and read with suspicion.

artifact.json     the manifest (npuc.runtime.manifest), written last
machine.npu       the machine description, where the target was given by one
model/            configuration, generation configuration, tokenizer, chat template
programs/         NAME.stage0.elf, one per bucket
weights/          rank0.safetensors, packed for the target (npuc.runtime.weights)
debug/            PHASE.mlir: the IR that the lowering started from
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
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
    Manifest,
    RankWeights,
    Region,
    WeightPlacement,
    check_inside,
    check_path,
    read_manifest,
    write_manifest,
)
from npuc.runtime.weights import TensorPlan, WeightFile, WeightWriter

MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
"""What is copied from a checkpoint: data only, never code."""

MACHINE_FILE = "machine.npu"
MAX_JSON_BYTES = 64 << 20
_KEY = ".key"


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


class ArtifactWriter:
    """Builds an artifact in ``.NAME.partial`` beside the output directory and moves it there when complete.

    An artifact at the output path is replaced as a whole; any other directory is refused. A build that was
    killed can be taken up again: with the same ``key`` its finished files and weight tensors are kept.

    Use as a context manager; leaving it through an error deletes what was built, leaving it through a
    keyboard interrupt keeps it if there is a key.

    Args:
        path: the output directory.
        key: identifies the inputs of the build, e.g. a hash of source and options; empty: never resume.

    Raises:
        UserError: ``output-exists``, ``output-busy``, or ``cannot-write``.
    """

    def __init__(self, path: Path | str, key: str = "") -> None:
        self.path = Path(os.path.abspath(path))
        if not self.path.name:
            raise UserError("output-exists", "the root directory cannot be an artifact", where=str(path))
        self._build = self.path.with_name(f".{self.path.name}.partial")
        self._old = self.path.with_name(f".{self.path.name}.old")
        try:
            self._restore()
            _refuse_other_directory(self.path)
            self._lock = self._locked_build()
            self._keep_or_clear(key)
        except OSError as error:
            raise UserError(
                "cannot-write", f"cannot build there: {error.strerror}", where=str(self.path)
            ) from error
        self._key = key
        self._finished = False
        self._open_weights: list[WeightWriter] = []

    def _restore(self) -> None:
        """Puts an artifact back that an interrupted replacement moved aside."""
        if self._old.exists() and not self.path.exists():
            self._old.rename(self.path)

    def _locked_build(self) -> int:
        """An open descriptor of the build directory, which no other process has locked."""
        while True:
            self._build.mkdir(parents=True, exist_ok=True)
            lock = os.open(self._build, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                os.close(lock)
                raise UserError(
                    "output-busy", "another build is writing this artifact", where=str(self.path)
                ) from error
            if self._build.exists() and os.path.samestat(os.fstat(lock), os.stat(self._build)):
                return lock
            os.close(lock)  # another build was completed meanwhile: its directory has moved

    def _keep_or_clear(self, key: str) -> None:
        key_file = self._build / _KEY
        if not (key and key_file.exists() and key_file.read_text() == key):
            for entry in self._build.iterdir():
                shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
            key_file.write_text(key)

    def __enter__(self) -> ArtifactWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for weights in self._open_weights:
            weights.abandon()
        interrupted = kind is not None and not issubclass(kind, Exception)
        if not self._finished and not (interrupted and self._key):
            shutil.rmtree(self._build, ignore_errors=True)
        os.close(self._lock)

    def has(self, file: str) -> bool:
        """Whether an interrupted build of the same key finished ``file``."""
        return (self._build / check_path(file)).is_file()

    def add_file(self, file: str, data: bytes) -> None:
        """Writes ``data`` to the path ``file`` inside the artifact."""
        target = self._build / check_path(file)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        with partial.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        partial.rename(target)

    def add_program(self, name: str, elf: bytes, stage: int = 0) -> str:
        """Writes a program; returns its path inside the artifact."""
        self.add_file(program_file(name, stage), elf)
        return program_file(name, stage)

    def copy_model_files(self, checkpoint: Path | str) -> None:
        """Copies configuration, tokenizer and chat template from a checkpoint directory to ``model/``."""
        for name in MODEL_FILES:
            source = Path(checkpoint) / name
            if source.is_file():
                self.add_file(f"model/{name}", source.read_bytes())

    def weights(self, plan: Sequence[TensorPlan], rank: int = 0, recipe: str = "") -> WeightWriter:
        """A writer of one rank's weights; close it before :meth:`finish`.

        Args:
            recipe: what decides their values, beside the plan: an interrupted file of another is begun anew.
        """
        target = self._build / rank_file(rank)
        target.parent.mkdir(parents=True, exist_ok=True)
        writer = WeightWriter(target, plan, recipe)
        self._open_weights.append(writer)
        return writer

    def finish(self, manifest: Manifest) -> Manifest:
        """Completes the artifact and moves it to the output path.

        Args:
            manifest: all but ``files``, ``sha256`` and the weights' ``crc32``, which are filled in here.

        Returns:
            The manifest as written.

        Raises:
            UserError: ``inconsistent-artifact`` when manifest and files do not fit together.
        """
        hashes = {weights.path: weights.sha256 for weights in self._open_weights}
        files = tuple(
            FileEntry(
                str(path.relative_to(self._build)),
                path.stat().st_size,
                hashes.get(path) or sha256_of_file(path),
            )
            for path in sorted(self._build.rglob("*"))
            if path.is_file() and path.name not in (_KEY, FILE_NAME)
        )
        ranks = tuple(self._with_checksums(rank) for rank in manifest.weights)
        data = write_manifest(replace(manifest, files=files, weights=ranks))
        for rank in ranks:
            _check_weights(_weight_file(self._build / rank.file, rank), rank, manifest.memory)
        self.add_file(FILE_NAME, data)
        self._move_into_place()
        return read_manifest(data, FILE_NAME)

    def _with_checksums(self, rank: RankWeights) -> RankWeights:
        found = next(w.checksums for w in self._open_weights if w.path == self._build / rank.file)
        return replace(rank, tensors=tuple(replace(p, crc32=found.get(p.name, 0)) for p in rank.tensors))

    def _move_into_place(self) -> None:
        (self._build / _KEY).unlink()
        if self.path.exists():
            shutil.rmtree(self._old, ignore_errors=True)
            self.path.rename(self._old)
        self._build.rename(self.path)
        self._finished = True
        shutil.rmtree(self._old, ignore_errors=True)


def _refuse_other_directory(path: Path) -> None:
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise UserError("output-exists", "the output exists and is no directory", where=str(path))
    if path.exists() and any(path.iterdir()) and not (path / FILE_NAME).is_file():
        raise UserError(
            "output-exists",
            f"the output directory exists and is no artifact: it has no {FILE_NAME}",
            where=str(path),
            remedy="choose another directory or remove it",
        )


def _weight_file(path: Path, rank: RankWeights) -> WeightFile:
    return WeightFile(path, rank.header_sha256, {p.name: p.crc32 for p in rank.tensors})


def _check_weights(weights: WeightFile, rank: RankWeights, memory: dict[str, Region]) -> None:
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
        weights = _weight_file(self.file_path(entry.file), entry)
        _check_weights(weights, entry, self.manifest.memory)
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
