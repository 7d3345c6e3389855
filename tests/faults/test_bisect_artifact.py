"""`irc bisect` of artifacts: damaged programs and weights are found down to the command, two artifacts to the
first operation that differs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from npuc.backends.instruction import Instruction
from npuc.ir.printing import print_ir
from npuc.passes.bisection.comparison import partners_of
from npuc.passes.bisection.states import State
from npuc.passes.ir_files import parse_ir
from npuc.runtime.artifact import Artifact
from npuc.runtime.manifest import FILE_NAME, Manifest, write_manifest
from npuc.runtime.simulator.program import load_program
from npuc.tools import irc
from planting import planted
from safetensors.torch import load_file, save_file
from table import BY_NAME
from tiny import tiny_llama
from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, ModuleOp
from xdsl.passes import ModulePass

UP = "model.layers.{}.mlp.up_proj"


BUCKETS = ("--decode-buckets", "1x8")


def compiled(root: Path, out: Path, *flags: object) -> Path:
    assert irc.main(["compile", str(root), "-t", "rngd", "-o", str(out), *map(str, flags or BUCKETS)]) == 0
    return out


def imported(artifact: Path) -> tuple[str, Path]:
    """Flags to begin with what an artifact was made from, which saves tracing the model again."""
    return "--compile-from", artifact / "debug" / "import.mlir"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def artifact(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(checkpoint, tmp_path_factory.mktemp("artifact") / "out")


@pytest.fixture
def bisect(capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    def run(*words: object, status: int | None = None) -> dict[str, Any]:
        capsys.readouterr()
        found = irc.main(["bisect", *map(str, words), "--json"])
        data = json.loads(capsys.readouterr().out)
        assert found == (int(data.get("found", True)) if status is None else status)
        return data

    return run


def patched(
    artifact: Path, folder: Path, location: str, change: Callable[[Instruction], Instruction]
) -> tuple[Path, int]:
    """A copy whose program has one command changed: the first from a location that the change is for."""
    copy = folder / "patched"
    shutil.copytree(artifact, copy)
    opened = Artifact(copy)
    file = copy / opened.manifest.programs[0].file
    from npuc.backends.elf import parse_program

    data = bytearray(file.read_bytes())
    program = parse_program(bytes(data), str(file))
    start = data.find(program.text)
    for item in load_program(opened.machine, program).items:
        new = change(item.instruction) if item.instruction.location == location else item.instruction
        if new != item.instruction:
            code = opened.machine.encode(new)
            data[start + item.offset : start + item.offset + len(code)] = code
            file.write_bytes(data)
            return copy, item.offset
    raise AssertionError(f"no command of {location} can be changed")


def wider(instruction: Instruction) -> Instruction:
    strides = instruction.fields.get("stream.strides")
    if not isinstance(strides, Sequence) or "stationary.base" in instruction.fields:
        return instruction
    return replace(
        instruction, fields={**instruction.fields, "stream.strides": tuple(2 * s for s in strides)}
    )


def unsynchronized(instruction: Instruction) -> Instruction:
    return replace(instruction, waits=())


def test_an_artifact_is_what_its_ir_gives(
    artifact: Path, checkpoint: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    assert bisect(artifact)["notes"] == ["weights are made up: --weights MODEL gives the real ones"]
    found = bisect(artifact, "--against", checkpoint)
    assert (found["found"], found["notes"]) == (False, [])
    assert found["runs"][-1]["pass"] == "artifact"


@pytest.mark.parametrize("weights", [True, False], ids=["its-weights", "made-up-weights"])
def test_a_changed_command_is_found(
    weights: bool, artifact: Path, checkpoint: Path, tmp_path: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    copy, offset = patched(artifact, tmp_path, f"tile.pass {UP}", wider)
    found = bisect(copy, *(("--weights", checkpoint) if weights else ()))
    assert (found["phase"], found["pass"], found["program"]) == ("emit", "artifact", "decode_1x8")
    assert (found["op"], found["module"], found["command_offset"]) == ("tile.pass", UP, offset)
    assert found["explanation"].endswith("decode_1x8.stage0.elf is not the file that the compile wrote")
    assert [lines[2] != found["after"][2] for lines in (found["before"], found["after"])] == [True, False]


def test_a_command_that_waits_no_more_is_found(
    artifact: Path, tmp_path: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    copy, offset = patched(artifact, tmp_path, f"tile.pass {UP}", unsynchronized)
    found = bisect(copy)
    assert (found["kind"], found["pass"], found["command_offset"]) == ("hazard", "artifact", offset)
    assert found["next"] == ""  # irc sim would refuse the file


def test_a_file_that_cannot_be_decoded_is_found(
    artifact: Path, tmp_path: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    copy, offset = patched(artifact, tmp_path, f"tile.pass {UP}", wider)
    file = copy / Artifact(copy).manifest.programs[0].file
    data, original = bytearray(file.read_bytes()), (artifact / file.relative_to(copy)).read_bytes()
    first = next(i for i, (a, b) in enumerate(zip(data, original, strict=True)) if a != b)
    from npuc.backends.elf import parse_program

    start = original.find(parse_program(original, "").text)
    assert start + offset <= first
    data[start + offset] = 0xEE
    file.write_bytes(data)
    found = bisect(copy)
    assert (found["pass"], found["command_offset"]) == ("artifact", offset)
    assert "unknown opcode 0xee" in found["explanation"]


def test_other_weights_are_found(
    artifact: Path, checkpoint: Path, tmp_path: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    """The artifact is whole; the checkpoint beside it has other values in one layer."""
    other = tmp_path / "model"
    shutil.copytree(checkpoint, other)
    values = load_file(other / "model.safetensors")
    values["model.layers.1.mlp.up_proj.weight"] *= 2
    save_file(values, other / "model.safetensors", {"format": "pt"})
    found = bisect(artifact, "--weights", other)
    assert (found["pass"], found["op"], found["module"]) == ("artifact", "tile.packed", UP)


def test_a_fault_of_this_compiler_is_not_one_of_the_file(
    artifact: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    """An artifact of a right compiler, bisected with one that has a fault: two versions that differ."""
    with planted(BY_NAME["wrong-immediate"]):
        found = bisect(artifact)
    fault = BY_NAME["wrong-immediate"]
    assert (found["pass"], found["op"], found["module"]) == (fault.step, fault.op, fault.module)


def test_two_compilers_are_told_apart(
    artifact: Path, checkpoint: Path, tmp_path: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    """An artifact of a compiler with a fault, compared by a right one with what a right one made."""
    with planted(BY_NAME["wrong-immediate"]):
        other = compiled(checkpoint, tmp_path / "other", *BUCKETS, *imported(artifact))
    found = bisect(other, "--against", artifact, "--weights", checkpoint)
    assert (found["side"], found["pass"]) == (str(other), "artifact")
    assert (found["op"], found["module"]) == ("tile.pass", "model.layers.{}.post_attention_layernorm")
    assert found["next"] == f"irc explain {other} decode_1x8@{found['command_offset']:#x}"
    turned = bisect(artifact, "--against", other, "--weights", checkpoint)
    assert (turned["side"], turned["command_offset"]) == (str(other), found["command_offset"])


def test_artifacts_of_other_schemes_and_buckets_are_compared(
    artifact: Path, checkpoint: Path, tmp_path: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    flags = ("--decode-buckets", "1x8,1x16", "--quantize", "w8a16")
    rounded = compiled(checkpoint, tmp_path / "rounded", *flags, *imported(artifact))
    found = bisect(rounded, "--against", artifact)
    assert (found["side"], found["pass"], found["op"]) == (str(rounded), "quantize-weights", "graph.linear")
    assert found["module"] == "model.layers.0.self_attn.q_proj"
    assert found["notes"][:2] == ["compared: decode_1x8", f"quantization: w8a16; none in {artifact}"]


@pytest.mark.skipif("NPUC_ALL_FAULTS" not in os.environ, reason="opt-in: NPUC_ALL_FAULTS=1")
def test_artifacts_of_other_types_are_compared(
    artifact: Path, checkpoint: Path, tmp_path: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    narrow = compiled(checkpoint, tmp_path / "narrow", "--decode-buckets", "1x8", "--dtype", "bfloat16")
    assert not bisect(narrow, "--against", artifact)["found"]
    found = bisect(narrow, "--against", artifact, "--tolerance", "1e-5")
    files = f"{artifact}/debug/import.mlir {narrow}/debug/import.mlir"
    assert (found["phase"], found["next"]) == ("import", f"irc diff {files}")


def test_ir_of_an_earlier_phase_is_right(
    artifact: Path, checkpoint: Path, tmp_path: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    """Before it is taken as right, the IR is changed: the states disagree with it from the first on."""
    file = tmp_path / "specialize.mlir"
    compiled(checkpoint, file, *BUCKETS, *imported(artifact), "--compile-to", "specialize")
    given = ("--against", file, "--weights", checkpoint)
    assert not bisect(artifact, *given)["found"]
    edited(file, "model.norm")
    found = bisect(artifact, *given)
    assert (found["phase"], found["module"]) == ("import", "model.norm")
    given = (checkpoint, "-t", "rngd", *imported(artifact), "--against", file)
    found = bisect(*given, *BUCKETS)
    assert (found["phase"], found["module"]) == ("import", "model.norm")
    found = bisect(*given, "--decode-buckets", "1x16", status=1)
    assert found["error"]["message"] == "it has no program decode_1x16, only decode_1x8"


def edited(file: Path, module: str) -> None:
    """Changes the epsilon of a norm."""
    ir: ModuleOp = parse_ir(file)
    for op in ir.walk():
        if op.name == "graph.rms_norm" and str(op.attributes["module"]) == f'"{module}"':
            op.attributes["eps"] = FloatAttr(0.5, op.attributes["eps"].type)  # pyright: ignore
    file.write_text(print_ir(ir), encoding="utf-8")


def without_debug(manifest: Manifest) -> Manifest:
    return replace(manifest, files=tuple(f for f in manifest.files if not f.path.startswith("debug/")))


def of_another_model(manifest: Manifest) -> Manifest:
    return replace(manifest, source=replace(manifest.source, config_sha256="0" * 64))


def of_another_shape(manifest: Manifest) -> Manifest:
    program = replace(manifest.programs[0], name="decode_1x9", length=9)
    return replace(manifest, programs=(program,), buckets={**manifest.buckets, "decode": ((1, 9),)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_debug, "does not hold the IR"),
        (of_another_model, "was compiled from another config.json"),
        (of_another_shape, "no program is of the shape of one of"),
    ],
)
def test_what_cannot_be_compared(
    change: Callable[[Manifest], Manifest],
    message: str,
    artifact: Path,
    tmp_path: Path,
    bisect: Callable[..., dict[str, Any]],
) -> None:
    other = tmp_path / "other"
    shutil.copytree(artifact, other)
    (other / FILE_NAME).write_bytes(write_manifest(change(Artifact(artifact).manifest)))
    assert message in bisect(artifact, "--against", other, status=1)["error"]["message"]


def test_a_checkpoint_of_another_model_is_refused(
    artifact: Path, checkpoint: Path, tmp_path: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    other = shutil.copytree(checkpoint, tmp_path / "model")
    (other / "config.json").write_text((other / "config.json").read_text().replace("64", "65"))
    assert "config.json is not that of" in bisect(artifact, "--weights", other, status=1)["error"]["message"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("-t", "rngd"), "--target: an artifact"),
        (("--decode-buckets", "1x8"), "--decode-buckets: an artifact"),
        (("--quantize", "w8a16"), "--quantize: an artifact"),
    ],
)
def test_what_an_artifact_settles(
    words: tuple[str, ...], message: str, artifact: Path, bisect: Callable[..., dict[str, Any]]
) -> None:
    assert message in bisect(artifact, *words, status=2)["error"]["message"]


def test_states_have_partners() -> None:
    """Also where one compile has passes that the other has not."""

    class Named(ModulePass):
        def apply(self, ctx: Context, op: ModuleOp) -> None:
            pass

    def states(*names: str) -> list[State]:
        steps = [None, *(type("Step", (Named,), {"name": name})() for name in names)]
        return [State("x", step, ModuleOp([])) for step in steps]

    assert partners_of(states("a", "q", "b"), states("a", "b")) == [0, 1, 1, 2]
    assert partners_of(states("a", "b"), states("a", "q", "b")) == [0, 1, 3]
    assert partners_of(states("a", "b", "c"), states("a", "b")) == [0, 1, 2, 2]
