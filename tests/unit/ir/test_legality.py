"""Legality tables: what they list exists, and a check finds everything at once."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

import pytest
from npuc.ir.legality import LEGALITY, PHASES, check_phase
from npuc.ir.universe import NPUC_UNIVERSE
from xdsl.dialects.builtin import Builtin, ModuleOp
from xdsl.dialects.func import Func
from xdsl.utils.exceptions import PassFailedException

SYMBOLIC = """
func.func @main(%x : tensor<?x4xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 4)>>>) {
  %a = "graph.silu"(%x) {module = "model.layers.{}.mlp.act_fn"} :
    (tensor<?x4xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 4)>>>) ->
    tensor<?x4xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 4)>>>
  func.return
}
"""


Parse = Callable[[str], ModuleOp]


def test_design_phases() -> None:
    expected = "import optimize quantize specialize partition layout tile schedule emit"
    assert list(PHASES) == expected.split()


@pytest.mark.parametrize("phase", PHASES)
def test_patterns_name_operations_that_exist(phase: str) -> None:
    known = {op.name for load in NPUC_UNIVERSE.all_dialects.values() for op in load().operations}
    known |= {op.name for dialect in (Builtin, Func) for op in dialect.operations}
    legal = LEGALITY[phase]
    for pattern in (*legal.operations, *legal.excluded):
        assert any(fnmatchcase(name, pattern) for name in known), pattern


def test_symbolic_sizes_are_legal_until_specialize(parse_ir: Parse) -> None:
    module = parse_ir(SYMBOLIC)
    for phase in ("import", "optimize", "quantize"):
        check_phase(module, phase)
    with pytest.raises(PassFailedException, match="symbolic tensor"):
        check_phase(module, "specialize")


def test_all_violations_are_listed_with_their_modules(parse_ir: Parse) -> None:
    with pytest.raises(PassFailedException) as caught:
        check_phase(parse_ir(SYMBOLIC), "tile")
    first, *rest = str(caught.value).splitlines()
    assert first == (
        "illegal after phase tile, which allows operations builtin.module, func.func, func.return, tile.*, "
        "graph.weight; values buffer, index:"
    )
    assert rest[0].startswith("  @main: func.func has a value of type tensor<?x4xf32")
    assert rest[1] == "  model.layers.{}.mlp.act_fn: graph.silu may not occur"
    assert len(rest) == 2


def test_equal_violations_are_counted(parse_ir: Parse) -> None:
    constants = [f'%c{i} = "tile.constant"() {{value = 0 : i64}} : () -> index' for i in range(3)]
    with pytest.raises(PassFailedException, match=r"module: tile.constant may not occur \(3 times\)"):
        check_phase(parse_ir("\n".join(constants)), "import")
