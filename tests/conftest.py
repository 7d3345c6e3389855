"""What all tests share: the test data beside the repository, golden files, one thread for torch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

REPOSITORY = Path(__file__).resolve().parent.parent

# Tests run side by side, on small models: more threads only get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Tests use what is on this machine; nothing is looked up on the network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["IRC_PROGRESS"] = "0"
# How long an example takes depends on what else runs on the machine.
settings.register_profile("npuc", deadline=None)
settings.load_profile("npuc")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of models and texts beside the repository, or where NPUC_TEST_DATA says."""
    folder = Path(os.environ.get("NPUC_TEST_DATA", REPOSITORY.parent / "shared"))
    if not (folder / "models").is_dir():
        pytest.skip(f"no test data at {folder} (NPUC_TEST_DATA names another place)")
    return folder


@pytest.fixture(scope="session")
def demo_model() -> Path:
    """The demonstration model, a checkpoint that is part of the repository."""
    return REPOSITORY / "demo" / "model"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compares a text with a golden file; with --update-golden writes the file."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing: run pytest --update-golden and look at what it wrote"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture(scope="session")
def iree_opt() -> Callable[[str], str]:
    """MLIR's own parser and verifier: gives back what iree-opt prints, fails with its diagnostics."""
    tool = Path(sys.executable).parent / "iree-opt"
    if not tool.exists():
        pytest.skip("iree-opt is not installed (package iree-base-compiler)")

    def parse(text: str) -> str:
        command = [str(tool), "--allow-unregistered-dialect", "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return parse


@pytest.fixture
def parse_ir() -> Callable[[str], ModuleOp]:
    """Parses text of our dialects; operations of dialect `test` stand in for anything."""
    from npuc.ir.parsing import IRParser
    from npuc.ir.universe import NPUC_UNIVERSE
    from xdsl.context import Context
    from xdsl.dialects import builtin, func, test

    def parse(text: str) -> ModuleOp:
        context = Context()
        for name, dialect in NPUC_UNIVERSE.all_dialects.items():
            context.register_dialect(name, dialect)
        for dialect in (builtin.Builtin, func.Func, test.Test):
            context.load_dialect(dialect)
        module = IRParser(context, text).parse_module()
        module.verify()
        return module

    return parse
