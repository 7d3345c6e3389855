"""What it costs to see everything, for a model of 16 layers: run with --benchmark-enable.

Text: a module of 4,000 operations printed and parsed, ours beside xDSL's generic form without type aliases.
Watching: the lowering as it is, with --verify-each, with a dump of everything before and after every pass.
Report: made, and opened in a browser. --benchmark-timer=time.process_time counts only what we use of a shared
machine. Without --benchmark-enable each runs once, on a smaller module.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import transformers
from npuc.ir.printing import ELIDED, print_ir
from npuc.passes.buckets import Bucket, parse_bucket
from npuc.passes.instrumentation import Verification
from npuc.passes.ir_dumps import IRDumps
from npuc.passes.pipeline import Observer, context, lower
from npuc.tools import irc
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.parser import Parser
from xdsl.printer import Printer

Benchmark = Callable[..., Any]

BUCKETS = [parse_bucket("prefill", "1x64"), parse_bucket("decode", "1x128")]
FLAGS = ["-t", "rngd", "--prefill-buckets", "1x64", "--decode-buckets", "1x128", "--no-weights"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sixteen")
    config = transformers.LlamaConfig(
        vocab_size=512, hidden_size=256, intermediate_size=704, num_hidden_layers=16, num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=128, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder / "model")
    words = ["compile", str(folder / "model"), "-o", str(folder / "out"), *FLAGS]
    assert irc.main(words) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def size(request: pytest.FixtureRequest) -> int:
    """Operations of a large module."""
    return 4000 if request.config.getoption("benchmark_enable") else 400


def parse(text: str) -> ModuleOp:
    return Parser(context(), text).parse_module()


def start(artifact: Path) -> ModuleOp:
    return parse((artifact / "debug" / "import.mlir").read_text())


def graph_module(artifact: Path, size: int) -> ModuleOp:
    """Layers over and over: tensors with symbolic sizes."""
    module = start(artifact)
    layer = next(op for op in module.walk() if isinstance(op, FuncOp) and "kind" in op.sym_name.data)
    for number in range(size // sum(1 for _ in layer.walk())):
        clone = layer.clone()
        clone.properties["sym_name"] = type(layer.sym_name)(f"copy{number}")
        module.body.block.add_op(clone)
    return module


def tile_module(artifact: Path, size: int) -> ModuleOp:
    """Buckets over and over, with loops, buffers, passes and copies."""

    def lowered(buckets: list[Bucket]) -> ModuleOp:
        module = start(artifact)
        lower(module, "rngd", buckets, until="tile")
        return module

    one = sum(1 for _ in lowered([parse_bucket("decode", "1x2")]).walk())
    return lowered([parse_bucket("decode", f"1x{2 + n}") for n in range(-(-size // one))])


MODULES = {"graph": graph_module, "tile": tile_module}


def plain_text(module: ModuleOp) -> str:
    stream = StringIO()
    Printer(stream, print_generic_format=True).print_op(module)
    return stream.getvalue()


PRINTERS: dict[str, Callable[[ModuleOp], str]] = {"ours": print_ir, "xdsl": plain_text}


@pytest.fixture(scope="module")
def module(request: pytest.FixtureRequest, artifact: Path, size: int) -> ModuleOp:
    return MODULES[request.param](artifact, size)


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("module", MODULES, indirect=True)
def test_print(module: ModuleOp, printer: str, benchmark: Benchmark) -> None:
    text = benchmark(PRINTERS[printer], module)
    assert ("!t_batch" in text or "!dm_" in text) == (printer == "ours")


@pytest.mark.parametrize("printer", PRINTERS)
@pytest.mark.parametrize("module", MODULES, indirect=True)
def test_parse(module: ModuleOp, printer: str, size: int, benchmark: Benchmark) -> None:
    read = benchmark(parse, PRINTERS[printer](module))
    assert sum(1 for _ in read.walk()) > 0.8 * size


def everything(folder: Path) -> IRDumps:
    return IRDumps(before=("*",), after=("*",), folder=folder, form=ELIDED)


@pytest.mark.parametrize("watched", ["alone", "verified", "dumped"])
def test_lower(watched: str, artifact: Path, tmp_path: Path, benchmark: Benchmark) -> None:
    def run() -> None:
        watching = {"alone": (), "verified": (Verification(),), "dumped": (everything(tmp_path),)}[watched]
        lower(start(artifact), "rngd", BUCKETS, observer=Observer(instruments=watching))

    benchmark(run)
    dumped = list(tmp_path.rglob("*.mlir"))
    assert bool(dumped) == (watched == "dumped")
    assert sum(path.stat().st_size for path in dumped) < 50e6


def test_report(artifact: Path, tmp_path: Path, benchmark: Benchmark) -> None:
    page = tmp_path / "page.html"
    assert benchmark(irc.main, ["report", str(artifact), "-o", str(page)]) == 0
    assert page.stat().st_size < 20e6
    assert re.search('id="data">H4sI', page.read_text(encoding="utf-8"))


def test_open_report(
    artifact: Path, tmp_path: Path, benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "e2e")
    from browser import Browser  # pyright: ignore[reportMissingImports]

    page = tmp_path / "page.html"
    assert irc.main(["report", str(artifact), "-o", str(page)]) == 0
    browser = Browser(tmp_path / "profile")
    assert benchmark(browser.open, page) > 0
    assert browser.problems == []
    browser.close()
