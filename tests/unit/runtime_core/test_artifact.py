"""Artifacts: same bytes, atomic replacement, resumption, and every damaged byte found."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from npuc.ir.errors import UserError
from npuc.runtime.artifact import Artifact
from npuc.runtime.artifact_writer import ArtifactWriter
from npuc.runtime.json_schema import canonical_json, encode, parse_json
from npuc.runtime.manifest import FileEntry, Parallel, Region, check_path, read_manifest, write_manifest
from npuc.runtime.weights import TensorPlan, WeightWriter
from safetensors.torch import load_file

LAYERS = torch.arange(128.0).reshape(2, 8, 8)
Factory = Callable[..., Path]


def read_everything(path: Path) -> Artifact:
    """What the runtime reads before the first token: manifest, model files, programs and weights."""
    artifact = Artifact(path)
    for entry in artifact.manifest.programs:
        artifact.read_file(entry.file)
    weights = artifact.weights()
    for name in weights.tensors:
        weights.read(name)
    return artifact


def contents(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_round_trip(small_artifact: Path) -> None:
    artifact = read_everything(small_artifact)
    assert torch.equal(artifact.weights().read("layers#0"), LAYERS)
    assert artifact.read_file("programs/decode_1x16.stage0.elf") == b"program decode_1x16"
    assert artifact.read_json("model/generation_config.json") == {"eos_token_id": [2, 3]}
    assert artifact.read_json("model/tokenizer_config.json") == {}
    assert not (artifact.model_path / "model.safetensors").exists()
    artifact.check()


def test_weight_file_is_plain_safetensors(small_artifact: Path) -> None:
    tensors = load_file(small_artifact / "weights/rank0.safetensors")
    assert torch.equal(tensors["layers#0"], LAYERS)
    assert tensors["head#0"].dtype == torch.bfloat16


def test_same_input_gives_same_bytes_and_copies_work(small_artifact: Path, artifact_factory: Factory) -> None:
    again = artifact_factory(("prefill", 1, 8, 8), ("decode", 1, 1, 16))
    assert contents(again) == contents(small_artifact)
    copy = small_artifact.with_name("copy")
    shutil.copytree(small_artifact, copy)
    shutil.rmtree(small_artifact)
    read_everything(copy).check()
    assert not [p for p in copy.parent.iterdir() if p.name.startswith(".")]


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_flipped_byte_is_found(small_artifact: Path, data: st.DataObject) -> None:
    files = [str(p.relative_to(small_artifact)) for p in sorted(small_artifact.rglob("*")) if p.is_file()]
    path = small_artifact / data.draw(st.sampled_from(files))
    original = path.read_bytes()
    position = data.draw(st.integers(0, len(original) - 1))
    damaged = bytearray(original)
    damaged[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(damaged)
    try:
        with pytest.raises(UserError):
            read_everything(small_artifact)
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("name", ["artifact.json", "model/config.json", "weights/rank0.safetensors"])
def test_truncated_and_missing_files_are_found(small_artifact: Path, name: str) -> None:
    path = small_artifact / name
    data = path.read_bytes()
    for length in (0, 5, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(UserError):
            read_everything(small_artifact)
    path.unlink()
    with pytest.raises(UserError):
        read_everything(small_artifact)


def test_links_out_of_the_directory_are_refused(small_artifact: Path) -> None:
    path = small_artifact / "model/config.json"
    outside = small_artifact.with_name("outside.json")
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(UserError, match="outside the artifact"):
        Artifact(small_artifact)


@pytest.mark.parametrize(
    "path", ["../x", "/etc/passwd", "a/../../b", "a//b", "", ".hidden", "a\\b", "a/./b", "ü"]
)
def test_paths_are_plain(path: str) -> None:
    with pytest.raises(UserError):
        check_path(path)


def test_unlisted_files_are_found_by_check(small_artifact: Path) -> None:
    (small_artifact / "model/tokenizer.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="does not list"):
        Artifact(small_artifact).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 0}, "slots is 0"),
        ({"vocab_size": 33}, "has shape"),
        ({"memory": {"weights": Region(0, 1)}}, "memory has the parts"),
        ({"files": (FileEntry("../x", 1, ""),)}, "plain relative path"),
        ({"parallel": Parallel(2)}, r"2 ranks with weights of ranks \[0\]"),
        ({"dtype": "f31"}, "f31"),
    ],
)
def test_inconsistent_manifests_are_refused(
    small_artifact: Path, change: dict[str, object], message: str
) -> None:
    manifest = Artifact(small_artifact).manifest
    with pytest.raises(UserError, match=message):
        write_manifest(replace(manifest, **change))


def test_overlapping_memory_is_refused(small_artifact: Path) -> None:
    manifest = Artifact(small_artifact).manifest
    memory = {**manifest.memory, "cache": Region(4000, 5000)}
    with pytest.raises(UserError, match="weights and cache overlaps"):
        write_manifest(replace(manifest, memory=memory))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[" * 100000,
        b"[]",
        b"\xff",
        b'{"format": NaN}',
        b'{"format": 2}',
        b'{"format": 2, "x": 2}',
        b"1",
    ],
)
def test_other_json_is_refused(text: bytes) -> None:
    with pytest.raises(UserError) as caught:
        read_manifest(text, "artifact.json")
    assert caught.value.kind == "bad-json"


def test_future_formats_and_respelled_manifests_are_refused(small_artifact: Path) -> None:
    data = (small_artifact / "artifact.json").read_bytes()
    with pytest.raises(UserError, match="format 3"):
        read_manifest(data.replace(b'"format": 2', b'"format": 3'), "artifact.json")
    for other in (data.replace(b"\n", b"\r\n"), data + b" ", data.replace(b'"toy"', b'"t\\u006fy"')):
        assert parse_json(other, "") == parse_json(data, "")
        with pytest.raises(UserError, match="SHA-256"):
            read_manifest(other, "artifact.json")
    assert canonical_json(encode(read_manifest(data, ""))) == data


def test_other_directories_are_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("mine")
    (tmp_path / "plain").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "precious")
    for name in ("precious", "plain", "link"):
        with pytest.raises(UserError) as caught:
            ArtifactWriter(tmp_path / name)
        assert caught.value.kind == "output-exists"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "plain", "precious"]


def test_a_failed_build_leaves_the_old_artifact(small_artifact: Path) -> None:
    before = contents(small_artifact)

    def build() -> None:
        with ArtifactWriter(small_artifact) as writer:
            writer.add_file("model/config.json", b"{}")
            raise RuntimeError("the compiler failed")

    with pytest.raises(RuntimeError, match="the compiler failed"):
        build()
    assert contents(small_artifact) == before
    assert [p.name for p in small_artifact.parent.iterdir()] == ["out"]


def test_an_artifact_is_replaced_as_a_whole(small_artifact: Path, artifact_factory: Factory) -> None:
    (small_artifact / "stale").write_text("x")
    made = artifact_factory(("decode", 1, 1, 16))
    made.rename(small_artifact.with_name("kept"))
    shutil.copytree(small_artifact, made)
    artifact_factory(("decode", 1, 1, 16))
    assert contents(made) == contents(small_artifact.with_name("kept"))


def test_a_replacement_killed_between_its_renames_is_undone(small_artifact: Path) -> None:
    before = contents(small_artifact)
    small_artifact.rename(small_artifact.with_name(".out.old"))
    with ArtifactWriter(small_artifact):
        assert contents(small_artifact) == before


def test_two_builds_of_one_artifact_exclude_each_other(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path / "out"):
        with pytest.raises(UserError) as caught:
            ArtifactWriter(tmp_path / "out")
        assert caught.value.kind == "output-busy"
    with ArtifactWriter(tmp_path / "out"):
        pass


BUILD = """
import os, sys
from pathlib import Path
from typing import Any
import torch
sys.path.insert(0, sys.argv[1])
from conftest import PLAN, manifest, weight_values
from npuc.runtime.artifact_writer import ArtifactWriter
kill_after, asked = sys.argv[3], []
def stop_at(point):
    if kill_after == point:
        os._exit(9)
