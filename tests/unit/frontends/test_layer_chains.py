"""Layers in the outer graph: one operator for a chain, and what keeps layers out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from npuc.frontends.trace_model import TracedModel, trace_model
from npuc.frontends.transformers_export import import_model
from npuc.frontends.weight_reader import WeightReader
from npuc.ir import graph
from npuc.ir.interpret import Caches, Runtime, interpret
from torch import Tensor
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

OPTIONS: dict[str, Any] = {
    "vocab_size": 61, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 7, "head_dim": 8,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
}  # fmt: skip


def chains(traced: TracedModel) -> list[list[int]]:
    """The layers of each operator of the outer graph, which has no others."""
    nodes = [n for n in traced.main.program.graph.nodes if str(n.target) == "npuc.layers.default"]
    found: Any = traced.layers.chains
    assert [node.args[2] for node in nodes] == list(range(len(found)))
    return [[link.index for link in chain] for chain in found]


def test_layers_of_several_kinds_are_one_operator() -> None:
    """Gemma 3: sliding and full layers read other masks and angles."""
    config = transformers.Gemma3TextConfig(**OPTIONS, sliding_window=4)
    traced = trace_model(config, torch.float32)
    assert chains(traced) == [list(range(7))]
    assert [kind.members for kind in traced.layers.kinds] == [[0, 1, 2, 3, 4, 6], [5]]


def forward_reading_a_layer(self: Any, input_ids: Tensor, position_ids: Tensor, **kwargs: Any) -> Any:
    """Llama's loop, whose norm sees the sum of the last layer and of layer 2; layer 0's input is kept too."""
    embedded = hidden = self.embed_tokens(input_ids)
    mask = create_causal_mask(
        self.config, hidden, kwargs.get("attention_mask"), kwargs.get("past_key_values"), position_ids
    )
    angles = self.rotary_emb(hidden, position_ids=position_ids)
    kept = hidden
    for i, layer in enumerate(self.layers):
        options = {"attention_mask": mask, "position_embeddings": angles, "position_ids": position_ids}
        hidden = layer(hidden, **options, past_key_values=kwargs.get("past_key_values"))
        kept = hidden if i == 2 else kept
    return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden + kept + embedded))


def test_a_result_that_is_read_elsewhere_ends_a_chain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = transformers.LlamaConfig(**OPTIONS)
    monkeypatch.setattr(transformers.LlamaModel, "forward", forward_reading_a_layer)
    assert chains(trace_model(config, torch.float32)) == [[0, 1, 2], [3, 4, 5, 6]]

    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path)
    tokens = torch.arange(6).repeat(2, 1)
    positions = torch.arange(6).repeat(2, 1)
    with torch.no_grad():
        want = model(input_ids=tokens, position_ids=positions, use_cache=False).logits
    module = import_model(tmp_path)
    runs = [op.layer_list for op in module.walk() if isinstance(op, graph.LayersOp)]
    assert runs == [(0, 1, 2), (3, 4, 5, 6)]
    caches, runtime = Caches.allocate(module, 2, 6), Runtime([0, 1], [0, 0], [6, 6], 6)
    inputs = [tokens.int(), positions.int()]
    (got,) = interpret(module, inputs, WeightReader(tmp_path), caches, runtime)
    assert float((got - want).abs().max() / want.abs().max()) < 1e-4
