"""Writing artifacts: whole or not at all, and taken up again where a build was interrupted."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from npuc.ir.errors import UserError
from npuc.runtime.artifact import check_weights, program_file, rank_file, sha256_of_file, weight_file
from npuc.runtime.manifest import (
    FILE_NAME,
    FileEntry,
    Manifest,
    RankWeights,
    check_path,
    read_manifest,
    write_manifest,
)
from npuc.runtime.weights import TensorPlan, WeightWriter

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

_KEY = ".key"


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
        """Copies configuration, tokenizer and chat template from a checkpoint directory to ``model/``.

        Raises:
            UserError: ``bad-json``: a file is damaged, which otherwise would show when text is generated.
        """
        for name in MODEL_FILES:
            source = Path(checkpoint) / name
            if source.is_file():
                data = source.read_bytes()
                if source.suffix == ".json":
                    _check_json(data, str(source))
                self.add_file(f"model/{name}", data)

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
            check_weights(weight_file(self._build / rank.file, rank), rank, manifest.memory)
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


def _check_json(data: bytes, where: str) -> None:
    try:
        json.loads(data)
    except (ValueError, RecursionError) as error:
        remedy = "download the file again"
        raise UserError("bad-json", f"not valid JSON: {error}", where=where, remedy=remedy) from error


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
