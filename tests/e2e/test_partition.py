"""Programs that ranks share compute what one rank computes alone, whatever the model's family."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from families import FAMILIES, save_random
from npuc.ir import dist
from npuc.passes import stagger_rows
from npuc.passes.buckets import Bucket
from npuc.passes.compile import Compilation
from npuc.passes.evaluation import Call, Evaluator
from npuc.passes.pipeline import context, finish_phase, run_passes
from xdsl.dialects.builtin import ModuleOp

BUCKETS = [Bucket("prefill", 1, 6, 6), Bucket("decode", 2, 1, 9)]


def partitioned(module: ModuleOp, ranks: int) -> ModuleOp:
    result = module.clone()
    shares = f"pad-shards{{tensor_parallel={ranks}}},assign-shardings{{tensor_parallel={ranks}}}"
    run_passes(context(), result, f"split-linears,{shares},partition")
    finish_phase(result, "partition")
    return result


# What each is here for, and the all-reduces of a layer of each kind.
@pytest.mark.parametrize(
    ("family", "ranks", "reduced"),
    [
        ("qwen3", 8, {2}),  # norms of heads; keys and values repeated, heads and vocabulary padded
        ("gemma3", 3, {2}),  # two kinds of layers, one cache
        ("phi3", 4, {2}),  # fused queries, keys, values; fused gate and up
        ("mixtral", 2, {1}),  # experts stay whole
    ],
)
def test_families(family: str, ranks: int, reduced: set[int], tmp_path: Path) -> None:
    save_random(*FAMILIES[family], tmp_path)
    module, _ = Compilation(str(tmp_path), "rngd", BUCKETS, compile_to="specialize").lowered()
    evaluator = Evaluator(tmp_path, "rngd", [Call.of(bucket, range(3, 20)) for bucket in BUCKETS])
    expected, shared = evaluator.outputs(module), partitioned(module, ranks)
    for name, logits in evaluator.outputs(shared).items():
        torch.testing.assert_close(logits, expected[name], rtol=0, atol=1e-5 * float(logits.abs().max()))
    counts = Counter[object]()
    for op in shared.walk():
        if isinstance(op, dist.AllReduceOp):
            counts[op.parent_block()] += 1
    assert {*counts.values()} == reduced


# What each is here for, and whether ranks have shares of the rows.
@pytest.mark.parametrize(
    ("family", "scattered"),
    [
        ("llama", True),  # biases are added to shares
        ("gemma3", True),  # norms of the sums; two kinds of layers
        ("gpt2", True),  # norms of another kind; positions are added to the embeddings
        ("exaone4", True),  # linear layers take the hidden states as they are
        ("gpt-neox", False),  # two sums in a row
    ],
)
def test_shares_of_rows(
    family: str, scattered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What ranks do to shares is what they did to all rows; models so small would gain nothing by groups."""
    monkeypatch.setattr(stagger_rows, "pays", lambda *_: True)
    kind, config = FAMILIES[family]
    save_random(kind, {**config, "max_position_embeddings": 128}, tmp_path)
    bucket = Bucket("prefill", 1, 128, 128)
    module, _ = Compilation(str(tmp_path), "rngd", [bucket], compile_to="specialize").lowered()
    whole = partitioned(module, 4)
    run_passes(context(), whole, "spread-rows{target=rngd},stagger-rows{target=rngd}")
    shared = whole.clone()
    run_passes(context(), shared, "scatter-rows{target=rngd}")
    shared.verify()
    assert any(isinstance(op, dist.ReduceScatterOp) for op in shared.walk()) == scattered
    assert any(isinstance(op, dist.AllReduceOp) for op in shared.walk()) != scattered
    evaluator = Evaluator(tmp_path, "rngd", [Call.of(bucket, range(3, 120))])
    expected = evaluator.outputs(whole)
    for name, logits in evaluator.outputs(shared).items():
        assert torch.equal(logits, expected[name])
