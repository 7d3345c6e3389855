"""The IR after every phase of a small model reads back as printed, and MLIR accepts its generic form."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
import transformers
from npuc.ir.legality import PHASES
from npuc.ir.parsing import IRParser
from npuc.ir.printing import print_ir
from npuc.passes.buckets import parse_bucket
from npuc.passes.compile import Compilation
from npuc.passes.pipeline import context
from xdsl.dialects.builtin import ModuleOp

DUMPED = PHASES[: PHASES.index("schedule") + 1]
BUCKETS = (("prefill", "2x8"), ("decode", "1x16"), ("extend", "1x4x16"))


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The IR after each phase of a random Llama, as `irc compile` dumps it."""
    folder = tmp_path_factory.mktemp("llama")
    config = transformers.LlamaConfig(
        vocab_size=67, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, attention_bias=True, tie_word_embeddings=True,
    )  # fmt: skip
    transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    buckets = [parse_bucket(*bucket) for bucket in BUCKETS]
    compilation = Compilation(str(folder), "rngd", buckets, compile_to="schedule", dump_dir=folder / "ir")
    compilation.lowered()
    found = {path.stem.partition(".")[2]: path.read_text() for path in (folder / "ir").glob("*.mlir")}
    assert set(found) == set(DUMPED)
    return found


def parse(text: str) -> ModuleOp:
    module = IRParser(context(), text).parse_module()
    module.verify()
    return module


@pytest.mark.parametrize("phase", DUMPED)
def test_dumps_read_back(dumps: dict[str, str], phase: str) -> None:
    module = parse(dumps[phase])
    assert print_ir(module) == dumps[phase]
    generic = print_ir(module, generic=True)
    assert print_ir(parse(generic), generic=True) == generic
    assert print_ir(parse(generic)) == dumps[phase]


@pytest.mark.parametrize("phase", DUMPED)
def test_mlir_accepts_the_generic_form(
    dumps: dict[str, str], phase: str, iree_opt: Callable[[str], str]
) -> None:
    generic = print_ir(parse(dumps[phase]), generic=True)
    assert iree_opt(generic).count("graph.weight") == generic.count('"graph.weight"()')


def test_dumps_are_written_for_people(dumps: dict[str, str]) -> None:
    """Every operation of ours has custom assembly; values keep the names of the model."""
    for phase, text in dumps.items():
        assert not re.findall(r'^ *(?:%\S+ = )?"', text, re.MULTILINE), phase
    assert "%q_proj_weight = graph.param" in dumps["layout"]
    assert "%q_proj_weight = tile.weight" in dumps["tile"]
