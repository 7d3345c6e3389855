"""Opening checkpoints: what is refused, and with which words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from npuc.frontends.checkpoint import open_checkpoint
from npuc.ir.errors import UserError


def folder(tmp_path: Path, config: object) -> Path:
    (tmp_path / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return tmp_path


def test_opens_a_directory(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(
        folder(tmp_path, {"model_type": "llama", "hidden_size": 8, "num_attention_heads": 2})
    )
    assert checkpoint.config.model_type == "llama"
    assert checkpoint.config.hidden_size == 8


def test_a_missing_directory() -> None:
    with pytest.raises(UserError, match="no such directory"):
        open_checkpoint("/no/such/model")


def test_a_file_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="expected a directory"):
        open_checkpoint(tmp_path / "x")


def test_no_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"config\.json: cannot be read"):
        _ = open_checkpoint(tmp_path).config


@pytest.mark.parametrize("text", ["{", "[]", "3", "\x00", "[" * 100_000])
def test_damaged_config(text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        _ = open_checkpoint(folder(tmp_path, text)).config
    assert caught.value.kind == "bad-json"
    assert "\n" not in str(caught.value)


def test_unknown_architecture(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        _ = open_checkpoint(folder(tmp_path, {"model_type": "nonesuch"})).config
    assert caught.value.kind == "unknown-architecture"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values", [{"hidden_size": "x"}, {"rms_norm_eps": [1]}])
def test_bad_values(values: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        _ = open_checkpoint(folder(tmp_path, {"model_type": "llama"} | values)).config
    assert caught.value.kind == "bad-config"
    assert "\n" not in str(caught.value)


def test_remote_code_is_refused(tmp_path: Path) -> None:
    config = {"model_type": "x", "auto_map": {"AutoConfig": "modeling.X"}}
    with pytest.raises(UserError) as caught:
        _ = open_checkpoint(folder(tmp_path, config)).config
    assert caught.value.kind == "remote-code-refused"


def test_pickles_are_refused(tmp_path: Path) -> None:
    (folder(tmp_path, {"model_type": "llama"}) / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match="is a pickle") as caught:
        _ = open_checkpoint(tmp_path).tensors
    assert "save_pretrained" in caught.value.remedy
