"""`irc bisect` of compiles that round weights, and of checkpoints that are quantized.

What is right is what the values stand for, in transformers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from npuc.ir import graph
from npuc.tools import irc
from npuc.tools.fp8_checkpoint import write_fp8
from planting import Fault, planted
from table import BY_NAME
from tiny import tiny_llama
from xdsl.dialects.builtin import ModuleOp, SymbolRefAttr

MLP = "model.layers.{}.mlp"
Bisect = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def begun(checkpoint: Path) -> tuple[object, ...]:
    """The checkpoint, and flags to begin with its imported IR, so that it is traced once."""
    return checkpoint, "--compile-from", imported(checkpoint)


def imported(checkpoint: Path) -> Path:
    file = checkpoint / "import.mlir"
    assert (
        irc.main(["compile", str(checkpoint), "-t", "rngd", "--compile-to", "import", "-o", str(file)]) == 0
    )
    return file


@pytest.fixture
def bisect(capsys: pytest.CaptureFixture[str]) -> Bisect:
    def run(*words: object) -> dict[str, Any]:
        capsys.readouterr()
        irc.main(["bisect", *map(str, words), "-t", "rngd", "--decode-buckets", "1x8", "--json"])
        return json.loads(capsys.readouterr().out)

    return run


def test_rounding_is_no_fault(begun: tuple[object, ...], bisect: Bisect) -> None:
    """It changes the logits by more than the tolerance, but to what transformers has with rounded weights."""
    found = bisect(*begun, "--quantize", "w8a16")
    assert found["found"] is False
    assert bisect(*begun, "--quantize", "w8a16", "--quantize-ignore", "*")["found"] is False


def wrong_scale(module: ModuleOp) -> None:
    """The weights of gate are multiplied with the scales of up."""
    params = {str(op.symbol.string_value()): op for op in module.walk() if isinstance(op, graph.ParamOp)}
    gate, up = (params[f"{MLP}.{name}_proj.weight_scale"] for name in ("gate", "up"))
    gate.attributes["symbol"] = SymbolRefAttr(up.symbol.string_value())


def test_wrong_rounding_is_found(begun: tuple[object, ...], bisect: Bisect) -> None:
    fault = Fault("wrong-scales", "quantize-weights", "graph.linear", f"{MLP}.gate_proj", wrong_scale)
    with planted(fault):
        found = bisect(*begun, "--quantize", "w8a16")
    assert (found["phase"], found["pass"], found["op"]) == ("quantize", fault.step, fault.op)
    assert found["module"] == fault.module.replace("{}", "0")
    assert "--quantize w8a16 --quantize-ignore lm_head" in found["next"]


@pytest.mark.parametrize("name", ["swapped-operands", "wrong-immediate"])
def test_faults_before_and_after_the_rounding_are_found(
    name: str, begun: tuple[object, ...], bisect: Bisect
) -> None:
    fault = BY_NAME[name]
    with planted(fault):
        found = bisect(*begun, "--quantize", "w8a16")
    assert (found["pass"], found["op"], found["module"]) == (fault.step, fault.op, fault.module)


def test_a_quantized_checkpoint(checkpoint: Path, tmp_path: Path, bisect: Bisect) -> None:
    """Inputs are rounded to 8 bits: what differs in the last place may tip one over, a fault is larger."""
    write_fp8(checkpoint, tmp_path / "fp8", [[5, 9, 3, 17, 40, 2], [1, 66, 30, 8]])
    given = tmp_path / "fp8", "--compile-from", imported(tmp_path / "fp8")
    assert bisect(*given)["found"] is False
    fault = BY_NAME["wrong-immediate"]
    with planted(fault):
        found = bisect(*given)
    assert (found["pass"], found["op"], found["module"]) == (fault.step, fault.op, fault.module)
