// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// A packed weight packs a weight.
// CHECK: weight @w does not exist
tile.packed @p of @w : memref<8x8xf32, "hbm"> recipe [pad [8, 8]] layers [0, 1] offset 0 stride 256
// -----

// It has no other layers.
// CHECK: weight @w has no layer 2
graph.weight @w : tensor<6x8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
tile.packed @p of @w : memref<8x8xf32, "hbm"> recipe [pad [8, 8]] layers [1, 2] offset 0 stride 256
// -----

// Its recipe gives its type.
// CHECK: the recipe gives shape [8, 8], the type has [8, 9]
graph.weight @w : tensor<6x8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
tile.packed @p of @w : memref<8x9xf32, "hbm"> recipe [pad [8, 8]] layers [0, 1] offset 0 stride 256
// -----

// The steps of a recipe apply.
// CHECK: recipe step reshape [7, 7] does not apply to shape [6, 8]
graph.weight @w : tensor<6x8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
tile.packed @p of @w : memref<8x8xf32, "hbm"> recipe [reshape [7, 7]] layers [0, 1] offset 0 stride 256
// -----

// A cache has keys and values of the same positions.
// CHECK: cache @c has keys [16, 2, 4] and values [15, 2, 8], expected [length, heads, size] with equal lengths and heads
tile.cache_decl @c layers [0] key_type memref<16x2x4xf32, "hbm"> value_type memref<15x2x8xf32, "hbm"> slots 1 offset 0 layer_stride 3072 slot_stride 3072 value_offset 512
// -----

// Weights are packed before they are read.
// CHECK: packed weight @w is a graph.weight, expected tile.packed
graph.weight @w : tensor<6x8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
func.func @f(%i : index) {
  %w = tile.weight @w[%i] : memref<8x8xf32, "hbm">
  func.return
}
// -----

// A weight per layer is read with a layer.
// CHECK: packed weight @p is read with a layer
graph.weight @w : tensor<6x8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
tile.packed @p of @w : memref<8x8xf32, "hbm"> recipe [pad [8, 8]] layers [0, 1] offset 0 stride 256
func.func @f(%i : index) {
  %w = tile.weight @p : memref<8x8xf32, "hbm">
  func.return
}
// -----

// It is read as it is packed.
// CHECK: packed weight @p is memref<8x8xf32, "hbm">, read as memref<6x8xf32, "hbm">
graph.weight @w : tensor<6x8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
tile.packed @p of @w : memref<8x8xf32, "hbm"> recipe [pad [8, 8]] layers [0, 1] offset 0 stride 256
func.func @f(%i : index) {
  %w = tile.weight @p[%i] : memref<6x8xf32, "hbm">
  func.return
}
// -----

// A cache has keys and values.
// CHECK: part is keys, expected key or value
tile.cache_decl @c layers [0] key_type memref<16x2x4xf32, "hbm"> value_type memref<16x2x8xf32, "hbm"> slots 1 offset 0 layer_stride 3072 slot_stride 3072 value_offset 512
func.func @f(%i : index) {
  %k = tile.cache @c "keys"[%i, %i] : memref<16x2x8xf32, "hbm">
  func.return
}
// -----

// Either has its own type.
// CHECK: value of cache @c is memref<16x2x8xf32, "hbm">, read as memref<16x2x4xf32, "hbm">
tile.cache_decl @c layers [0] key_type memref<16x2x4xf32, "hbm"> value_type memref<16x2x8xf32, "hbm"> slots 1 offset 0 layer_stride 3072 slot_stride 3072 value_offset 512
func.func @f(%i : index) {
  %k = tile.cache @c "value"[%i, %i] : memref<16x2x4xf32, "hbm">
  func.return
}
// -----

// Runtime parameters are a closed set.
// CHECK: parameter is length, expected one of slot, position, valid, last, end
func.func @f(%i : index) {
  %l = tile.runtime "length"[%i] : index
  func.return
}
// -----

// Loops run.
// CHECK: loop runs 0 times, expected at least once
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  tile.for %k = 2 to 2 {
  }
  func.return
}
// -----

// Buffers lie in a memory.
// CHECK: memref<8xf32> names no memory
func.func @f(%x : memref<4x8xf32, "dm">, %y : memref<4x8xf32, "dm">, %i : index) {
  %b = tile.alloc : memref<8xf32>
  func.return
}
// -----

// Functions are called as they are declared.
// CHECK: argument 0 of @g is index, got memref<8xf32, "dm">
func.func private @g(%i : index)
func.func @f(%b : memref<8xf32, "dm">) {
  tile.call @g(%b)
  func.return
}
