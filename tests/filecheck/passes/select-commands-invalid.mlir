// RUN: not irc opt %s -p 'select-commands{target=rngd}' | filecheck %s

!local = memref<64x16xf32, "dm">
#move = {stream = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}, out = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 1>}}

// Each command that the machine could use says why it cannot run the pass, and the module is named.
// CHECK: select-commands: no command runs tile.pass (model.layers.{}.mlp):
// CHECK-SAME: tu on main, tu on sub: tu: chain.op[1] = exp finds no free vector unit after exp
func.func @main() {
  %a = "tile.alloc"() : () -> !local
  %b = "tile.alloc"() : () -> !local
  "tile.pass"(%a, %b) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move, chain = [{op = "exp"}, {op = "exp"}], module = "model.layers.{}.mlp"} : (!local, !local) -> ()
  func.return
}
