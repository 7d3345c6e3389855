"""Dumps, times, statistics and reproducers of `irc opt` and `irc compile`, under MLIR's names."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from npuc.passes.pipeline import phase_pipelines
from npuc.tools import irc

Capture = pytest.CaptureFixture[str]

IR = """func.func @f(%a : tensor<2x8xf32>, %b : tensor<4x8xf32>) -> tensor<2x4xf32> {
  %w = graph.constant dense<[1.0, 2.0, 3.0, 4.0]> : tensor<4xf32>
  %c = graph.linear %a, %b : tensor<2x4xf32> {module = "model.layers.{}.mlp"}
  %d = graph.add %c, %w : tensor<2x4xf32> {module = "model.norm"}
  %e = graph.add %c, %w : tensor<2x4xf32> {module = "model.norm"}
  func.return %d : tensor<2x4xf32>
}
func.func @g() {
  func.return
}
"""
OPTIMIZE = phase_pipelines("rngd", [])["optimize"]
FAILING = 'cse,specialize{target="rngd" buckets="decode_1x16"}'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "in.mlir"
    path.write_text(IR)
    return path


def opt(capsys: Capture, *words: str | Path, status: int = 0) -> tuple[str, str]:
    """What `irc opt` prints on stdout and stderr."""
    assert irc.main(["opt", *map(str, words)]) == status
    captured = capsys.readouterr()
    return captured.out, captured.err


def titles(text: str) -> list[str]:
    return re.findall(r"^// -----// IR Dump (.*) //----- //$", text, re.MULTILINE)


BEFORE_CSE, AFTER_CSE = (f"{when} CommonSubexpressionElimination (cse)" for when in ("Before", "After"))
BEFORE_DCE, AFTER_DCE = (f"{when} DeadCodeElimination (dce)" for when in ("Before", "After"))


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--mlir-print-ir-before-all"], [BEFORE_CSE, BEFORE_DCE]),
        (["--mlir-print-ir-after-all"], [AFTER_CSE, AFTER_DCE]),
        (["--mlir-print-ir-before=dce"], [BEFORE_DCE]),
        (["--mlir-print-ir-before=cse,dce"], [BEFORE_CSE, BEFORE_DCE]),
        (["--mlir-print-ir-after=c*"], [AFTER_CSE]),
        (["--mlir-print-ir-after-change"], [AFTER_CSE]),
        (["--mlir-print-ir-after=dce", "--mlir-print-ir-after-change"], []),
        (["--mlir-print-ir-after-failure"], []),
        (["--mlir-print-ir-after-all", "--dump-filter=nonesuch"], []),
        (
            ["--mlir-print-ir-after-all", "--mlir-print-ir-after-change", "--dump-filter=model.norm"],
            [f"{AFTER_CSE} ('model.norm')"],
        ),
    ],
)
def test_when_to_dump(flags: list[str], expected: list[str], file: Path, capsys: Capture) -> None:
    _, err = opt(capsys, file, "-p", "cse,dce", *flags)
    found = [re.sub(r"(\w+?)(Pass)? \(", r"\1 (", title, count=1) for title in titles(err)]
    assert found == expected


def test_after_failure(file: Path, capsys: Capture) -> None:
    _, err = opt(capsys, file, "-p", FAILING, "--mlir-print-ir-after-failure", status=1)
    assert titles(err) == ["After SpecializePass Failed (specialize)"]
    assert err.splitlines()[-1] == "irc: error: specialize: the module has no function @main"


@pytest.mark.parametrize(
    ("pattern", "lines"),
    [
        ("g", ["func.func @g() {", "  func.return", "}"]),
        ("@g", ["func.func @g() {", "  func.return", "}"]),
        (
            "model.layers.3",
            ["// in @f", '%c = graph.linear %a, %b : tensor<2x4xf32> {module = "model.layers.{}.mlp"}'],
        ),
        (
            "model.layers.*.mlp",
            ["// in @f", '%c = graph.linear %a, %b : tensor<2x4xf32> {module = "model.layers.{}.mlp"}'],
        ),
    ],
)
def test_filter(pattern: str, lines: list[str], file: Path, capsys: Capture) -> None:
    flags = ["--mlir-print-ir-after=dce", f"--dump-filter={pattern}"]
    _, err = opt(capsys, file, "-p", "dce", *flags)
    assert err.splitlines()[1:] == [*lines, ""]
    _, err = opt(capsys, file, "-p", "dce", *flags, "--mlir-print-ir-module-scope")
    assert err.splitlines()[1] == "builtin.module {"
    assert "@f" in err
    assert "@g" in err


def test_tree_dir(file: Path, tmp_path: Path, capsys: Capture) -> None:
    tree = tmp_path / "tree"
    flags = ["--mlir-print-ir-after-all", "--mlir-print-ir-before=dce", "--mlir-print-ir-tree-dir", tree]
    _, err = opt(capsys, file, "-p", "cse,dce", *flags)
    assert err == ""
    found = {path.name: path.read_text() for path in (tree / "builtin_module_no-symbol-name").iterdir()}
    assert sorted(found) == ["0_cse.mlir", "1_dce.before.mlir", "1_dce.mlir"]
    assert titles(found["0_cse.mlir"])
    out, _ = opt(capsys, tree / "builtin_module_no-symbol-name" / "0_cse.mlir")
    assert out.count("graph.add") == 1


def test_form(file: Path, capsys: Capture) -> None:
    out, _ = opt(capsys, file, "--mlir-print-op-generic")
    assert '"graph.linear"(%a, %b)' in out
    out, _ = opt(capsys, file, "--mlir-print-debuginfo")
    assert f'{{module = "model.layers.{{}}.mlp"}} loc("{file}":3:3)' in out
    out, _ = opt(capsys, file, "--mlir-elide-elementsattrs-if-larger=3")
    assert "graph.constant dense_resource<__elided__> : tensor<4xf32>" in out
    out, _ = opt(capsys, file, "--mlir-elide-elementsattrs-if-larger=4")
    assert "dense<" in out
    assert irc.main(["opt", str(file), "--mlir-elide-elementsattrs-if-larger=-1"]) == 2


def test_weight_sources_are_elided(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "in.mlir"
    source = '{file = "a", offset = 0 : i64, bytes = 8 : i64, dtype = "F32", shape = array<i64: 2>}'
    file.write_text(f"graph.weight @w : tensor<2xf32> sources [{source}]\n")
    assert source in opt(capsys, file)[0]
    assert source in opt(capsys, file, "--mlir-elide-resource-strings-if-larger=1000")[0]
    assert "1 elided" in opt(capsys, file, "--mlir-elide-resource-strings-if-larger=20")[0]


def test_type_aliases(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "in.mlir"
    file.write_text('%x = tile.alloc : memref<1x4xf32, "dm">\n')
    assert "!dm_1_4_f32 = memref" in opt(capsys, file)[0]
    assert "!dm_1_4_f32" not in opt(capsys, file, "--no-type-aliases")[0]


def test_reports(file: Path, capsys: Capture) -> None:
    _, err = opt(capsys, file, "-p", "cse,dce,cse", "--mlir-timing")
    assert "... Execution time report ..." in err
    assert sorted(re.findall(r"\d\.\d{4} \( *[\d.]+%\)  (\w+)$", err, re.MULTILINE)) == [
        "Total",
        "cse",
        "dce",
    ]
    _, err = opt(capsys, file, "-p", "cse", "--mlir-pass-statistics")
    assert "... Pass statistics report ..." in err
    assert "  (S)      1 graph.add removed" in err.splitlines()
    _, err = opt(capsys, file, "-p", "cse,canonicalize", "--dump-pass-pipeline")
    assert err.splitlines()[:2] == ["Pass Manager with 2 passes:", "builtin.module(cse,canonicalize)"]


def test_verify_each(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    from npuc.ir.graph import LinearOp
    from xdsl.transforms.dead_code_elimination import DeadCodeElimination

    def spoil(self: object, ctx: object, op: object) -> None:
        linear = next(inner for inner in op.walk() if isinstance(inner, LinearOp))
        linear.operands[1] = linear.operands[0]

    monkeypatch.setattr(DeadCodeElimination, "apply", spoil)
    file = tmp_path / "in.mlir"
    file.write_text(IR)
    assert opt(capsys, file, "-p", "dce", status=1)[1].startswith("irc: error: model.layers.{}.mlp: ")
    opt(capsys, file, "-p", "dce", "--verify-each=false")
    assert irc.main(["opt", str(file), "--verify-each=maybe"]) == 2


def test_reproducer(file: Path, tmp_path: Path, capsys: Capture) -> None:
    wanted = "irc: error: specialize: the module has no function @main"
    for local, pipeline in (
        ([], "cse,specialize"),
        (["--mlir-pass-pipeline-local-reproducer"], "specialize"),
    ):
        saved = tmp_path / "saved.mlir"
        flags = ["--mlir-pass-pipeline-crash-reproducer", saved, *local]
        _, err = opt(capsys, file, "-p", FAILING, *flags, status=1)
        assert f"irc: note: pass specialize failed, reproducer written to {saved}" in err
        assert f'pipeline: "builtin.module({pipeline}{{' in saved.read_text()
        assert saved.read_text().count("graph.add") == (1 if local else 2)
        assert opt(capsys, "--run-reproducer", saved, status=1)[1].strip() == wanted
        assert "func.func @f" in opt(capsys, saved)[0]
    assert "the file holds no pipeline" in opt(capsys, "--run-reproducer", file, status=1)[1]


def test_debug_levels(file: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    for level, dumps in (
        (1, []),
        (2, []),
        (3, [AFTER_CSE]),
        (4, [BEFORE_CSE, AFTER_CSE, BEFORE_DCE, AFTER_DCE]),
    ):
        monkeypatch.setenv("IRC_DEBUG", str(level))
        _, err = opt(capsys, file, "-p", "cse,dce")
        found = [re.sub(r"(\w+?)(Pass)? \(", r"\1 (", title, count=1) for title in titles(err)]
        assert found == dumps
        assert "Execution time report" in err
        assert ("Pass statistics report" in err) == (level >= 2)


EXPECTING = """func.func @f(%a : tensor<2x8xf32>, %b : tensor<4x9xf32>) -> tensor<2x4xf32> {
  // expected-error @+1 {{contracting dimensions differ}}
  %c = graph.linear %a, %b : tensor<2x4xf32>
  func.return %c : tensor<2x4xf32>
}
// -----
// expected-error-re @unknown {{has no {{f.*}} @main}}
func.func @g() {
  func.return
}
// -----
func.func @h() {
  // expected-error @below {{operation nonesuch is not registered}}
  nonesuch }
