"""The safetensors reader agrees with the safetensors package and refuses damaged files in one line."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from npuc.frontends.safetensors import (
    INDEX_NAME,
    TensorSource,
    read,
    read_checkpoint,
    read_file,
    require,
)
from npuc.ir.errors import UserError

SHARED = Path(__file__).parents[4] / "shared"


def write(path: Path, header: Any, data: bytes = b"", *, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def entry(start: int, stop: int, shape: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_reads_what_the_reference_reads(tmp_path: Path) -> None:
    tensors = {
        "a": torch.randn(3, 4),
        "empty": torch.zeros(0, 5),
        "scalar": torch.tensor(2.5),
        "half": torch.randn(7).to(torch.bfloat16),
        "bytes": torch.arange(9, dtype=torch.uint8),
        "flags": torch.tensor([True, False, True]),
        "ids": torch.arange(6).reshape(2, 3),
        "f8": torch.randn(8).to(torch.float8_e4m3fn),
    }
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    found = read_checkpoint(tmp_path)
    assert set(found) == set(tensors)
    for name, expected in tensors.items():
        values = read(tmp_path, found[name])
        assert values.dtype == expected.dtype
        assert torch.equal(
            values.view(torch.uint8) if values.ndim else values,
            expected.view(torch.uint8) if values.ndim else expected,
        )


@pytest.mark.parametrize(
    "path", sorted((SHARED / "edge" / "safetensors").glob("*.safetensors")), ids=lambda p: p.name
)
def test_every_type_of_the_reference(path: Path) -> None:
    found = read_file(path)
    with safetensors.safe_open(path, "pt") as reference:
        assert set(found) == set(reference.keys())
        for name in reference.keys():
            expected = reference.get_tensor(name)
            assert read(path.parent, found[name]).tolist() == expected.tolist()


def test_shared_types_are_there() -> None:
    if not (SHARED / "edge").exists():
        pytest.skip(f"{SHARED / 'edge'} is not there: no file per type")


def test_shards(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "m-1.safetensors")
    safetensors.torch.save_file({"b": torch.zeros(3)}, tmp_path / "m-2.safetensors")
    index = {"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}
    (tmp_path / INDEX_NAME).write_text(json.dumps(index))
    found = read_checkpoint(tmp_path)
    assert {name: source.file for name, source in found.items()} == index["weight_map"]
    assert read(tmp_path, found["b"]).tolist() == [0.0, 0.0, 0.0]


BAD_FILES: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "empty": ("truncated-file", lambda p: p.write_bytes(b"")),
    "short prefix": ("truncated-file", lambda p: p.write_bytes(b"abc")),
    "header longer than the file": ("truncated-file", lambda p: write(p, {}, length=1000)),
    "absurd header": ("bad-header", lambda p: write(p, {}, length=1 << 62)),
    "not json": ("bad-json", lambda p: write(p, b"{x}")),
    "not utf-8": ("bad-json", lambda p: write(p, b'{"\xff": 1}')),
    "deep json": ("bad-json", lambda p: write(p, b"[" * 100_000)),
    "a list": ("bad-json", lambda p: write(p, [])),
    "duplicate": (
        "duplicate-key",
        lambda p: write(
            p, b'{"a": {"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
            b'"a": {"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    ),
    "duplicate inside": (
        "duplicate-key", lambda p: write(
            p, b'{"a": {"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
    ),
    "unknown dtype": ("unknown-dtype", lambda p: write(p, {"a": entry(0, 4, [1], "F99")}, bytes(4))),
    "dtype no string": ("unknown-dtype", lambda p: write(p, {"a": entry(0, 4, [1], [])}, bytes(4))),
    "missing field": ("bad-header", lambda p: write(p, {"a": {"dtype": "F32", "shape": [1]}}, bytes(4))),
    "extra field": ("bad-header", lambda p: write(p, {"a": entry(0, 4, [1]) | {"x": 1}}, bytes(4))),
    "negative shape": ("bad-header", lambda p: write(p, {"a": entry(0, 4, [-1])}, bytes(4))),
    "float shape": ("bad-header", lambda p: write(p, {"a": entry(0, 4, [1.0])}, bytes(4))),
    "bool shape": ("bad-header", lambda p: write(p, {"a": entry(0, 4, [True])}, bytes(4))),
    "huge rank": ("bad-header", lambda p: write(p, {"a": entry(0, 4, [1] * 1000)}, bytes(4))),
    "reversed range": ("truncated-file", lambda p: write(p, {"a": entry(4, 0, [1])}, bytes(4))),
    "three offsets": (
        "bad-header",
        lambda p: write(p, {"a": entry(0, 4, [1]) | {"data_offsets": [0, 4, 4]}}, bytes(4)),
    ),
    "outside": ("truncated-file", lambda p: write(p, {"a": entry(0, 8, [2])}, bytes(4))),
    "size": ("size-mismatch", lambda p: write(p, {"a": entry(0, 8, [1])}, bytes(8))),
    "overflow": ("size-mismatch", lambda p: write(p, {"a": entry(0, 0, [1 << 62, 4])})),
    "half byte": ("size-mismatch", lambda p: write(p, {"a": entry(0, 1, [1], "F4")}, bytes(1))),
    "overlap": (
        "bad-header", lambda p: write(p, {"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, bytes(12)),
    ),
    "hole": ("bad-header", lambda p: write(p, {"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, bytes(12))),
    "hole at the start": ("bad-header", lambda p: write(p, {"a": entry(4, 8, [1])}, bytes(8))),
    "hole at the end": ("bad-header", lambda p: write(p, {"a": entry(0, 4, [1])}, bytes(8))),
    "entry no object": ("bad-header", lambda p: write(p, {"a": 3})),
}  # fmt: skip


def one_line(error: UserError, path: Path) -> None:
    assert "\n" not in str(error)
    assert str(path) in str(error)
    assert error.remedy


@pytest.mark.parametrize("name", BAD_FILES)
def test_damaged_files(name: str, tmp_path: Path) -> None:
    kind, make = BAD_FILES[name]
    path = tmp_path / "model.safetensors"
    make(path)
    with pytest.raises(UserError) as caught:
        read_checkpoint(tmp_path)
    assert caught.value.kind == kind
    one_line(caught.value, path)


def test_a_missing_directory_or_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model\.safetensors") as caught:
        read_checkpoint(tmp_path)
    one_line(caught.value, tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read_file(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x.safetensors", "a/b.safetensors", "", ".", "..", 3, None, "x\0"]
)
def test_shards_stay_in_the_directory(name: Any, tmp_path: Path) -> None:
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError) as caught:
        read_checkpoint(tmp_path)
    assert caught.value.kind == "bad-index"
    one_line(caught.value, tmp_path / INDEX_NAME)


def test_links_stay_in_the_directory(tmp_path: Path) -> None:
    inside, outside = tmp_path / "model", tmp_path / "elsewhere.safetensors"
    inside.mkdir()
    safetensors.torch.save_file({"a": torch.ones(1)}, outside)
    (inside / "s.safetensors").symlink_to(outside)
    (inside / INDEX_NAME).write_text(json.dumps({"weight_map": {"a": "s.safetensors"}}))
    with pytest.raises(UserError, match="leaves the directory"):
        read_checkpoint(inside)
    (inside / INDEX_NAME).unlink()
    (inside / "model.safetensors").symlink_to(outside)
    with pytest.raises(UserError, match="leaves the directory"):
        read_checkpoint(inside)


def test_links_of_the_hub_cache_are_followed(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    safetensors.torch.save_file({"a": torch.ones(1)}, blobs / "0123")
    (snapshot / "model.safetensors").symlink_to("../../blobs/0123")
    assert read_checkpoint(snapshot)["a"].file == "model.safetensors"


def test_an_index_that_contradicts_its_shards(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(1)}, tmp_path / "s.safetensors")
    (tmp_path / INDEX_NAME).write_text(json.dumps({"weight_map": {"b": "s.safetensors"}}))
    with pytest.raises(UserError, match="does not hold this tensor"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"weight_map": {}}', '{"weight_map": []}', "{", '{"a":1,"a":2}']
)
def test_damaged_indices(text: str, tmp_path: Path) -> None:
    (tmp_path / INDEX_NAME).write_text(text)
    with pytest.raises(UserError) as caught:
        read_checkpoint(tmp_path)
    one_line(caught.value, tmp_path / INDEX_NAME)


def test_required_tensors(tmp_path: Path) -> None:
    tensors = {"a": TensorSource("model.safetensors", 8, 8, "F32", (2,))}
    assert require(tensors, "a", (2,), "here") is tensors["a"]
    with pytest.raises(UserError, match="the tensor b is missing"):
        require(tensors, "b", (2,), "here")
    with pytest.raises(UserError, match=r"shape \[2\], the model expects \[3\]"):
        require(tensors, "a", (3,), "here")


def test_a_file_that_shrinks_after_its_header_was_read(tmp_path: Path) -> None:
    safetensors.torch.save_file({"a": torch.ones(100)}, tmp_path / "model.safetensors")
    source = read_checkpoint(tmp_path)["a"]
    with (tmp_path / "model.safetensors").open("r+b") as file:
        file.truncate(source.offset + 10)
    with pytest.raises(UserError, match="ends before byte"):
        read(tmp_path, source)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_a_user_error_or_the_reference_accepts_it(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"a": torch.ones(3), "b": torch.zeros(2, dtype=torch.uint8)}, path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        found = read_checkpoint(tmp_path)
    except UserError:
        return
    with safetensors.safe_open(path, "pt") as reference:
        assert set(found) == set(reference.keys())
