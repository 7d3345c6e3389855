"""Runs the `.mlir` files of this folder in-process, and refuses directives that filecheck would ignore.

A file says how it is run as LLVM's tests do: ``// RUN: irc opt %s -p 'pass' | filecheck %s``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import parse_argv_options
from filecheck.parser import Parser
from npuc.tools import irc

FOLDER = Path(__file__).resolve().parent
FILES = sorted(FOLDER.rglob("*.mlir"))
IDS = [str(path.relative_to(FOLDER)) for path in FILES]

SUFFIXES = r"(-(DAG|COUNT-\d+|NOT|EMPTY|NEXT|SAME|LABEL))?(\{LITERAL})?"
RUN = re.compile(r"^//\s*RUN:\s*(.*)$", re.MULTILINE)
PREFIX = re.compile(r"--check-prefix(?:es)?[= ](\S+)")
COMMENT = re.compile(r"//\s*(.*)$", re.MULTILINE)


def misspelled(text: str) -> Iterator[str]:
    """Comments that look like a directive and are none, with the number of their line."""
    prefixes = ["CHECK", *(p for flag in PREFIX.findall(text) for p in flag.split(","))]
    valid = re.compile(rf"(RUN|COM|({'|'.join(map(re.escape, prefixes))}){SUFFIXES}):")
    for number, line in enumerate(text.splitlines(), 1):
        comment = COMMENT.search(line)
        if comment is None or valid.match(comment[1]):
            continue
        word, colon, _ = comment[1].partition(":")
        shouted = bool(colon) and re.fullmatch(r"[A-Z][A-Z\d_{}-]*( [A-Z\d]+)*\s*", word) is not None
        named = any(re.match(rf"{re.escape(p)}([-_: {{]|$)", comment[1], re.IGNORECASE) for p in prefixes)
        if shouted or named:
            yield f"line {number}: {comment[0]}"


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_directives_are_spelled_right(path: Path) -> None:
    assert list(misspelled(path.read_text())) == []


@pytest.mark.parametrize(
    ("comment", "wrong"),
    [
        ("// CHECK-NXT: a", True),
        ("// CHEK: a", True),
        ("// CHECK_NEXT: a", True),
        ("// CHECK NEXT: a", True),
        ("// CHECK-NEXT a", True),
        ("// check: a", True),
        ("// OTHER-NEXT: a", True),
        ("%a = op // CHECKNEXT: a", True),
        ("// CHECK-NEXT: a", False),
        ("// CHECK-COUNT-2: a", False),
        ("// CHECK{LITERAL}: a", False),
        ("// RUN: irc opt %s", False),
        ("// Weights stay: symbols.", False),
        ("// Checks that nothing moves.", False),
    ],
)
def test_misspellings_are_found(comment: str, wrong: bool) -> None:
    assert bool(list(misspelled(comment))) == wrong


def test_declared_prefixes_are_directives() -> None:
    run = "// RUN: irc opt %s | filecheck %s --check-prefix OTHER\n"
    assert not list(misspelled(run + "// OTHER-NEXT: a"))
    assert list(misspelled(run + "// OTHER-NXT: a"))


@pytest.mark.parametrize("path", FILES, ids=IDS)
def test_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = path.read_text()
    runs = RUN.findall(text)
    assert runs, "no RUN line"
    for run in runs:
        command, _, check = run.partition("|")
        expect_failure, words = False, shlex.split(command.replace("%s", shlex.quote(str(path))))
        if words[0] == "not":
            expect_failure, words = True, words[1:]
        assert words[0] == "irc", f"only irc is run: {command}"
        status = irc.main(words[1:])
        captured = capsys.readouterr()
        assert (status != 0) == expect_failure, captured.err
        options = parse_argv_options(shlex.split(check.replace("%s", shlex.quote(str(path)))))
        found = captured.err if expect_failure else captured.out
        matcher = Matcher(options, FInput(str(path), found), Parser.from_opts(options))
        assert matcher.run() == 0, capsys.readouterr().err