with ArtifactWriter(sys.argv[2], key="same") as writer:
    if not writer.has("programs/decode_1x16.stage0.elf"):
        asked.append("program")
        writer.add_program("decode_1x16", b"code")
    stop_at("program")
    weights = writer.weights(PLAN)
    def pieces(name, tensor):
        asked.append(name)
        for piece in tensor.split(1):
            yield piece
            stop_at("inside " + name)
    for name, tensor in weight_values().items():
        weights.write(name, lambda: pieces(name, tensor))
        stop_at(name)
    writer.finish(manifest([("decode", 1, 1, 16)], 32, 4, weights.close()))
print(*asked)
"""


@pytest.mark.parametrize(
    ("kill_after", "redone"),
    [
        ("inside layers#0", "layers#0 head#0"),
        ("inside head#0", "head#0"),
        ("head#0", ""),
    ],
)
def test_a_killed_build_resumes_to_the_same_bytes(tmp_path: Path, kill_after: str, redone: str) -> None:
    """Finished programs and tensors are not made again, and the result is that of an uninterrupted build."""

    def build(name: str, kill: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", BUILD, str(Path(__file__).parent), str(tmp_path / name), kill]
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})

    assert build("straight", "").stdout == "program layers#0 head#0\n"
    assert build("resumed", kill_after).returncode == 9
    assert not (tmp_path / "resumed").exists()
    assert build("resumed", "").stdout.strip() == redone
    assert contents(tmp_path / "resumed") == contents(tmp_path / "straight")


@pytest.mark.parametrize(("first", "second"), [("ab", "c"), ("cb", "a"), ("b", "ac"), ("", "abc")])
def test_the_hash_of_weights_is_that_of_the_file(tmp_path: Path, first: str, second: str) -> None:
    """Computed while they are written in order; what is out of order, or was there before, is read."""
    plan = [TensorPlan(name, "f32", (1000,)) for name in "abc"]
    path = tmp_path / "weights.safetensors"
    for names in (first, second):
        writer = WeightWriter(path, plan)
        for name in names:
            writer.write(name, torch.full((1000,), float(ord(name))).split(300))
        writer.abandon() if names == first else writer.close()
    assert writer.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    tensors = load_file(path)
    assert all(torch.equal(tensors[name], torch.full((1000,), float(ord(name)))) for name in "abc")


def test_wrong_pieces_are_a_programming_error(tmp_path: Path) -> None:
    with ArtifactWriter(tmp_path / "out") as writer:
        weights = writer.weights([TensorPlan("a", "f32", (4,))])
        for wrong in (torch.zeros(3), torch.zeros(5), torch.zeros(4, dtype=torch.bfloat16)):
            with pytest.raises(ValueError, match="a: "):
                weights.write("a", [wrong])
        with pytest.raises(ValueError, match="not written: a"):
            weights.close()


WRONG = (None, 0, -1, 2**40, 2**63, 10**400, "", "../x", [], {}, [[]], True, 1.5, "f32", "decode")


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values inside a JSON value."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [path, *(place for key in keys for place in places(value[key], (*path, key)))]


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_wrong_manifests_with_a_right_hash_are_one_error(small_artifact: Path, data: st.DataObject) -> None:
    """Whatever a manifest says, reading the artifact works or ends in a UserError."""
    path = small_artifact / "artifact.json"
    original = path.read_bytes()
    value = parse_json(original, "")
    *parents, key = data.draw(st.sampled_from(places(value)[1:]))
    inner = value
    for parent in parents:
        inner = inner[parent]
    inner[key] = data.draw(st.sampled_from(WRONG))
    value["sha256"] = ""
    value["sha256"] = hashlib.sha256(canonical_json(value)).hexdigest()
    path.write_bytes(canonical_json(value))
    try:
        with contextlib.suppress(UserError):
            read_everything(small_artifact)
    finally:
        path.write_bytes(original)
