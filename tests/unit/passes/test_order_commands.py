"""Reordering commands of a program as a whole."""

import pytest
from npuc.ir import tile
from npuc.passes import order_commands
from npuc.passes.order_commands import OrderCommandsPass
from npuc.passes.select_commands import SelectCommandsPass
from tile_modules import loads_behind_stores
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp


def commands(module: ModuleOp) -> list[str]:
    """Modules of the commands, in order."""
    return [str(op.attributes["module"]) for op in module.walk() if isinstance(op, tile.PassOp | tile.CopyOp)]


def test_loads_move_ahead_of_stores() -> None:
    module = loads_behind_stores("hbm", "dm", 64)
    SelectCommandsPass("rngd").apply(Context(), module)
    given = commands(module)
    OrderCommandsPass("rngd").apply(Context(), module)
    module.verify()
    found = commands(module)
    assert sorted(found) == sorted(given)
    loads = [i for i, name in enumerate(found) if "load" in name]
    assert loads[1] < next(i for i, name in enumerate(found) if "store" in name)


def test_the_given_order_stays_where_buffers_cannot_be_placed_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = loads_behind_stores("hbm", "dm", 64)
    SelectCommandsPass("rngd").apply(Context(), module)
    given = str(module)
    monkeypatch.setattr(order_commands, "fits_on_chip", lambda machine, functions: False)
    OrderCommandsPass("rngd").apply(Context(), module)
    module.verify()
    assert str(module) == given
