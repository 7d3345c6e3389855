"""Opens a checkpoint: a local directory or a Hugging Face hub id."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from npuc.frontends.hub import download
from npuc.frontends.safetensors import TensorSource, read_checkpoint
from npuc.ir.errors import UserError


@dataclass(frozen=True)
class Checkpoint:
    """A directory with config.json and safetensors weights."""

    root: Path

    has_values: ClassVar[bool] = True
    """Whether the tensors can be read."""

    @cached_property
    def tensors(self) -> dict[str, TensorSource]:
        """Every tensor of the weight files, by name. Nothing is read but headers."""
        if not any(self.root.glob("*.safetensors")) and not any(self.root.glob("*.safetensors.index.json")):
            pickles = sorted(p.name for p in self.root.glob("*.bin")) or sorted(
                p.name for ending in ("*.pt", "*.pth", "*.ckpt") for p in self.root.glob(ending)
            )
            if pickles:
                raise UserError(
                    "pickle-refused",
                    f"{pickles[0]} is a pickle, which may run code when read",
                    where=str(self.root),
                    remedy="save the model with safetensors: model.save_pretrained(DIR)",
                )
        return read_checkpoint(self.root)

    @cached_property
    def config_json(self) -> dict[str, Any]:
        """The raw config.json."""
        path = self.root / "config.json"
        try:
            value = json.loads(path.read_text())
        except OSError as error:
            message, remedy = f"cannot be read: {error.strerror}", "the directory needs a config.json"
            raise UserError("missing-file", message, where=str(path), remedy=remedy) from error
        except (ValueError, RecursionError) as error:
            raise UserError("bad-json", f"not valid JSON: {error}", where=str(path)) from error
        if not isinstance(value, dict):
            raise UserError("bad-json", "expected a JSON object", where=str(path))
        return value

    @cached_property
    def config(self) -> Any:
        """The transformers configuration.

        Raises:
            UserError: when the model type is unknown, its values are invalid, or it needs code of its own.
        """
        from transformers import AutoConfig

        where = str(self.root / "config.json")
        raw = self.config_json
        if raw.get("auto_map"):
            raise UserError(
                "remote-code-refused",
                "the checkpoint brings its own model code (auto_map)",
                where=where,
                remedy="trust_remote_code is not supported: use a model that transformers implements",
            )
        try:
            return AutoConfig.from_pretrained(self.root, trust_remote_code=False, local_files_only=True)
        except Exception as error:  # AutoConfig raises whatever a configuration class raises
            text = " ".join(str(error).split()).split(". ")[0]
            known = "unknown-architecture" if "model type" in text or "model_type" in text else "bad-config"
            remedy = "check config.json; the model must be one that transformers implements"
            raise UserError(known, text[:300], where=where, remedy=remedy) from error


def open_checkpoint(
    path_or_id: str | os.PathLike[str], *, revision: str | None = None, local_files_only: bool = False
) -> Checkpoint:
    """The checkpoint of a directory, or of a hub id (downloaded to, or found in, HF_HOME).

    ``HF_HUB_OFFLINE`` counts as ``local_files_only``.

    Raises:
        UserError: when there is no such directory or id.
    """
    path = Path(path_or_id)
    if path.is_dir():
        return Checkpoint(path)
    name = str(path_or_id)
    is_id = name.count("/") <= 1 and not name.startswith((".", "/", "~")) and not path.exists()
    if not is_id:
        what = "is a file, expected a directory" if path.exists() else "no such directory"
        remedy = "give a directory with config.json, or a hub id such as org/model"
        raise UserError("missing-file", what, where=name, remedy=remedy)
    return Checkpoint(download(name, revision=revision, local_files_only=local_files_only))
