"""Quantized checkpoints: what they say, what they compute, and what is refused with which words."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from npuc.frontends.checkpoint import open_checkpoint
from npuc.frontends.declared import DeclaredCheckpoint
from npuc.frontends.quantization import Group, LayerQuantization, Quantization, StoredAs, read_quantization
from npuc.frontends.quantized_linear import replace_linears
from npuc.frontends.trace_model import TracedModel, trace_model
from npuc.frontends.transformers_export import ModuleImporter, import_model
from npuc.frontends.weight_reader import WeightReader
from npuc.frontends.weight_table import WeightTable
from npuc.ir import graph, nquant
from npuc.ir.errors import UserError
from npuc.ir.interpret import Caches, Runtime, interpret
from npuc.runtime.quantized_reference import load_dequantized
from npuc.tools.fp8_checkpoint import write_fp8
from torch import Tensor, nn
from xdsl.dialects.builtin import Float8E4M3FNType, ModuleOp, f32, i8

FP8 = StoredAs(Float8E4M3FNType())
CONFIG = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
    "initializer_range": 0.5,
}  # fmt: skip
TOKENS = torch.arange(12, dtype=torch.int32).reshape(2, 6) * 5


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("llama")
    config = transformers.LlamaConfig(**CONFIG, tie_word_embeddings=True)
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def fp8(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fp8") / "model"
    write_fp8(llama, folder, TOKENS.tolist(), ["lm_head", "model.layers.1.mlp.*"])
    config = json.loads((folder / "config.json").read_text())
    mlp = [f"model.layers.1.mlp.{name}_proj" for name in ("gate", "up", "down")]
    assert config["quantization_config"]["ignored_layers"] == [*mlp, "lm_head"]
    # The same layers as a pattern, which AutoFP8 takes as well.
    config["quantization_config"]["ignored_layers"] = ["lm_head", r"re:model\.layers\.1\.mlp.*"]
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def interpreted(folder: Path, module: ModuleOp) -> Tensor:
    positions = torch.arange(6, dtype=torch.int32).repeat(2, 1)
    caches = Caches.allocate(module, 2, 8)
    runtime = Runtime([0, 1], [0, 0], [6, 6], 8)
    return interpret(module, [TOKENS, positions], WeightReader(folder), caches, runtime)[0]


@pytest.fixture(scope="module")
def traced(fp8: Path) -> TracedModel:
    checkpoint = open_checkpoint(fp8)
    quantization = read_quantization(checkpoint.config_json, "config.json")
    return trace_model(checkpoint.config, torch.float32, quantization)


def assembled(traced: TracedModel, folder: Path) -> ModuleOp:
    """The module of a model that was traced already, with the weights of a folder."""
    return ModuleImporter(traced, WeightTable(traced.model, open_checkpoint(folder))).run()


def changed(source: Path, target: Path, change: Callable[[dict[str, Tensor]], Any]) -> Path:
    """A copy of a checkpoint with changed tensors."""
    tensors = safetensors.torch.load_file(source / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, target / "model.safetensors")
    shutil.copyfile(source / "config.json", target / "config.json")
    return target


def test_autofp8_computes_what_it_means(fp8: Path) -> None:
    module = import_model(fp8)
    with torch.no_grad():
        wanted = load_dequantized(fp8)(TOKENS.long()).logits
    torch.testing.assert_close(interpreted(fp8, module), wanted, rtol=0, atol=1e-5)
    stored = [op for op in module.ops if isinstance(op, graph.WeightOp) and "mlp.up_proj.weight" in str(op)]
    kinds = {op.sym_name.data: op.layer_list for op in stored}
    quantized = [op.layer_list for op in stored if isinstance(op.type.element_type, nquant.QuantizedType)]
    assert (0, 2) in quantized, kinds
    assert (1,) in kinds.values(), kinds


def test_input_scales_are_of_the_model_that_runs(llama: Path, tmp_path: Path) -> None:
    """On the one document that they were measured on, the largest input of each layer becomes 448."""
    paths = write_fp8(llama, tmp_path / "fp8", TOKENS[:1].tolist())
    stored = safetensors.torch.load_file(tmp_path / "fp8" / "model.safetensors")
    model, largest = load_dequantized(tmp_path / "fp8"), dict[str, Tensor]()

    def watching(path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            largest[path] = args[0].abs().max() / stored[f"{path}.input_scale"]

        return hook

    for path in paths:
        model.get_submodule(path).register_forward_pre_hook(watching(path))
    with torch.no_grad():
        model(TOKENS[:1].long())
    assert len(paths) == CONFIG["num_hidden_layers"] * 7
    torch.testing.assert_close(torch.stack(list(largest.values())), torch.full((21,), 448.0))


@pytest.mark.parametrize("has_values", [True, False], ids=["weights", "no-weights"])
def test_equal_inputs_are_rounded_once(fp8: Path, traced: TracedModel, has_values: bool) -> None:
    """Query, key and value layers share their input and its scale; so do gate and up."""
    checkpoint = open_checkpoint(fp8) if has_values else DeclaredCheckpoint(fp8, traced.model)
    module = ModuleImporter(traced, WeightTable(traced.model, checkpoint)).run()
    kinds = [op for op in module.ops if getattr(op, "sym_visibility", None)]
    counts = [sum(isinstance(op, nquant.QuantizeOp) for op in kind.walk()) for kind in kinds]
    assert sorted(counts) == [0, 2, 4]


@pytest.mark.parametrize("name", ["stories3M-ct-fp8-static"])
def test_compressed_tensors_compute_what_that_library_says(name: str, shared: Path) -> None:
    pytest.importorskip("compressed_tensors")
    folder = shared / "checkpoints" / name
    reference: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        wanted = reference(TOKENS.long()).logits
        assert torch.equal(load_dequantized(folder)(TOKENS.long()).logits, wanted)
    torch.testing.assert_close(interpreted(folder, import_model(folder)), wanted, rtol=0, atol=1e-4)


def group(weights: dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    """A compressed-tensors configuration with one group."""
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}}
    fixed = {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": groups}
    return {"quantization_config": {**fixed, "ignore": ["lm_head"], **more}}


FLOAT = {"num_bits": 8, "type": "float", "strategy": "tensor", "symmetric": True, "dynamic": False}
INT = {**FLOAT, "type": "int", "strategy": "channel"}


def test_compressed_tensors_configurations() -> None:
    found = read_quantization(group(FLOAT, FLOAT), "config.json")
    assert found is not None
    assert found.of("model.layers.0.mlp.up_proj") == LayerQuantization(FP8, FP8)
    assert found.of("lm_head") is None
    weights_only = read_quantization(group(INT, format="int-quantized"), "config.json")
    assert weights_only is not None
    assert weights_only.of("x.o_proj") == LayerQuantization(StoredAs(i8, "channel"))
    assert StoredAs(i8, "channel").scheme(f32) == nquant.SchemeAttr.of(i8, f32, "channel")
    assert read_quantization({}, "config.json") is None


def test_a_pattern_without_end_is_an_error() -> None:
    raw = group(FLOAT)
    raw["quantization_config"]["ignore"] = [r"re:(?:(?:a|b|ab)+)+c|(?:\w*\w*)*\d\d\d"]
    found = read_quantization(raw, "config.json")
    assert found is not None
    with pytest.raises(UserError, match=r"takes more than 1\.0 s to match (ab){25}"):
        found.of("ab" * 25)


def test_targets_are_classes_paths_and_patterns() -> None:
    raw = group(FLOAT)
    raw["quantization_config"]["config_groups"]["group_0"]["targets"] = ["re:.*mlp.*", "a.b", "k_proj"]
    found = read_quantization(raw, "config.json")
    assert found is not None
    chosen = {path for path in ("x.mlp.up", "a.b", "a.c", "x.k_proj", "k_projx") if found.of(path)}
    assert chosen == {"x.mlp.up", "a.b", "x.k_proj"}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "method": ({"quantization_config": {"quant_method": "gptq"}}, "quant_method 'gptq' is not supported"),
    "no method": ({"quantization_config": {}}, "quant_method is None, expected a name"),
    "no object": ({"quantization_config": 3}, "expected an object, got 3"),
    "blocks": (
        {"quantization_config": {"quant_method": "fp8", "activation_scheme": "static",
                                 "weight_block_size": [128, 128]}},
        r"weight_block_size \[128, 128\] is not supported",
    ),
    "dynamic": (group(FLOAT, {**FLOAT, "dynamic": True}), "dynamic True is not supported"),
    "bits": (group({**INT, "num_bits": 4}), "int of 4 bits"),
    "packed": (group(INT, format="pack-quantized"), "format 'pack-quantized' is not supported"),
    "groups of columns": (group({**INT, "strategy": "group"}), "strategy 'group' is not supported"),
    "zero points": (group({**INT, "symmetric": False}), "symmetric False is not supported"),
    "caches": (group(FLOAT, kv_cache_scheme=FLOAT), "kv_cache_scheme .* is not supported"),
    "integer inputs": (group(INT, {**INT, "strategy": "tensor"}), "type 'int' is not supported"),
    "a bad pattern": (group(FLOAT, ignore=["re:("]), "which is no pattern"),
    "a bad list": (group(FLOAT, ignore="lm_head"), "expected a list of names"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_configurations(name: str) -> None:
    config, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as caught:
        read_quantization(config, "config.json")
    assert caught.value.kind in ("unsupported-quantization", "bad-quantization")
    assert caught.value.where.startswith("config.json: quantization_config")
    assert "\n" not in str(caught.value)


UP = "model.layers.0.mlp.up_proj"
DAMAGES: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "missing scale": (lambda t: t.pop(f"{UP}.weight_scale"), rf"{UP}\.weight_scale is missing"),
    "missing input scale": (lambda t: t.pop(f"{UP}.input_scale"), rf"{UP}\.input_scale is missing"),
    "scale of another shape": (
        lambda t: t.update({f"{UP}.weight_scale": torch.ones(24)}),
        rf"{UP}\.weight_scale has shape \[24\], the model expects \[\]",
    ),
    "weight of another shape": (
        lambda t: t.update({f"{UP}.weight": t[f"{UP}.weight"][:20].clone()}),
        r"has shape \[20, 16\], the model expects \[24, 16\]",
    ),
    "weight of another type": (
        lambda t: t.update({f"{UP}.weight": t[f"{UP}.weight"].float()}),
        rf"{UP}\.weight has type F32, its quantization says F8_E4M3",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_checkpoints(name: str, fp8: Path, traced: TracedModel, tmp_path: Path) -> None:
    change, message = DAMAGES[name]
    changed(fp8, tmp_path, change)
    with pytest.raises(UserError, match=message):
        assembled(traced, tmp_path)


def test_stored_values_need_a_scale(llama: Path, fp8: Path) -> None:
    traced = trace_model(open_checkpoint(llama).config, torch.float32)
    message = r"\.weight has type F8_E4M3, and config.json does not say how it is quantized"
    with pytest.raises(UserError, match=message):
        assembled(traced, fp8)


def test_a_quantization_of_no_layer() -> None:
    quantization = Quantization((Group(("Linear",), LayerQuantization(FP8)),), ("re:.*",))
    with pytest.raises(UserError, match="none of the model's 1 linear layers is quantized"):
        replace_linears(nn.Sequential(nn.Linear(3, 4)), quantization)


def test_scales_may_be_vectors_of_one(fp8: Path, traced: TracedModel, tmp_path: Path) -> None:
    def change(tensors: dict[str, Tensor]) -> None:
        tensors |= {name: value.reshape(1) for name, value in tensors.items() if name.endswith("_scale")}

    folder = changed(fp8, tmp_path, change)
    found, wanted = (interpreted(path, assembled(traced, path)) for path in (folder, fp8))
    assert torch.equal(found, wanted)


def test_nothing_is_quantized_twice(llama: Path, fp8: Path) -> None:
    with pytest.raises(UserError, match="is there already"):
        write_fp8(llama, fp8, TOKENS.tolist())
