// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// A nest has at most eight dimensions.
// CHECK: nest has 9 dimensions, expected 1 to 8
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [1, 1, 1, 1, 1, 1, 1, 1, 1] fill 0.0 out(%y strides [0, 0, 0, 0, 0, 0, 0, 0, 0])
  func.return
}
// -----

// Extents are positive.
// CHECK: nest has size [0], expected extents of at least 1
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [0] fill 0.0 out(%y strides [1])
  func.return
}
// -----

// Every pass stores.
// CHECK: port out is missing
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [1])
  func.return
}
// -----

// A pass fetches or fills.
// CHECK: a pass has either a stream port or a fill value
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] out(%y strides [1])
  func.return
}
// -----

// It does not do both.
// CHECK: a pass has either a stream port or a fill value
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] fill 0.0 stream(%x strides [1]) out(%y strides [1])
  func.return
}
// -----

// Ports walk over the whole nest.
// CHECK: port stream has 1 strides, the nest 2 dimensions
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [4, 2] stream(%x strides [1]) out(%y strides [2, 1])
  func.return
}
// -----

// Ports stay inside their buffers.
// CHECK: port stream reaches element 32 of a buffer of 32
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x + 4 strides [4]) out(%y strides [1])
  func.return
}
// -----

// They do not reach before them either.
// CHECK: port stream reaches element -7 of a buffer of 32
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [-1]) out(%y strides [1])
  func.return
}
// -----

// Sums are stored once.
// CHECK: port out moves along reduced dimension 1
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [4, 2] reduce [1] stream(%x strides [2, 1]) out(%y strides [1, 1]) chain [reduce_add]
  func.return
}
// -----

// Reduced dimensions are the nest's.
// CHECK: dimension 2 of 2 is reduced
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [4, 2] reduce [2] stream(%x strides [2, 1]) out(%y strides [1, 0]) chain [reduce_add]
  func.return
}
// -----

// Something has to reduce them.
// CHECK: dimensions [1] are reduced by no step
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [4, 2] reduce [1] stream(%x strides [2, 1]) out(%y strides [1, 0])
  func.return
}
// -----

// A ring is a dimension of the nest.
// CHECK: the ring is dimension 2 of 2
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [4, 2] ring 2 stream(%x strides [2, 1]) out(%y strides [2, 1])
  func.return
}
// -----

// The stream walks over the slices along it.
// CHECK: port stream moves 0 slices along dimension 0, expected 1
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [4, 2] ring 0 stream(%x strides [0, 1]) out(%y strides [2, 1])
  func.return
}
// -----

// No other port does.
// CHECK: port out moves 1 slices along dimension 0, expected 0
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [4, 2] stream(%x strides [0, 1]) out(%y strides [0, 1] slices [1, 0])
  func.return
}
// -----

// Masks are on a dimension of the nest.
// CHECK: mask is on dimension 1 of 1
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [1]) out(%y strides [1]) mask(d1 < 4)
  func.return
}
// -----

// A limit says where a reduction ends.
// CHECK: limit bounds a reduction, and the chain has none
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.pass [8] stream(%x strides [1]) out(%y strides [1]) chain [exp] limit(d0 < 4)
  func.return
}
