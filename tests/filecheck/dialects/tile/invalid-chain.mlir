// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// A chain has at most twelve steps.
// CHECK: chain has 13 steps, at most 12
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [1]) out(%y strides [1]) chain [exp, exp, exp, exp, exp, exp, exp, exp, exp, exp, exp, exp, exp]
  func.return
}
// -----

// Steps have known names.
// CHECK: step cosh is unknown
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [1]) out(%y strides [1]) chain [cosh]
  func.return
}
// -----

// A binary step has a source.
// CHECK: step mul has source none, expected one
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [1]) out(%y strides [1]) chain [mul]
  func.return
}
// -----

// A unary step has none.
// CHECK: step exp has source stash, expected none
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [1]) out(%y strides [1]) chain [exp stash]
  func.return
}
// -----

// An operand comes through its port.
// CHECK: step mul reads operand, and there is no port operand
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [1]) out(%y strides [1]) chain [mul operand]
  func.return
}
// -----

// A port that is there is used.
// CHECK: port operand is used by no step of the chain
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [1]) operand(%x strides [1]) out(%y strides [1]) chain [exp]
  func.return
}
// -----

// A fill has no fetched value.
// CHECK: step mul reads stash, and there is no port stream
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] fill 1.0 out(%y strides [1]) chain [mul stash]
  func.return
}
// -----

// A contraction sums by itself.
// CHECK: reduce_add in a pass that contracts: the contraction sums already
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [4, 2] reduce [1] stream(%x strides [2, 1]) stationary(%x strides [2, 1]) out(%y strides [1, 0]) chain [reduce_add]
  func.return
}
// -----

// A copy has a source and a destination.
// CHECK: port dst is missing
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.copy [8] src(%x strides [1])
  func.return
}
// -----

// It converts nothing.
// CHECK: element types differ: src has f32, dst has bf16
func.func @f(%x : memref<4x8xf32, "dm">, %z : memref<4x8xbf16, "dm">) {
  tile.copy [8] src(%x strides [1]) dst(%z strides [1])
  func.return
}
// -----

// A gather has an index list and a dimension.
// CHECK: a gather has both an index port and a dimension that it walks along
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.copy [8] src(%x strides [1]) dst(%y strides [1]) along 0 scale 4
  func.return
}
// -----

// The list holds i32.
// CHECK: index has element type f32, expected i32
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.copy [2, 8] src(%x strides [0, 1]) dst(%y strides [8, 1]) index(%x strides [1]) along 0 scale 8
  func.return
}
// -----

// Attributes in generic form are checked as well.
// CHECK: {buffer = 0 : i64, strides = array<i64: 1>} has no entry offset
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  "tile.pass"(%x) {size = array<i64: 8>, ports = {out = {buffer = 0 : i64, strides = array<i64: 1>}}, fill = 0.0 : f32, operandSegmentSizes = array<i32: 1, 0>} : (memref<4x8xf32, "dm">) -> ()
  func.return
}
// -----

// So are the names of ports.
// CHECK: port input is unknown, expected one of stream, stationary, operand, vrf, out
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  "tile.pass"(%x) {size = array<i64: 8>, ports = {input = {buffer = 0 : i64, offset = 0 : i64, strides = array<i64: 1>}}, operandSegmentSizes = array<i32: 1, 0>} : (memref<4x8xf32, "dm">) -> ()
  func.return
}