"""


def test_verify_diagnostics(tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "in.mlir"
    flags = [file, "--split-input-file", "--verify-diagnostics", "-p", FAILING]
    file.write_text(EXPECTING)
    assert opt(capsys, *flags) == ("// -----\n// -----\n", "")
    file.write_text(EXPECTING.replace("differ}}", "agree}}"))
    assert opt(capsys, *flags, status=1)[1].splitlines() == [
        f'irc: error: {file}: line 3: expected error "contracting dimensions agree" was not produced',
        "line 3: unexpected error: contracting dimensions differ: lhs has 8, rhs has 9",
    ]
    file.write_text(EXPECTING.replace("@below", "@above"))
    assert "line 14: unexpected error: operation nonesuch" in opt(capsys, *flags, status=1)[1]
    file.write_text(EXPECTING.replace("error-re @unknown", "note-re @unknown"))
    assert "expected note" in opt(capsys, *flags, status=1)[1]


def test_expected_warnings_and_notes(
    tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import warnings

    from npuc.ir.errors import UserError
    from xdsl.transforms.dead_code_elimination import DeadCodeElimination

    def apply(self: object, ctx: object, op: object) -> None:
        warnings.warn("nothing is dead", stacklevel=1)
        raise UserError("k", "cannot", remedy="do not")

    monkeypatch.setattr(DeadCodeElimination, "apply", apply)
    file = tmp_path / "in.mlir"
    comments = [
        "// expected-warning @unknown {{nothing is dead}}",
        "// expected-error @unknown {{cannot}}",
        "// expected-note @unknown {{do not}}",
    ]
    file.write_text("\n".join([*comments, "func.func private @f()"]))
    opt(capsys, file, "--verify-diagnostics", "-p", "dce")
    for comment in comments:
        file.write_text("\n".join([*(c for c in comments if c != comment), "func.func private @f()"]))
        assert "unexpected" in opt(capsys, file, "--verify-diagnostics", "-p", "dce", status=1)[1]


def test_compile_has_the_same_flags(demo_model: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["compile", demo_model, "-t", "rngd", "--decode-buckets", "1x8", "--compile-to", "optimize"]
    flags = ["--mlir-print-ir-after=raise-gated", "--dump-filter=model.layers.0.mlp", "--mlir-timing"]
    reports = ["--mlir-pass-statistics", "--dump-pass-pipeline", "--verify-each", "--no-type-aliases"]
    assert irc.main([*map(str, words), *flags, *reports, "--json"]) == 0
    captured = capsys.readouterr()
    assert titles(captured.err) == ["After RaiseGatedPass (raise-gated) ('model.layers.0.mlp')"]
    assert "graph.gated silu" in captured.err
    assert f"builtin.module({OPTIMIZE})" in captured.err
    assert re.search(r"%\)  raise-gated$", captured.err, re.MULTILINE)
    assert "graph.gated added" in captured.err
    assert "!t_batch" not in json.loads(captured.out)["text"]


@pytest.fixture(scope="module")
def imported(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demonstration model's graph, which compiles need not import again."""
    file = tmp_path_factory.mktemp("imported") / "import.mlir"
    words = ["compile", str(demo_model), "-t", "rngd", "--compile-to", "import", "-o", str(file)]
    assert irc.main(words) == 0
    return file


