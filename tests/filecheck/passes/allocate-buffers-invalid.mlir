// RUN: not irc opt %s -p 'allocate-buffers{target=rngd}' | filecheck %s

!large = memref<64x100000xf32, "dm">
#move = {stream = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}, out = {buffer = 1 : i64, offset = 0 : i64, strides = array<i64: 1>}}

// The error names the memory, what is there, what is needed, and the largest buffers.
// CHECK: allocate-buffers: memory dm has 524280 bytes, 800000 are needed at once;
// CHECK-SAME: largest buffers: gate#0 400000, up#1 400000 (in @mlp)
func.func @mlp() {
  %gate = "tile.alloc"() : () -> !large
  %up = "tile.alloc"() : () -> !large
  "tile.pass"(%gate, %up) {operandSegmentSizes = array<i32: 2, 0>, size = array<i64: 16>, ports = #move} : (!large, !large) -> ()
  func.return
}
