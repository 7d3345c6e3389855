"""Printed IR parses back, MLIR's own parser accepts it, and elision shows what it left out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from npuc.ir.printing import print_ir
from xdsl.dialects.builtin import ModuleOp

MODULE = """
"graph.weight"() {sym_name = "model.layers.{}.w", type = tensor<64x64xf32>, layers = array<i64: 0, 1>,
                  sources = [{file = "a", offset = 0 : i64}, {file = "a", offset = 16384 : i64}]} : () -> ()
func.func @main(%x : tensor<?x?x64xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 64)>>>)
    -> tensor<?x?x64xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 64)>>> {
  %up = "graph.silu"(%x) {module = "model.layers.{}.mlp"} :
    (tensor<?x?x64xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 64)>>>) ->
    tensor<?x?x64xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 64)>>>
  %last = "test.op"() : () -> tensor<?xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d2 + 1)>>>
  %table = "graph.constant"() {value = dense<[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]>
    : tensor<17xi32>} : () -> tensor<17xi32>
  func.return %up : tensor<?x?x64xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 64)>>>
}
"builtin.module"() ({
  %b = "tile.alloc"() : () -> memref<4x8xf32, "dm">
  %r = "test.op"() : () -> tensor<1x8xf32, #tile.replicated>
  %l = "graph.relayout"(%r) :
    (tensor<1x8xf32, #tile.replicated>) -> tensor<1x8xf32, #tile.sliced<2>>
}) : () -> ()
"""

Parse = Callable[[str], ModuleOp]


@pytest.mark.parametrize("generic", [False, True])
@pytest.mark.parametrize("aliases", [False, True])
@pytest.mark.parametrize("locations", [False, True])
def test_printed_text_parses_back(parse_ir: Parse, generic: bool, aliases: bool, locations: bool) -> None:
    module = parse_ir(MODULE)
    text = print_ir(module, generic=generic, aliases=aliases, locations=locations)
    again = parse_ir(text)
    assert again.is_structurally_equivalent(module)
    assert print_ir(again, generic=generic, aliases=aliases, locations=locations) == text


def test_mlir_accepts_the_generic_form(parse_ir: Parse, iree_opt: Callable[[str], str]) -> None:
    printed = iree_opt(print_ir(parse_ir(MODULE), generic=True))
    assert '"graph.silu"(%arg0) {module = "model.layers.{}.mlp"}' in printed


def test_aliases_say_what_the_types_are(parse_ir: Parse) -> None:
    lines = print_ir(parse_ir(MODULE)).splitlines()
    names = [line.partition(" = ")[0] for line in lines if line.startswith("!")]
    assert names == [
        "!t_batch_seq_64_f32",
        "!t_ctx_1_f32",
        "!dm_4_8_f32",
        "!R_1_8_f32",
        "!L2_1_8_f32",
    ]
    assert '    %up = graph.silu %x : !t_batch_seq_64_f32 {module = "model.layers.{}.mlp"}' in lines


def test_elision_is_shown(parse_ir: Parse) -> None:
    text = print_ir(parse_ir(MODULE), elide=True)
    assert 'sources "2 elided"' in text
    assert "graph.constant dense_resource<__elided__> : tensor<17xi32>" in text
    assert "16384" not in text


def test_large_integers_are_decimal(parse_ir: Parse) -> None:
    """What xDSL would print as 0x4B800000, which its own parser refuses in a dense array."""
    values = "{v = array<f32: 16777216.0, 1.0>, w = 123456789.0 : f32}"
    text = print_ir(parse_ir(f'"test.op"() {values} : () -> ()'))
    assert "array<f32: 1.67772160e+07, 1.000000e+00>" in text
    assert print_ir(parse_ir(text)) == text
