"""What an imported module looks like, and what is refused with which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from npuc.frontends.transformers_export import import_model
from npuc.frontends.weight_reader import WeightReader
from npuc.ir import graph
from npuc.ir.errors import UserError
from npuc.ir.interpret import Caches, Runtime, interpret
from npuc.ir.parsing import IRParser
from npuc.ir.universe import NPUC_UNIVERSE
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp

OPTIONS: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip


def save(folder: Path, config: Any, **save_options: Any) -> Path:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder, **save_options)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(
        tmp_path_factory.mktemp("llama"), transformers.LlamaConfig(**OPTIONS, tie_word_embeddings=True)
    )


@pytest.fixture(scope="module")
def module(llama: Path) -> ModuleOp:
    return import_model(llama)


def logits(module: ModuleOp, folder: Path) -> torch.Tensor:
    tokens = torch.arange(6, dtype=torch.int32).repeat(2, 1)
    positions = torch.arange(6, dtype=torch.int32).repeat(2, 1)
    caches = Caches.allocate(module, 2, 8)
    return interpret(
        module, [tokens, positions], WeightReader(folder), caches, Runtime([0, 1], [0, 0], [6, 6], 8)
    )[0]


def declared(module: ModuleOp) -> dict[str, graph.WeightOp]:
    return {op.sym_name.data: op for op in module.ops if isinstance(op, graph.WeightOp)}


def test_layers_are_one_function(module: ModuleOp) -> None:
    functions = [op for op in module.ops if isinstance(op, FuncOp)]
    assert [f.sym_name.data for f in functions] == ["layer_kind0", "main"]
    assert [f.sym_visibility.data for f in functions if f.sym_visibility] == ["private", "public"]
    (layers,) = (op for op in module.walk() if isinstance(op, graph.LayersOp))
    assert layers.layer_list == (0, 1, 2)
    assert len(layers.carried) == 1
    hints = [a.name_hint for a in functions[0].body.block.args]
    assert hints[:2] == ["hidden_states", "attention_mask"]


def test_the_module_says_what_it_is(module: ModuleOp) -> None:
    attributes = {key: getattr(value, "value", value) for key, value in module.attributes.items()}
    assert module.attributes["npuc.phase"] == StringAttr("import")
    assert module.attributes["npuc.model_type"] == StringAttr("llama")
    assert attributes["npuc.vocab_size"].data == 61
    assert attributes["npuc.max_context"].data == 32


def test_every_operation_knows_its_module(module: ModuleOp) -> None:
    functions = [op for op in module.ops if isinstance(op, FuncOp)]
    for function in functions:
        for op in list(function.body.block.ops)[:-1]:
            assert isinstance(op.attributes["module"], StringAttr)
    body = functions[0].body.block
    linear = [op.attributes["module"].data for op in body.ops if isinstance(op, graph.LinearOp)]
    assert linear[0] == "model.layers.{}.self_attn.q_proj"
    assert linear[-1] == "model.layers.{}.mlp.down_proj"


def test_one_symbol_serves_all_layers(module: ModuleOp, llama: Path) -> None:
    weights = declared(module)
    down = weights["model.layers.{}.mlp.down_proj.weight"]
    assert down.layer_list == (0, 1, 2)
    tensors = safetensors.torch.load_file(llama / "model.safetensors")
    for layer in range(3):
        expected = tensors[f"model.layers.{layer}.mlp.down_proj.weight"]
        assert torch.equal(WeightReader(llama).read(down, layer), expected)
    assert weights["model.embed_tokens.weight"].layer_list is None


def test_tied_weights_are_one_symbol(module: ModuleOp) -> None:
    weights = declared(module)
    assert "lm_head.weight" not in weights
    uses = [op for op in module.walk() if isinstance(op, graph.ParamOp)]
    assert sum(op.symbol.string_value() == "model.embed_tokens.weight" for op in uses) == 2


def test_the_head_is_marked(module: ModuleOp) -> None:
    (mark,) = (op for op in module.walk() if isinstance(op, graph.SelectRowsOp))
    (use,) = mark.result.uses
    assert isinstance(use.operation, graph.LinearOp)


def test_text_round_trip(module: ModuleOp, llama: Path) -> None:
    context = Context()
    for name, factory in NPUC_UNIVERSE.all_dialects.items():
        context.register_dialect(name, factory)
    for dialect in ("builtin", "func"):
        from xdsl.universe import Universe

        context.register_dialect(dialect, Universe.get_multiverse().all_dialects[dialect])
    parsed = IRParser(context, str(module)).parse_module()
    assert str(parsed) == str(module)
    assert torch.equal(logits(parsed, llama), logits(module, llama))


def test_bfloat16(llama: Path, module: ModuleOp) -> None:
    """The compile type is bfloat16, the sources stay what they are, norms are computed in f32."""
    narrow = import_model(llama, dtype="bfloat16")
    weight = declared(narrow)["model.norm.weight"]
    assert str(weight.type) == "tensor<16xbf16>"
    assert weight.sources.data[0].data["dtype"] == StringAttr("F32")
    assert any(isinstance(op, graph.CastOp) for op in narrow.walk())
    got, want = logits(narrow, llama), logits(module, llama)
    assert got.dtype == torch.bfloat16
    assert float((got.float() - want).abs().max() / want.abs().max()) < 0.03


def test_kinds_follow_attributes(tmp_path: Path) -> None:
    """Gemma 3 has sliding and full layers: two bodies, runs of each."""
    options = OPTIONS | {"num_hidden_layers": 6, "head_dim": 8, "sliding_window": 4}
    config = transformers.Gemma3TextConfig(
        **options, layer_types=["sliding_attention", "sliding_attention", "full_attention"] * 2
    )
    imported = import_model(save(tmp_path, config))
    runs = [
        (op.callee.string_value(), op.layer_list) for op in imported.walk() if isinstance(op, graph.LayersOp)
    ]
    assert runs == [
        ("layer_kind0", (0, 1)), ("layer_kind1", (2,)), ("layer_kind0", (3, 4)), ("layer_kind1", (5,)),
    ]  # fmt: skip
    (cache,) = (op for op in imported.ops if isinstance(op, graph.CacheDeclOp))
    assert graph.ints(cache.layers) == tuple(range(6))


def test_shards_and_bare_models(llama: Path, tmp_path: Path, module: ModuleOp) -> None:
    """The same values from shards, and from names without the prefix of the base model."""
    config = transformers.LlamaConfig(**OPTIONS, tie_word_embeddings=True)
    save(tmp_path / "shards", config, max_shard_size="8KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_bytes((llama / "config.json").read_bytes())
    tensors = safetensors.torch.load_file(llama / "model.safetensors")
    renamed = {name.removeprefix("model."): value for name, value in tensors.items()}
    safetensors.torch.save_file(renamed, bare / "model.safetensors")
    for folder in (tmp_path / "shards", bare):
        assert torch.equal(logits(import_model(folder), folder), logits(module, llama))


def test_tied_weights_that_differ_are_not_tied(llama: Path, tmp_path: Path) -> None:
    """As transformers loads them, with a warning."""
    tensors = safetensors.torch.load_file(llama / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2
    (tmp_path / "config.json").write_bytes((llama / "config.json").read_bytes())
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    assert "lm_head.weight" in declared(import_model(tmp_path))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    assert "lm_head.weight" not in declared(import_model(tmp_path))


def changed(
    folder: Path, target: Path, change: Callable[[dict[str, Any]], Any], config: dict[str, Any] | None = None
) -> Path:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    safetensors.torch.save_file(tensors, target / "model.safetensors")
    values = json.loads((folder / "config.json").read_text()) | (config or {})
    (target / "config.json").write_text(json.dumps(values))
    return target


def test_a_missing_tensor(llama: Path, tmp_path: Path) -> None:
    changed(llama, tmp_path, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight is missing") as caught:
        import_model(tmp_path)
    assert caught.value.kind == "missing-tensor"


def test_a_tensor_of_another_shape(llama: Path, tmp_path: Path) -> None:
    changed(llama, tmp_path, lambda t: None, {"intermediate_size": 20})
    with pytest.raises(UserError, match=r"has shape \[24, 16\], the model expects \[20, 16\]"):
        import_model(tmp_path)


def test_quantized_checkpoints(llama: Path, tmp_path: Path) -> None:
    changed(llama, tmp_path, lambda t: None, {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    with pytest.raises(UserError) as caught:
        import_model(tmp_path)
    assert caught.value.kind == "unsupported-quantization"


def test_an_unknown_type(llama: Path) -> None:
    with pytest.raises(UserError, match="use float32 or bfloat16"):
        import_model(llama, dtype="float16")


def test_control_flow_on_values(llama: Path, tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 100.0, "factor": 2.0}
    changed(llama, tmp_path, lambda t: None, {"rope_parameters": rope})
    with pytest.raises(UserError) as caught:
        import_model(tmp_path)
    assert caught.value.kind == "export-failed"
    assert "\n" not in str(caught.value)


def test_a_constant_without_values(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A buffer that `_init_weights` does not fill is an error that names it, not a zero."""
    monkeypatch.setattr(transformers.LlamaPreTrainedModel, "_init_weights", lambda self, module: None)
    with pytest.raises(UserError, match=r"model\.rotary_emb\.inv_freq has no values") as caught:
        import_model(llama)
    assert caught.value.kind == "missing-constant"


def test_models_with_state_besides_keys_and_values(tmp_path: Path) -> None:
    config = transformers.MambaConfig(
        vocab_size=61,
        hidden_size=16,
        state_size=4,
        num_hidden_layers=2,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
    )
    with pytest.raises(UserError) as caught:
        import_model(save(tmp_path, config))
    assert "\n" not in str(caught.value)
    assert caught.value.kind in ("no-cache", "unsupported-cache")
