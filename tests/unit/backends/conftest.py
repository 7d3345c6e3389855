"""Makes the helpers of this folder importable by its tests, and names the machines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from npuc.backends.machine import Machine, load_machine
from npuc.backends.registry import load_target

sys.path.insert(0, str(Path(__file__).parent))
TOY = Path(__file__).parents[2] / "toy" / "toy.npu"


@pytest.fixture(scope="session")
def rngd() -> Machine:
    return load_target("rngd").machine


@pytest.fixture(scope="session")
def toy() -> Machine:
    return load_machine(TOY)


@pytest.fixture(scope="session", params=["rngd", "toy"])
def machine(request: pytest.FixtureRequest) -> Machine:
    return request.getfixturevalue(request.param)
