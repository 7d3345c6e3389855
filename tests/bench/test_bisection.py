"""How long finding and shrinking faults takes, on a model of 4 layers: run with --benchmark-enable.

Each planted fault is searched for as `irc bisect` does it by default, with a decode and a prefill program. A
test that passes has named pass, operation and checkpoint module, so as many faults are found as tests pass.
Ten of them are reduced; `operations` in the extra information of --benchmark-json is what is left. Models are
traced before. --benchmark-timer=time.process_time counts only what we use of a shared machine. That faults
are found is also tested, without times, in tests/faults.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from npuc.frontends.transformers_export import import_model
from npuc.passes.bisection.states import State, history_of
from npuc.passes.buckets import parse_bucket
from npuc.passes.pipeline import finish_phase
from npuc.passes.reduction.criteria import find_criterion
from npuc.passes.reduction.modules import size
from npuc.passes.reduction.reducer import Reducer, transformations_for
from npuc.passes.target_option import machine_of
from planting import Fault, planted
from table import FAULTS
from test_bisect import gemma2, search
from test_reduce import FAULTS as REDUCED
from test_reduce import LONG, before
from xdsl.dialects.builtin import ModuleOp

Benchmark = Callable[..., Any]
BUCKETS = ("decode_1x16", "prefill_1x8")


@pytest.fixture(autouse=True, scope="module")
def _enabled(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("measured with --benchmark-enable only; tests/faults tests the same")


@pytest.fixture(scope="module")
def models(demo_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, ModuleOp]]:
    """Directory and imported module of both models."""
    folders = {"demo": demo_model, "gemma2": gemma2(tmp_path_factory.mktemp("gemma2"))}
    found: dict[str, tuple[Path, ModuleOp]] = {}
    for name, folder in folders.items():
        module = import_model(str(folder))
        finish_phase(module, "import")
        found[name] = folder, module
    return found


@pytest.fixture(scope="module")
def states(models: dict[str, tuple[Path, ModuleOp]]) -> list[State]:
    return history_of(models["demo"][1].clone(), "rngd", [parse_bucket("decode", "1x16")]).states


@pytest.mark.benchmark(group="bisect", min_rounds=1)
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_bisect(fault: Fault, models: dict[str, tuple[Path, ModuleOp]], benchmark: Benchmark) -> None:
    with planted(fault):
        found = benchmark.pedantic(search, (*models[fault.model], BUCKETS), rounds=1)  # type: ignore[attr-defined]
    assert found is not None
    assert (found.step, found.op, found.module) == (fault.step, fault.op, fault.module), found.explanation


@pytest.mark.benchmark(group="reduce", min_rounds=1)
@pytest.mark.parametrize("name", LONG)
def test_reduce(name: str, states: list[State], benchmark: Any) -> None:
    module, pipeline = before(states, REDUCED[name])
    with planted(REDUCED[name]):
        _, interesting = find_criterion(module.clone(), pipeline, machine_of("rngd"))
        reducer = Reducer(interesting, transformations_for(pipeline))
        found = benchmark.pedantic(reducer.reduce, (module.clone(),), rounds=1)
        benchmark.extra_info |= {"before": size(module), "operations": size(found), "tests": reducer.tests}
        assert interesting(found.clone())
    assert size(found) <= 5
