"""A compiled artifact on the simulator: the same tokens and logits as transformers, through every bucket."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from npuc.ir.errors import UserError
from npuc.passes.buckets import Bucket
from npuc.passes.compile import Compilation, compile_model
from npuc.runtime.artifact import Artifact
from npuc.runtime.llm import LLM
from npuc.runtime.sampling import SamplingParams
from npuc.runtime.verify import verify
from npuc.tools.commands.profile import time_program

BUCKETS = (
    Bucket("prefill", 1, 8, 8),
    Bucket("prefill", 2, 8, 8),
    Bucket("extend", 2, 4, 32),
    Bucket("decode", 3, 1, 48),
)
PROMPTS = [[1, 5, 9], list(range(4, 24)), [7] * 8, [11], [30, 29, 28, 27]]


@pytest.fixture(scope="module")
def compiled(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled tiny model, moved elsewhere, with the checkpoint gone."""
    made = tmp_path_factory.mktemp("compiled") / "made"
    checkpoint = made.with_name("checkpoint")
    shutil.copytree(tiny_model, checkpoint)
    compile_model(Compilation(str(checkpoint), "rngd", buckets=BUCKETS), made)
    shutil.rmtree(checkpoint)
    return made.rename(made.with_name("moved"))


def test_generation_is_that_of_transformers(compiled: Path, fake_llm: Callable[..., LLM]) -> None:
    """Five prompts share three slots; each gets the tokens of the same schedule on transformers."""
    params = [
        SamplingParams(max_tokens=count, ignore_eos=True, return_logits=True, temperature=0.7, seed=count)
        for count in (9, 5, 12, 20, 3)
    ]
    llm = LLM(compiled)
    outputs = llm.generate(PROMPTS, params)
    buckets = [(b.kind, b.batch, b.new_tokens, b.length) for b in BUCKETS]
    expected = fake_llm(*buckets, slots=llm.device.slots).generate(PROMPTS, params)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.token_ids == theirs.token_ids
        assert ours.logits is not None
        assert theirs.logits is not None
        torch.testing.assert_close(ours.logits, theirs.logits, rtol=1e-4, atol=1e-4)
        assert 0 < ours.simulated_seconds < 1
    assert [o.token_ids for o in llm.generate(PROMPTS, params)] == [o.token_ids for o in outputs]


def test_every_program_is_verified(compiled: Path, tiny_model: Path) -> None:
    report = verify(compiled, tiny_model)
    assert report["max_rel_error"] < 1e-5
    assert report["top1_agreement"] == 1.0
    assert {p["name"] for p in report["programs"]} == {b.name for b in BUCKETS}


def test_configuration_alone_is_timed_but_not_run(tiny_model: Path, tmp_path: Path) -> None:
    """The programs are the same as with weights, so is their time; running them is refused."""
    (tmp_path / "model").mkdir()
    shutil.copy(tiny_model / "config.json", tmp_path / "model")
    programs: list[bytes] = []
    for model, weights in ((tmp_path / "model", False), (tiny_model, True)):
        output = tmp_path / f"weights-{weights}"
        found = compile_model(Compilation(str(model), "rngd", buckets=BUCKETS[:1], weights=weights), output)
        assert (found["weight_bytes"] > 0) == weights
        programs.append((output / "programs/prefill_1x8.stage0.elf").read_bytes())
    assert programs[0] == programs[1]
    artifact = Artifact(tmp_path / "weights-False")
    assert time_program(artifact, artifact.manifest.programs[0], artifact.machine).cycles > 0
    with pytest.raises(UserError, match="compiled without weights and is for timing only"):
        LLM(artifact.path).generate([[5]], SamplingParams(max_tokens=1))


def test_damaged_programs_do_not_run(compiled: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(compiled, tmp_path / "damaged")
    path = damaged / "programs/prefill_1x8.stage0.elf"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        LLM(damaged).generate([[5]], SamplingParams(max_tokens=1))
    assert caught.value.kind == "damaged-artifact"
