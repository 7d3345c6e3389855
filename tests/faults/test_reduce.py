"""`irc reduce`: modules of the whole model on which a planted fault shows become a few operations.

With NPUC_ALL_FAULTS=1 more faults are reduced, which takes minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest
from npuc.frontends.transformers_export import import_model
from npuc.ir.errors import UserError
from npuc.ir.printing import print_ir
from npuc.passes.bisection.states import State, history_of
from npuc.passes.buckets import parse_bucket
from npuc.passes.ir_files import parse_ir
from npuc.passes.pipeline import finish_phase
from npuc.passes.reduction.criteria import find_criterion
from npuc.passes.reduction.modules import size
from npuc.passes.reduction.reducer import Reducer, Saved, transformations_for
from npuc.passes.target_option import machine_of
from npuc.tools import irc
from planting import Fault, planted
from table import BY_NAME, FIRST_MLP
from xdsl.dialects.builtin import ModuleOp
from xdsl.utils.exceptions import PassFailedException

DEMO = Path(__file__).parents[2] / "demo" / "model"
ALL = "NPUC_ALL_FAULTS" in os.environ


def refused(module: ModuleOp) -> None:
    """A pass that does not know what another one makes."""
    for op in module.walk():
        if op.name == "graph.gated":
            raise PassFailedException(f"{op.name} has no form here")


FAILING = Fault("fails", "outline-rows", "graph.gated", FIRST_MLP, refused)
# operations that are left: of wrong-epsilon and interleaved rms_norm and rope, not their patterns
SHORT = {"swapped-operands": 2, "dropped-residual": 1, "dropped-accumulation": 1, "interleaved": 1}
LONG = {
    **SHORT,
    "fails": 1,
    "transposed-tile": 5,
    "lost-command": 1,
    "wrong-immediate": 2,
    "too-early": 5,
    "missing-wait": 4,
}
FAULTS = BY_NAME | {"fails": FAILING}


@pytest.fixture(scope="module")
def states() -> list[State]:
    """The states of a compile of the demonstration model, which has four layers."""
    module = import_model(str(DEMO))
    finish_phase(module, "import")
    return history_of(module, "rngd", [parse_bucket("decode", "1x16")]).states


def before(states: list[State], fault: Fault) -> tuple[ModuleOp, str]:
    """The module before a faulty pass, and a pipeline that shows the fault."""
    number = next(i for i, state in enumerate(states) if state.name == fault.step)
    steps = states[number : number + (2 if fault.step == "insert-sync" else 1)]
    passes = [str(state.step.pipeline_pass_spec()) for state in steps if state.step is not None]
    return states[number - 1].module, ",".join(passes)


@pytest.mark.parametrize("name", LONG if ALL else SHORT)
def test_a_fault_becomes_small(name: str, states: list[State]) -> None:
    module, pipeline = before(states, FAULTS[name])
    with planted(FAULTS[name]):
        _, interesting = find_criterion(module.clone(), pipeline, machine_of("rngd"))
        found = Reducer(interesting, transformations_for(pipeline)).reduce(module.clone())
        assert size(found) <= LONG[name] < size(module) // 8
        assert interesting(found.clone())
    with pytest.raises(UserError, match="does not fail, change values or leave hazards"):
        find_criterion(found.clone(), pipeline, machine_of("rngd"))


def test_an_interrupted_reduction_goes_on_or_starts_again(
    states: list[State], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both end with the same module."""
    module, pipeline = before(states, BY_NAME["swapped-operands"])
    file = tmp_path / "module.mlir"
    file.write_text(print_ir(module), encoding="utf-8")
    words = ["reduce", str(file), "-p", pipeline, "--json"]
    right, written = Saved.write, 0

    def interrupted(self: Saved, reducer: Reducer, smaller: ModuleOp) -> None:
        nonlocal written
        right(self, reducer, smaller)
        written += 1
        if written == 3:
            raise KeyboardInterrupt

    with planted(BY_NAME["swapped-operands"]):
        with monkeypatch.context() as context:
            context.setattr(Saved, "write", interrupted)
            assert irc.main([*words, "-o", str(tmp_path / "parts.mlir")]) == 1
        assert json.loads(capsys.readouterr().out)["error"]["kind"] == "interrupted"
        shutil.copytree(tmp_path, tmp_path / "again")
        assert list((tmp_path / "again").glob("*.progress"))
        assert irc.main([*words, "-o", str(tmp_path / "again" / "parts.mlir"), "--restart"]) == 0
        whole = json.loads(capsys.readouterr().out)
        assert irc.main([*words, "-o", str(tmp_path / "parts.mlir")]) == 0
        parts = json.loads(capsys.readouterr().out)
    assert (whole["kind"], whole["resumed"], parts["resumed"]) == ("values", False, True)
    assert whole["operations"][1] == parts["operations"][1] == 2
    assert (tmp_path / "again" / "parts.mlir").read_text() == (tmp_path / "parts.mlir").read_text()
    assert not list(tmp_path.glob("*.progress"))


def test_a_script_decides(states: list[State], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, script, out = (tmp_path / name for name in ("module.mlir", "test.py", "out.mlir"))
    gated = next(state for state in states if state.name == "raise-gated")
    file.write_text(print_ir(gated.module), encoding="utf-8")
    script.write_text(
        "import sys\nsys.exit('graph.gated' not in open(sys.argv[1], encoding='utf-8').read())\n"
    )
    test = f"{sys.executable} -S -E {script}"
    assert irc.main(["reduce", str(file), "--test", test, "-o", str(out)]) == 0
    assert re.search(r"→ 1, the test still finds it interesting", capsys.readouterr().out)
    assert [op.name for op in parse_ir(out).walk() if op.name.startswith("graph.")] == ["graph.gated"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ([], 2, "required for a file without a pipeline"),
        (["-p", "raise-gated"], 1, "the pipeline does not fail, change values or leave hazards"),
        (["-p", "raise-gated", "--expect", "failure"], 1, "no failure"),
        (["--test", "false"], 1, "the module to reduce does not show what is looked for"),
    ],
)
def test_what_cannot_be_reduced(
    words: list[str], status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "module.mlir"
    file.write_text(
        "func.func @f(%x: tensor<4xf32>) -> tensor<4xf32> {\n  func.return %x : tensor<4xf32>\n}\n"
    )
    assert irc.main(["reduce", str(file), *words, "-o", str(tmp_path / "out.mlir"), "--json"]) == status
    assert message in json.loads(capsys.readouterr().out)["error"]["message"]
    assert not (tmp_path / "out.mlir").exists()


@pytest.mark.parametrize("name", ["pack-weights", "lower-to-tile"])
def test_a_right_pass_keeps_random_values(name: str, states: list[State]) -> None:
    """Weights, constants and caches are the same on both sides of a lowering."""
    number = next(i for i, state in enumerate(states) if state.name == name)
    step = states[number].step
    assert step is not None
    with pytest.raises(UserError, match="no values"):
        find_criterion(
            states[number - 1].module.clone(), str(step.pipeline_pass_spec()), machine_of("rngd"), "values"
        )
