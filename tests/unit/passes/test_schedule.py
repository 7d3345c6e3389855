"""Hand-written tile modules, scheduled, encoded and run on the simulator, against the tile interpreter."""

from collections.abc import Callable

import pytest
import tile_modules as modules
import torch
from npuc.ir.interpret import Runtime
from npuc.ir.interpret_tile import TileMemory, interpret_tile
from npuc.passes.target_option import machine_of
from npuc.runtime.simulator import Simulator
from schedule_helpers import TOY, schedule
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

PLACES = {"rngd": ("hbm", "dm", "trf", 64), TOY: ("dram", "spm", "spm", 1)}


def run(
    module: ModuleOp, target: str, inputs: dict[str, torch.Tensor], runtime: Runtime | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], int]:
    """Outputs by the interpreter and by the simulator (without any hazard), and the cycles it took."""
    machine = machine_of(target)
    rows = runtime or Runtime([], [], [], 0)
    function = next(f for f in module.walk() if isinstance(f, FuncOp) and f.sym_visibility is None)
    expected: dict[str, torch.Tensor] = {}
    for argument in function.body.block.args:
        name = argument.name_hint
        assert name is not None
        expected[name] = (
            inputs[name].clone() if name in inputs else torch.full(argument.type.get_shape(), torch.nan)
        )
    memory = TileMemory({n: m.slices for n, m in machine.memories.items()}, _no_weights, runtime=rows)
    interpret_tile(module, function.sym_name.data, list(expected.values()), memory)
    emitted = schedule(module, target)
    simulator = Simulator(machine, 1 << 22)
    for name, tensor in inputs.items():
        simulator.write(emitted.io[name][0], tensor)
    program = simulator.load(emitted.program)
    params = [0, 0]
    for slot, position, valid in zip(rows.slot, rows.position, rows.valid, strict=True):
        params += [slot, position, valid, max(valid - 1, 0), position + valid]
    result = simulator.run(program, function.sym_name.data, params, hazards=True)
    assert not result.hazards, result.hazards[0]
    found = {
        name: simulator.read(emitted.io[name][0], tensor.shape, tensor.dtype)
        for name, tensor in expected.items()
    }
    return expected, found, simulator.time(program, function.sym_name.data, params).cycles


def _no_weights(symbol: str, layer: int | None) -> torch.Tensor:
    raise AssertionError(symbol)


@pytest.fixture(params=list(PLACES), ids=["rngd", "toy"])
def target(request: pytest.FixtureRequest) -> str:
    return request.param


Make = Callable[[str, str, str, int], ModuleOp]
CASES: dict[str, Make] = {
    "double_buffered": lambda main, local, _, slices: modules.double_buffered(main, local, slices),
    "called_twice": lambda main, local, _, slices: modules.called_twice(main, local, slices),
    "matmul_tiles": modules.matmul_tiles,
    "rows": lambda main, local, _, slices: modules.rows(main, local, slices),
}


@pytest.mark.parametrize("case", CASES)
def test_the_simulator_agrees_with_the_interpreter(target: str, case: str) -> None:
    module = CASES[case](*PLACES[target])
    torch.manual_seed(0)
    main = PLACES[target][0]
    inputs = {
        argument.name_hint: torch.randn(argument.type.get_shape())
        for function in module.walk()
        if isinstance(function, FuncOp) and function.sym_visibility is None
        for argument in function.body.block.args
        if argument.name_hint != "y"
    }
    runtime = Runtime([2, 0, 1], [3, 0, 5], [4, 0, 1], 16)
    expected, found, _ = run(module, target, inputs, runtime)
    assert main
    assert not expected["y"].isnan().any()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
