"""The IR after every phase of a real compile parses back, and MLIR's own parser accepts its generic form."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from npuc.ir.legality import PHASES, check_phase
from npuc.ir.printing import print_ir
from npuc.tools import irc
from xdsl.dialects.builtin import ModuleOp

LOWERED = PHASES[:-1]  # the last phase makes bytes, not IR


@pytest.fixture(scope="module")
def dumps(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dumps")
    buckets = ["--prefill-buckets", "1x8", "--decode-buckets", "1x8", "--extend-buckets", "2x4x8"]
    words = ["compile", str(demo_model), "-t", "rngd", *buckets, "--compile-to", "schedule"]
    out = folder.parent / "last.mlir"
    assert irc.main([*words, "--dump-compilation-phases-to", str(folder), "-o", str(out)]) == 0
    return folder


def dump(folder: Path, phase: str) -> str:
    return (folder / f"{PHASES.index(phase) + 1}.{phase}.mlir").read_text()


@pytest.mark.parametrize("phase", LOWERED)
def test_phase_is_legal_and_parses_back(phase: str, dumps: Path, parse_ir: Callable[[str], ModuleOp]) -> None:
    text = dump(dumps, phase)
    module = parse_ir(text)
    check_phase(module, phase)
    assert print_ir(module) == text
    assert parse_ir(print_ir(module, generic=True)).is_structurally_equivalent(module)


UNPREFIXED = pytest.mark.xfail(
    strict=True, reason="MLIR wants module attributes prefixed: npuc.bucket and npuc.io, not bucket and io"
)


@pytest.mark.parametrize(
    "phase",
    [p if p in ("import", "optimize", "quantize") else pytest.param(p, marks=UNPREFIXED) for p in LOWERED],
)
def test_mlir_accepts_the_generic_form(
    phase: str, dumps: Path, parse_ir: Callable[[str], ModuleOp], iree_opt: Callable[[str], str]
) -> None:
    iree_opt(print_ir(parse_ir(dump(dumps, phase)), generic=True))