@pytest.fixture
def compile_ir(
    demo_model: Path, imported: Path, tmp_path: Path, capsys: Capture
) -> Callable[..., tuple[str, str]]:
    """What `irc compile` prints when it goes on from a file, up to phase optimize."""

    def run(*flags: str | Path, file: Path = imported, status: int = 0) -> tuple[str, str]:
        words = ["compile", demo_model, "-t", "rngd", "--compile-from", file, "--compile-to", "optimize"]
        assert irc.main([*map(str, words), *map(str, flags)]) == status
        captured = capsys.readouterr()
        return captured.out, captured.err

    return run


def test_compile_dumps_where_and_when_opt_does(
    compile_ir: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    _, err = compile_ir(
        "--mlir-print-ir-before=canonicalize", "--mlir-print-ir-module-scope", "--dump-filter=@main"
    )
    assert titles(err) == ["Before CanonicalizePass (canonicalize) ('@main')"]
    assert "@layer_kind0" in err
    _, err = compile_ir("--mlir-print-ir-before-all", "--mlir-print-ir-after-all")
    assert len(titles(err)) == 2 * len(OPTIMIZE.split(","))
    _, err = compile_ir("--mlir-print-ir-after-change", "--mlir-print-ir-after-failure")
    changing = [title.split()[1] for title in titles(err)]
    assert {"RaiseRmsNormPass", "RaiseRopePass", "RaiseGatedPass"} <= set(changing)
    assert "FoldConstantsPass" not in changing
    tree = tmp_path / "tree"
    _, err = compile_ir("--mlir-print-ir-after-all", "--mlir-print-ir-tree-dir", tree)
    assert err == ""
    names = sorted(path.name for path in (tree / "builtin_module_no-symbol-name").iterdir())
    assert names[0] == "0_fold-constants.mlir"
    assert len(names) == len(OPTIMIZE.split(","))


def test_compile_prints_in_the_form_that_opt_does(compile_ir: Callable[..., tuple[str, str]]) -> None:
    assert '"graph.linear"(' in compile_ir("--mlir-print-op-generic")[0]
    assert "elided" not in compile_ir()[0]
    assert " elided" in compile_ir("--mlir-elide-resource-strings-if-larger=10")[0]
    assert "<__elided__>" in compile_ir("--mlir-elide-elementsattrs-if-larger=2")[0]
    assert "loc(unknown)" in compile_ir("--mlir-print-debuginfo")[0]


def test_compile_reproducer(
    compile_ir: Callable[..., tuple[str, str]], imported: Path, tmp_path: Path
) -> None:
    faulty, saved = tmp_path / "faulty.mlir", tmp_path / "saved.mlir"
    faulty.write_text(imported.read_text().replace("@main", "@other"))
    specialize = ["--compile-to", "specialize", "--decode-buckets", "1x8"]
    flags = ["--mlir-pass-pipeline-crash-reproducer", saved, "--mlir-pass-pipeline-local-reproducer"]
    _, err = compile_ir(*specialize, *flags, file=faulty, status=1)
    assert f"irc: note: pass specialize failed, reproducer written to {saved}" in err
    _, again = compile_ir("--run-reproducer", file=saved, status=1)
    assert again.splitlines()[-1].endswith("specialize: the module has no function @main")


def test_compile_splits_and_expects(
    compile_ir: Callable[..., tuple[str, str]], imported: Path, tmp_path: Path
) -> None:
    file = tmp_path / "in.mlir"
    good = imported.read_text()
    file.write_text(f"{good}// -----\n{good}")
    out, _ = compile_ir("--split-input-file", file=file)
    assert out.count("// -----") == 1
    assert out.count("graph.gated") == 2
    expected = "// expected-error @unknown {{the module has no function @main}}\n"
    file.write_text(f"{good}// -----\n{expected}{good.replace('@main', '@other')}")
    flags = ["--split-input-file", "--verify-diagnostics", "--compile-to=specialize", "--decode-buckets=1x8"]
    compile_ir(*flags, file=file)
    file.write_text(f"{expected}{good}")
    _, err = compile_ir(*flags, file=file, status=1)
    assert "was not produced" in err


def test_flags_about_the_file_need_it(demo_model: Path, capsys: Capture) -> None:
    assert irc.main(["compile", str(demo_model), "-t", "rngd", "--verify-diagnostics"]) == 2
    assert "--compile-from" in capsys.readouterr().err
