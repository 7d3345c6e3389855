"""Random models of every family: imported, compiled, run on the simulator, compared with transformers.

One test does all for a family, so that each is traced once: what is compiled is parsed from the text of the
imported module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from families import FAMILIES, save_random
from imported import check_import
from npuc.frontends.transformers_export import import_model
from npuc.ir.printing import print_ir
from npuc.passes.buckets import Bucket, parse_bucket
from npuc.passes.compile import Compilation, compile_model
from npuc.passes.pipeline import finish_phase
from npuc.runtime.artifact import Artifact
from npuc.runtime.verify import verify
from sanitized import FirstRunsSanitized

TOY = Path(__file__).parents[1] / "toy" / "toy.npu"
ON_TOY = {"llama", "mistral-sliding", "qwen3", "gemma2", "phi3-longrope", "gpt2", "starcoder2", "gpt-neox"}
# Attention of a model's own is imported; no pass lowers it yet.
IMPORTED_ONLY = {"deepseek-v3", "gpt-oss", "falcon", "codegen", "gptj"}
BUCKETS = [parse_bucket("prefill", "1x16"), parse_bucket("extend", "2x8x40"), parse_bucket("decode", "2x40")]
TOLERANCE = 1e-4  # of the largest logit, docs/design.md


def check_compiled(
    folder: Path, imported: Path, target: str, output: Path, buckets: Sequence[Bucket]
) -> None:
    """Compiles a family from its imported text and compares all programs, three documents in two slots."""
    compile_model(Compilation(str(folder), target, buckets, compile_from=imported), output)
    device = FirstRunsSanitized(Artifact(output))
    found = verify(output, folder, max_documents=3, device=device)
    assert device.checked == {(b.name, entry) for b in buckets for entry in ("all", "last")}
    assert device.hazards == []
    assert found["max_rel_error"] <= TOLERANCE
    assert found["perplexity"] == pytest.approx(found["reference_perplexity"], rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_family(family: str, tmp_path: Path) -> None:
    folder, imported = tmp_path / "model", tmp_path / "import.mlir"
    save_random(*FAMILIES[family], folder)
    module = import_model(folder)
    finish_phase(module, "import")
    check_import(module, folder)
    imported.write_text(print_ir(module))
    if family not in IMPORTED_ONLY:
        check_compiled(folder, imported, "rngd", tmp_path / "rngd", BUCKETS)
    if family in ON_TOY:
        check_compiled(folder, imported, str(TOY), tmp_path / "toy", BUCKETS)
