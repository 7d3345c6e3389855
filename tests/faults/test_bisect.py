"""`irc bisect` names the pass, the operation and the checkpoint module of planted faults.

By default a fault of each kind is searched for; with NPUC_ALL_FAULTS=1 all of them, which takes minutes.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from npuc.frontends.transformers_export import import_model
from npuc.ir import graph
from npuc.passes.bisection.findings import Finding
from npuc.passes.bisection.search import Search, first_bad
from npuc.passes.bisection.states import history_of
from npuc.passes.buckets import parse_bucket
from npuc.passes.check_passes import TOLERANCE, read_prompt
from npuc.passes.evaluation import Call, Evaluator
from npuc.passes.pipeline import finish_phase
from npuc.tools import irc
from planting import Fault, planted
from table import BY_NAME, FAULTS
from xdsl.dialects.builtin import IntegerAttr, ModuleOp
from xdsl.utils.exceptions import PassFailedException

SHORT = (
    "swapped-operands",
    "dropped-residual",
    "position-off-by-one",
    "stale-cache",
    "lost-command",
    "overlapping-buffers",
    "missing-wait",
    "wrong-base-register",
    "lost-wait",
    "wrong-stride",
    "encoded-without-wait",
)
ALL = "NPUC_ALL_FAULTS" in os.environ
CHOSEN = FAULTS if ALL else tuple(BY_NAME[name] for name in SHORT)
DEMO = Path(__file__).parents[2] / "demo" / "model"


def gemma2(folder: Path) -> Path:
    """A small model with a cap on its attention scores that matters."""
    import transformers

    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=131, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=64, sliding_window=6,
        query_pre_attn_scalar=9, attn_logit_softcapping=1.0, initializer_range=0.5, bos_token_id=0,
        eos_token_id=1, pad_token_id=None,
    )  # fmt: skip
    transformers.Gemma2ForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory):
    """Directory and imported module of a model, made once."""

    @cache
    def get(name: str) -> tuple[Path, ModuleOp]:
        root = DEMO if name == "demo" else gemma2(tmp_path_factory.mktemp(name))
        module = import_model(str(root))
        finish_phase(module, "import")
        return root, module

    return get


def search(root: Path, module: ModuleOp, buckets: tuple[str, ...] = ("decode_1x16",)) -> Finding | None:
    vocabulary = module.attributes["npuc.vocab_size"]
    assert isinstance(vocabulary, IntegerAttr)
    chosen = [parse_bucket(kind, sizes) for kind, _, sizes in (name.partition("_") for name in buckets)]
    calls = [Call.of(bucket, read_prompt(None, root, vocabulary.value.data)) for bucket in chosen]
    history = history_of(module.clone(), "rngd", chosen)
    return Search(history, Evaluator(root, "rngd", calls), TOLERANCE["float32"]).run()


@pytest.mark.parametrize("fault", CHOSEN, ids=lambda fault: fault.name)
def test_fault_is_found(fault: Fault, models) -> None:
    root, module = models(fault.model)
    with planted(fault):
        found = search(root, module, ("decode_1x16", "prefill_1x8") if ALL else ("decode_1x16",))
    assert found is not None
    assert (found.step, found.op, found.module) == (fault.step, fault.op, fault.module), found.explanation


def test_a_right_compiler_has_no_fault(models) -> None:
    assert search(*models("demo")) is None


def test_a_pass_that_fails_is_named(models) -> None:
    def plant(module: ModuleOp) -> None:
        raise PassFailedException("graph.gated has no form (model.layers.{}.mlp)")

    with planted(Fault("fails", "outline-rows", "graph.gated", "model.layers.{}.mlp", plant)):
        found = search(*models("demo"))
    assert found is not None
    assert (found.kind, found.phase, found.step) == ("failure", "optimize", "outline-rows")
    assert (found.op, found.module) == ("graph.gated", "model.layers.{}.mlp")
    assert any(line.startswith("→") and "graph.gated" in line for line in found.before)


def test_a_module_that_cannot_be_run_is_named(models) -> None:
    def plant(module: ModuleOp) -> None:
        op = next(op for op in module.walk() if op.name == "graph.gated")
        other = next(op for op in module.walk() if op.name == "graph.linear")
        op.operands = [op.operands[0], other.results[0]]

    with planted(Fault("wrong-shape", "raise-gated", "graph.gated", "model.layers.{}.mlp", plant)):
        found = search(*models("demo"))
    assert found is not None
    assert (found.kind, found.step, found.op) == ("values", "raise-gated", "graph.gated")
    assert found.module == "model.layers.{}.mlp"


def test_what_the_command_tells(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["bisect", str(DEMO), "-t", "rngd", "--decode-buckets", "1x16", "--json"]
    with planted(BY_NAME["wrong-stride"]):
        assert irc.main(words) == 1
    found = json.loads(capsys.readouterr().out)
    assert {"phase", "pass", "op", "module", "program", "command_offset", "explanation"} <= found.keys()
    assert (found["phase"], found["pass"], found["program"]) == ("emit", "encode", "decode_1x16")
    assert found["module"] == "model.layers.{}.mlp.up_proj"
    assert found["command_offset"] > 0
    assert found["next"].endswith(f"&& irc explain out decode_1x16@{found['command_offset']:#x}")


def test_the_input_is_the_users(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompt = tmp_path / "tokens.txt"
    prompt.write_text("1 2 99999\n")
    words = ["bisect", str(DEMO), "-t", "rngd", "--decode-buckets", "1x16", "--input", str(prompt), "--json"]
    assert irc.main(words) == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["kind"], error["where"]) == ("check-input", str(prompt))
    assert error["message"].startswith("token 99999 is beyond the ")


def test_the_importer_is_compared_with_transformers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def swapped(*args, **kwargs) -> ModuleOp:
        module = import_model(*args, **kwargs)
        params = {str(op.symbol): op for op in module.walk() if isinstance(op, graph.ParamOp)}
        keys, values = (params[f'@"model.layers.{{}}.self_attn.{name}_proj.weight"'] for name in "kv")
        keys.attributes["symbol"] = values.symbol
        return module

    monkeypatch.setattr("npuc.passes.compile.import_model", swapped)
    assert irc.main(["bisect", str(DEMO), "-t", "rngd", "--decode-buckets", "1x16", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["phase"], found["op"]) == ("import", "graph.linear")
    assert found["module"] == "model.layers.0.self_attn.k_proj"


@pytest.mark.parametrize("count", [1, 2, 3, 8, 21])
def test_first_bad(count: int) -> None:
    for bad in range(1, count + 1):
        asked: list[int] = []

        def is_bad(index: int, bad: int = bad, asked: list[int] = asked) -> bool:
            asked.append(index)
            return index >= bad

        found = first_bad(count, is_bad)
        assert found == (bad if bad < count else None)
        assert len(asked) == len(set(asked)) <= count.bit_length() + 1
