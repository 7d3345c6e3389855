"""The driver: help, listings, errors in one line or one object, exit statuses."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from npuc.ir.errors import UserError
from npuc.tools import irc
from npuc.tools.command import Outcome

FAULTY = """
func.func @f(%a : tensor<2x8xf32>, %b : tensor<4x9xf32>) {
  %c = "graph.linear"(%a, %b) {operandSegmentSizes = array<i32: 1, 1, 0, 0>, module = "model.layers.{}.mlp"} :
    (tensor<2x8xf32>, tensor<4x9xf32>) -> tensor<2x4xf32>
  func.return
}
"""


def test_help_names_every_subcommand_and_imports_nothing_heavy() -> None:
    code = "import sys; from npuc.tools.irc import main; main(['--help']); print(*sys.modules)"
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds = time.perf_counter() - start
    text, _, modules = done.stdout.strip().rpartition("\n")
    for entry in irc.ENTRIES.values():
        assert f"  {entry.name:<10}{entry.help}" in text
    assert not {"torch", "xdsl", "numpy", "rich", "transformers"} & set(modules.split())
    assert seconds < 0.3 * 3  # three times the bound: test machines are shared


@pytest.mark.parametrize("name", irc.ENTRIES)
def test_subcommand_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        irc.main([name, "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: irc {name}")
    assert "--json" in text


@pytest.mark.parametrize("name", ["passes", "dialects", "targets"])
def test_listings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert irc.main([name, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)[name]
    assert irc.main([name]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [item["name"] for item in listed]
    assert all(item["summary"] for item in listed)
    for item in listed:
        assert irc.main([name, item["name"]]) == 0
        assert item["name"] in capsys.readouterr().out or name == "targets"
    assert irc.main([name, "nonesuch"]) == 1
    assert "nonesuch" in capsys.readouterr().err


def test_unknown_subcommand(capsys: pytest.CaptureFixture[str]) -> None:
    assert irc.main(["dialect"]) == 2
    assert capsys.readouterr().err.endswith("irc: error: no subcommand 'dialect': did you mean dialects?\n")


@pytest.mark.parametrize("words", [["passes", "--jsn"], ["opt", "--bar"], ["passes", "a", "b"]])
def test_usage_errors(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert irc.main(words) == 2
    usage, message = capsys.readouterr().err.splitlines()
    assert usage.startswith(f"usage: irc {words[0]}")
    assert message.startswith(f"irc {words[0]}: error: unrecognized arguments: ")
    assert irc.main([*words, "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["kind"] == "usage"
    assert error["where"] == f"irc {words[0]}"


def test_usage_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """What is required, in the order of the command's help, and where the rest is told."""
    assert irc.main(["compile", "--nonesuch"]) == 2
    usage = capsys.readouterr().err.splitlines()[0]
    assert usage == "usage: irc compile MODEL -t TARGET … | irc compile --help"
    assert irc.main(["asm"]) == 2
    assert capsys.readouterr().err.startswith("usage: irc asm FILE -o OUTPUT … | irc asm --help\n")


def test_what_is_no_list_of_tokens(capsys: pytest.CaptureFixture[str]) -> None:
    assert irc.main(["run", ".", "--prompt-ids", "1,x"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith("'1,x' is no list of token ids, such as 1,42,7")


def _raising(error: BaseException) -> object:
    def execute(arguments: list[str]) -> Outcome:
        raise error

    return execute


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("k", "broken", where="a.b", remedy="mend it"), "irc: error: a.b: broken (mend it)"),
        (
            FileNotFoundError(2, "No such file or directory", "x.mlir"),
            "irc: error: x.mlir: no such file or directory",
        ),
        (
            ZeroDivisionError("division\nby zero"),
            "irc: error: internal error: ZeroDivisionError: division by zero "
            "(this is a bug in npuc; IRC_TRACEBACK=1 shows where)",
        ),
        (KeyboardInterrupt(), "irc: error: interrupted"),
    ],
)
def test_errors_are_one_line(
    error: BaseException, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(irc, "execute", _raising(error))
    assert irc.main(["run"]) == 1
    assert capsys.readouterr().err == line + "\n"
    assert irc.main(["run", "--json"]) == 1
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)["error"]) == {"kind", "message", "where", "remedy"}
    assert captured.err == ""
    monkeypatch.setenv("IRC_TRACEBACK", "1")
    irc.main(["run"])
    assert type(error).__name__ in capsys.readouterr().err.partition("irc: error")[0]


def test_failed_checks_exit_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(irc, "execute", lambda arguments: Outcome({"max_abs_error": 1.0}, passed=False))
    assert irc.main(["verify"]) == 1


def test_opt_shows_the_neighbourhood_of_a_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "faulty.mlir"
    path.write_text(FAULTY + '"test.op"() : () -> ()\n' * 50)
    assert irc.main(["opt", str(path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "irc: error: model.layers.{}.mlp: contracting dimensions differ: lhs has 8, rhs has 9"
    assert len(lines) < 20
    path.write_text("%a = nonesuch")
    assert irc.main(["opt", str(path)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"irc: error: {path}:1:14: operation nonesuch is not registered"
    assert irc.main(["opt", str(path), "-p", "cse{"]) == 1
    assert "expected argument name here" in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    "command", [["reduce", "-p", "cse"], ["compile", "MODEL", "-t", "rngd", "-o", "OUT", "--compile-from"]]
)
def test_ir_that_is_wrong_is_shown(
    command: list[str], demo_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As irc opt shows it: the line and column, or the module, and what is there."""
    path = tmp_path / "x.mlir"
    path.write_text('builtin.module {\n  "graph.nonesuch"() : () -> ()\n}\n')
    places = {"OUT": str(tmp_path / "out"), "MODEL": str(demo_model)}
    words = [*(places.get(word, word) for word in command), str(path)]
    assert irc.main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == f"irc: error: {path}:2:19: operation graph.nonesuch is not registered"
    assert lines[1].strip() == '"graph.nonesuch"() : () -> ()'
    path.write_text(FAULTY)
    assert irc.main(words) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"irc: error: {path}: model.layers.{{}}.mlp: contracting dimensions differ")
    assert any("graph.linear" in line for line in lines[1:])
    assert not (tmp_path / "out").exists()


def test_opt_runs_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "in.mlir"
    path.write_text(FAULTY.replace("x9x", "x8x"))
    flags = [
        "--pass-pipeline",
        "builtin.module(cse,canonicalize)",
        "--mlir-print-ir-after-all",
        "--mlir-timing",
    ]
    assert irc.main(["opt", str(path), *flags]) == 0
    captured = capsys.readouterr()
    assert "graph.linear" not in captured.out
    assert "// -----// IR Dump After CanonicalizePass (canonicalize) //----- //" in captured.err
    assert irc.main(["opt", str(path), "-p", "cse", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [p["name"] for p in found["passes"]] == ["cse"]
    assert "func.func @f" in found["text"]
