"""Buckets of enough tokens for every slice: their rows are spread, and nothing else changes."""

from __future__ import annotations

from pathlib import Path

import npuc
import pytest
from families import FAMILIES, save_random
from npuc.frontends.transformers_export import import_model
from npuc.ir.printing import print_ir
from npuc.passes.buckets import parse_bucket
from npuc.passes.compile import Compilation, compile_model
from npuc.passes.pipeline import finish_phase
from npuc.passes.spread_rows import SPREAD
from npuc.runtime.artifact import Artifact
from npuc.runtime.verify import verify
from sanitized import FirstRunsSanitized

BUCKETS = [parse_bucket("prefill", "1x64")]
LONGER = [parse_bucket("extend", "1x128x192")]


# Norms of heads; softcaps and windows; learned positions, biases and layer norms.
@pytest.mark.parametrize("family", ["qwen3", "gemma2", "gpt2"])
def test_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    folder, imported = tmp_path / "model", tmp_path / "import.mlir"
    save_random(*FAMILIES[family], folder)
    module = import_model(folder)
    finish_phase(module, "import")
    imported.write_text(print_ir(module))
    compilation = Compilation(str(folder), "rngd", BUCKETS, compile_to="layout", compile_from=imported)
    assert any(SPREAD in op.attributes for op in compilation.lowered()[0].body.block.ops)
    compile_model(Compilation(str(folder), "rngd", BUCKETS, compile_from=imported), tmp_path / "out")
    device = FirstRunsSanitized(Artifact(tmp_path / "out"))
    found = verify(tmp_path / "out", folder, max_documents=2, device=device)
    assert device.checked == {(b.name, entry) for b in BUCKETS for entry in ("all", "last")}
    assert device.hazards == []
    assert found["max_rel_error"] <= 1e-4


def test_of_ranks_too(demo_model: Path, tmp_path: Path) -> None:
    npuc.compile(demo_model, tmp_path / "out", target="rngd", buckets=LONGER, tensor_parallel=2)
    device = FirstRunsSanitized(Artifact(tmp_path / "out"))
    (tmp_path / "text").write_text("The function returns a list, or None. " * 20)
    found = verify(tmp_path / "out", demo_model, tmp_path / "text", device=device)
    assert found["max_rel_error"] < 1e-5
    assert device.hazards == []
