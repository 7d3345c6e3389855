"""Quantized models from checkpoint to commands, against transformers on the values that they stand for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import npuc
import pytest
import torch
import transformers
from npuc.ir.errors import UserError
from npuc.passes.buckets import parse_bucket
from npuc.runtime.artifact import Artifact
from npuc.runtime.quantized_reference import load_quantized
from npuc.runtime.tokenizer import Tokenizer
from npuc.runtime.verify import read_documents, verify
from npuc.tools import irc
from npuc.tools.fp8_checkpoint import write_fp8
from roundings import Settling, compare_settled
from sanitized import FirstRunsSanitized

TOY = str(Path(__file__).parents[1] / "toy" / "toy.npu")
BUCKETS = [parse_bucket("prefill", "1x8"), parse_bucket("decode", "1x16")]
CONFIG: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
    "initializer_range": 0.1, "tie_word_embeddings": True, "bos_token_id": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Qwen2: its query, key and value layers have biases, which scales come before."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("qwen2")
    made = transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**CONFIG))
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.5)
    made.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def fp8(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8") / "model"
    tokens = torch.randint(0, 96, (4, 24), generator=torch.Generator().manual_seed(1))
    write_fp8(model, folder, tokens.tolist(), ["lm_head", "model.layers.1.self_attn.o_proj"])
    return folder


@pytest.fixture(scope="module")
def rounded(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    artifact = tmp_path_factory.mktemp("w8a16") / "out"
    npuc.compile(model, artifact, target="rngd", buckets=BUCKETS, quantize="w8a16")
    return artifact


def stored_types(artifact: Path) -> dict[str, set[str]]:
    """The types in the weight file: of matrices of the layers, and of the embedding."""
    from npuc.frontends.safetensors import read_file

    tensors = read_file(artifact / "weights" / "rank0.safetensors")
    matrices = {t.dtype for name, t in tensors.items() if "proj" in name and len(t.shape) == 6}
    return {"layers": matrices, "embedding": {t.dtype for n, t in tensors.items() if "embed" in n}}


def test_rounded_weights_compute_what_they_stand_for(model: Path, rounded: Path) -> None:
    device = FirstRunsSanitized(Artifact(rounded))
    found = verify(rounded, model, device=device)
    assert found["quantization"] == {"scheme": "w8a16", "inputs": False}
    assert found["max_rel_error"] <= 1e-5
    assert found["cosine"] >= 0.9999
    assert device.hazards == []
    # Each byte of the layers' matrices is a value; the head, tied to the embedding, was not asked for.
    assert stored_types(rounded) == {"layers": {"I8"}, "embedding": {"F32"}}


def test_the_reference_is_rounded(model: Path, rounded: Path) -> None:
    """Without rounding it would be a thousand times farther away."""
    recipe = Artifact(rounded).manifest.recipe
    assert recipe is not None
    assert {entry["by"] for entry in recipe["weights"]} == {"compile"}
    tokens = torch.arange(16)[None]
    plain: Any = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    with torch.no_grad():
        values = plain(tokens).logits
        difference = (load_quantized(model, torch.float32, recipe)(tokens).logits - values).abs().max()
    assert float(difference / values.abs().max()) > 1e-3


def test_another_shape_of_machine_and_every_layer(model: Path, tmp_path: Path) -> None:
    """The head, tied to the embedding, is rounded as well, the embedding is not; products are of bf16."""
    status = irc.main(
        ["compile", str(model), "-t", TOY, "-o", str(tmp_path / "out"), "--dtype", "bfloat16",
         "--prefill-buckets", "1x8", "--decode-buckets", "1x16",
         "--quantize", "w8a16", "--quantize-ignore", ""]
    )  # fmt: skip
    assert status == 0
    found = verify(tmp_path / "out", model)
    assert found["cosine"] >= 0.9999
    assert stored_types(tmp_path / "out") == {"layers": {"I8"}, "embedding": {"I8", "F32", "BF16"}}


def test_fp8_products(fp8: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    npuc.compile(fp8, tmp_path / "out", target="rngd", buckets=BUCKETS)
    device = FirstRunsSanitized(Artifact(tmp_path / "out"))
    found = verify(tmp_path / "out", fp8, device=device)
    assert found["quantization"] == {"scheme": "checkpoint", "inputs": True}
    assert found["cosine"] >= 0.9999
    assert device.hazards == []
    assert stored_types(tmp_path / "out") == {"layers": {"F8_E4M3", "F32"}, "embedding": {"F32"}}
    assert irc.main(["inspect", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "quantization  checkpoint, inputs too" in shown
    assert "model.layers.{}.mlp.up_proj.weight" in shown
    assert "f8E4M3FN" in shown
    lines = {
        line.split()[0]: line for line in shown.splitlines() if line.endswith(("layers 0", "layers 0-1"))
    }
    assert lines["model.layers.{}.self_attn.o_proj.weight"].endswith("layers 0")
    assert lines["model.layers.{}.mlp.up_proj.weight"].endswith("layers 0-1")
    assert irc.main(["profile", str(tmp_path / "out"), "--program", "decode_1x16", "--json"]) == 0
    (program,) = json.loads(capsys.readouterr().out)["programs"]
    assert program["least_dram_bytes"] == least_bytes(fp8, positions=16)


def test_fp8_of_a_sensitive_model(shared: Path, tmp_path: Path) -> None:
    """One rounding that tips over changes stories3M's logits as much as all rounding does; all are right.

    So the reference rounds as the artifact did wherever that is a right rounding of its own value. Seven
    stories are measured in tests/bench/test_quantized.py.
    """
    source, text = shared / "models" / "stories3M", shared / "text"
    encode = Tokenizer(source).encode
    tokens = encode((text / "tinystories_197k.txt").read_text()[:4000])
    write_fp8(source, tmp_path / "fp8", [tokens[128 * i :][:128] for i in range(4)])
    buckets = [parse_bucket("prefill", "1x64"), parse_bucket("decode", "1x128")]
    npuc.compile(tmp_path / "fp8", tmp_path / "out", target="rngd", buckets=buckets)
    document = encode(read_documents(text / "tinystories_valid.txt")[0])[:72]
    found, roundings = compare_settled(tmp_path / "out", tmp_path / "fp8", [document])
    assert roundings.roundings == 72 * 6 * (6 * 192 + 512)
    assert roundings.wrong == 0
    assert roundings.different <= 1e-4 * roundings.roundings
    assert found.min_cosine >= 0.999999
    assert found.max_rel_error <= 1e-5


def test_only_right_roundings_are_followed() -> None:
    """1.0625 is a tie of 1 and 1.125, which 1.01 is not; the third is not one but for float32."""
    settling = Settling({"": torch.tensor([[448, 1.125, 1.125, 1.125]])})
    settled = settling("", torch.tensor([[[448, 1.0625, 1.01, 1.0625 - 2**-15]]]))
    assert settled.tolist() == [[[448, 1.125, 1, 1.125]]]
    assert (settling.roundings, settling.open, settling.different, settling.wrong) == (4, 2, 3, 1)


def least_bytes(checkpoint: Path, positions: int) -> int:
    """What a decode step moves: all weights as stored, a row of the table, caches, logits; all else f32."""
    from npuc.frontends.safetensors import read_file

    tensors = read_file(checkpoint / "model.safetensors")
    weights = sum(t.bytes for name, t in tensors.items() if not name.endswith("_scale"))
    heads = CONFIG["num_hidden_layers"] * CONFIG["num_key_value_heads"]
    keys_and_values = 2 * heads * CONFIG["hidden_size"] // CONFIG["num_attention_heads"]
    elements = CONFIG["hidden_size"] + (positions + 1) * keys_and_values + CONFIG["vocab_size"]
    return weights + 4 * elements


def test_another_reference(rounded: Path, tmp_path: Path) -> None:
    config = transformers.GPT2Config(
        vocab_size=96, n_embd=16, n_layer=1, n_head=2, n_positions=32, bos_token_id=1, eos_token_id=2
    )
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "other")
    with pytest.raises(UserError, match="the reference has no linear layer model"):
        verify(rounded, tmp_path / "other")


def test_checks_go_on_behind_what_is_rounded(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = irc.main(
        ["compile", str(model), "-t", "rngd", "-o", str(tmp_path / "ir.mlir"), "--quantize", "w8a16",
         "--decode-buckets", "1x16", "--check", "--compile-to", "tile"]
    )  # fmt: skip
    lines = capsys.readouterr().err.splitlines()
    assert status == 0, lines
    assert any(line.startswith("check: quantize-weights") for line in lines)
    assert any(line.startswith("check: lower-to-tile") for line in lines)


def test_cores_share_rounded_weights(model: Path, tmp_path: Path) -> None:
    """Scales are of whole rows, also where a core holds only some columns."""
    status = irc.main(
        ["compile", str(model), "-t", "rngd", "-o", str(tmp_path / "out"), "--quantize", "w8a16",
         "--tensor-parallel", "2", "--prefill-buckets", "1x8", "--decode-buckets", "1x16"]
    )  # fmt: skip
    assert status == 0
    assert verify(tmp_path / "out", model)["max_rel_error"] <= 1e-5
