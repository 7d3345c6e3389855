"""A short, always equal run of what `make fuzz` does for as long as it is told to."""

from __future__ import annotations

import pytest
from cases import Case, anywhere, compiles, encodings, function_passes, pass_orders, schedules
from differential import Refused
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from npuc.ir.universe import PASSES
from npuc.passes.buckets import Bucket
from npuc.passes.pipeline import Quantize, phase_pipelines

BUDGET = settings(
    derandomize=True,  # continuous integration must not fail by chance
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.differing_executors],
)
NOT_FUZZED = {"verify-legality": "checks a module and leaves it as it is"}


def run(case: Case) -> None:
    """A pass may refuse a module, in one line."""
    try:
        case.check()
    except Refused:
        return


@settings(BUDGET, max_examples=4)
@given(compiles("rngd", small=True))
def test_compiles_for_rngd(case: Case) -> None:
    """The graph interpreter, every pass and the simulator agree about random models."""
    run(case)


@settings(BUDGET, max_examples=4)
@given(compiles("toy", small=True))
def test_compiles_for_toy(case: Case) -> None:
    run(case)


@settings(BUDGET, max_examples=8)
@given(pass_orders())
def test_pass_orders(case: Case) -> None:
    """What `optimize` is made of keeps values in any order."""
    run(case)


@pytest.mark.parametrize("dialect", ["graph", "nquant", "dist"])
@settings(BUDGET, max_examples=10)
@given(st.data())
def test_functions(dialect: str, data: st.DataObject) -> None:
    """Passes that take any function keep what it computes, of every operation."""
    run(data.draw(function_passes(dialect)))


@pytest.mark.parametrize("target", ["rngd", "toy"])
@settings(BUDGET, max_examples=5)
@given(st.data())
def test_schedules(target: str, data: st.DataObject) -> None:
    """Buffers interpreted, with and without addresses, and commands on the simulator leave the same."""
    run(data.draw(schedules(target)))


@pytest.mark.parametrize("target", ["rngd", "toy"])
@settings(BUDGET, max_examples=10)
@given(st.data())
def test_encodings(target: str, data: st.DataObject) -> None:
    """Programs of any instructions print, parse back, and survive encoding."""
    run(data.draw(encodings(target)))


def test_all_passes_are_fuzzed() -> None:
    """Compiles with everything on run all registered passes, but those named here with a reason."""
    pipelines = phase_pipelines("rngd", [Bucket("decode", 1, 1, 1)], Quantize("w8a16"), tensor_parallel=2)
    run_by_compiles = {part.partition("{")[0] for text in pipelines.values() for part in text.split(",")}
    assert set(PASSES) - run_by_compiles == set(NOT_FUZZED)
    assert set(anywhere()) - {"canonicalize", "cse", "dce"} <= set(PASSES)
