"""Paths that are wrong are named before any work is done, and before flags that are missing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from npuc.ir.errors import UserError
from npuc.ir.files import read_text, write_atomically
from npuc.tools import irc
from npuc.tools.paths import directory, existing, writable

Capture = pytest.CaptureFixture[str]

MISSING = [
    "run NONE",
    "verify NONE",
    "verify ARTIFACT --text NONE",
    "inspect NONE",
    "objdump NONE",
    "asm NONE",
    "asm FILE --like NONE",
    "sim NONE --program x",
    "sim ARTIFACT --elf NONE",
    "explain NONE",
    "profile NONE",
    "report NONE",
    "opt NONE",
    "reduce NONE",
    "gui NONE",
    "diff NONE",
    "diff FILE NONE",
    "bisect NONE",
    "bisect ARTIFACT --input NONE",
    "bisect NONE --against NONE",
    "bisect precision MODEL --text NONE",
    "compile MODEL --compile-from NONE",
    "compile MODEL --check-input NONE",
    "compile NONE/x/y -t rngd -o OUT",
]
UNWRITABLE = [
    "asm FILE -o FOLDER",
    "asm FILE -o NONE/x",
    "profile ARTIFACT --trace NONE/x",
    "report ARTIFACT -o FOLDER",
    "run ARTIFACT --return-logits NONE/x",
    "opt FILE -o NONE/x",
    "reduce FILE -o NONE/x",
    "compile MODEL -t rngd --compile-to tile -o NONE/x.mlir",
    "compile MODEL -t rngd --compile-to tile -o FOLDER",
    "compile MODEL --dump-compilation-phases-to FILE",
    "compile MODEL --mlir-pass-pipeline-crash-reproducer NONE/x",
]


def error_of(command: str, tmp_path: Path, capsys: Capture) -> dict[str, str]:
    """What a command line that is refused tells programs."""
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    (tmp_path / "artifact").mkdir()
    (tmp_path / "artifact" / "artifact.json").write_text("{}")
    names = {"NONE": "nowhere", "FILE": "file", "FOLDER": "folder", "ARTIFACT": "artifact"}
    for word, name in names.items():
        command = command.replace(word, str(tmp_path / name))
    assert irc.main([*command.replace("OUT", str(tmp_path / "out")).split(), "--json"]) == 1
    return json.loads(capsys.readouterr().out)["error"]


@pytest.mark.parametrize("command", MISSING)
def test_what_is_missing_is_named(command: str, tmp_path: Path, capsys: Capture) -> None:
    error = error_of(command, tmp_path, capsys)
    assert error["where"].startswith(str(tmp_path / "nowhere"))
    assert error["message"] in ("no such file or directory", "no such directory")


@pytest.mark.parametrize("command", UNWRITABLE)
def test_what_cannot_be_written_is_named(command: str, tmp_path: Path, capsys: Capture) -> None:
    error = error_of(command, tmp_path, capsys)
    assert error["where"].startswith(str(tmp_path))
    expected = ("is a directory", f"there is no directory {tmp_path / 'nowhere'}", "is a file")
    assert any(text in error["message"] for text in expected)
    assert not (tmp_path / "nowhere").exists()


def test_bisect_of_neither(tmp_path: Path, capsys: Capture) -> None:
    error = error_of("bisect FOLDER", tmp_path, capsys)
    assert error["message"] == "neither artifact nor checkpoint: it has no artifact.json and no config.json"
    (tmp_path / "folder" / "config.json").write_text("{}")
    assert irc.main(["bisect", str(tmp_path / "folder")]) == 2
    assert "the following arguments are required: -t/--target" in capsys.readouterr().err


def test_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a user who may neither read nor write there; the tests' own may be allowed everything."""
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # pyright: ignore[reportUnknownLambdaType]
    for check in (existing, writable):
        with pytest.raises(UserError, match="permission denied"):
            check(str(tmp_path / ("" if check is existing else "x")))


def test_what_may_be_written(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("x")
    assert writable(str(tmp_path / "old")) == tmp_path / "old"
    assert writable(os.devnull) == Path(os.devnull)
    assert directory(str(tmp_path / "a" / "b")) == tmp_path / "a" / "b"


def test_opt_leaves_its_output_alone_when_it_fails(tmp_path: Path, capsys: Capture) -> None:
    """A file may be rewritten in place, and is whole whatever happens."""
    file = tmp_path / "x.mlir"
    file.write_text('"test.op"() : () -> ()\n// -----\nbroken\n')
    words = ["opt", str(file), "--split-input-file", "-p", "canonicalize", "-o", str(file)]
    assert irc.main(words) == 1
    assert file.read_text().endswith("broken\n")
    file.write_text('%0 = "test.pureop"() : () -> i32\n"test.op"() : () -> ()\n')
    assert irc.main(["opt", str(file), "-p", "dce", "-o", str(file)]) == 0
    assert "test.op" in file.read_text()
    assert "test.pureop" not in file.read_text()
    assert list(tmp_path.iterdir()) == [file]


def test_devices_are_written_to(tmp_path: Path) -> None:
    """Renaming a file over one would take it away from everybody."""
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    write_atomically(tmp_path / "pipe", b"x")
    assert os.read(pipe, 1) == b"x"
    os.close(pipe)
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", b"x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"x"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x"
    file.write_text("old")

    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device", str(self))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(file, b"new")
    assert caught.value.filename == str(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_text_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"a\nb\n\xff")
    with pytest.raises(UserError, match="is not UTF-8 text: byte 0xff in line 3"):
        read_text(tmp_path / "x")
    with pytest.raises(UserError, match="cannot be read: is a directory"):
        read_text(tmp_path)


def test_reduce_knows_the_passes(tmp_path: Path, capsys: Capture) -> None:
    """That there is no such pass is not the failure to keep."""
    (tmp_path / "x.mlir").write_text("builtin.module {}\n")
    assert irc.main(["reduce", str(tmp_path / "x.mlir"), "-p", "nonesuch"]) == 1
    error = capsys.readouterr().err
    assert "nonesuch" in error
    assert "irc passes lists the passes" in error
    assert [path.name for path in tmp_path.iterdir()] == ["x.mlir"]
