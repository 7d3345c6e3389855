// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// A weight has one source, or one per layer.
// CHECK: weight @w has 1 sources, expected 2
graph.weight @w : tensor<8xf32> layers [0, 1] sources [{file = "a"}]
// -----

// A cache has heads.
// CHECK: cache @cache: heads is 0, expected at least 1
graph.cache_decl @cache layers [0] heads 0 key_size 4 value_size 4 type f32
// -----

// Weights are declared.
// CHECK: weight @v does not exist
graph.weight @w : tensor<8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
func.func @f() {
  %y = graph.param @v : tensor<8xf32>
  func.return
}
// -----

// A weight is no cache.
// CHECK: weight @cache is a graph.cache_decl, expected graph.weight or tile.packed
graph.cache_decl @cache layers [0] heads 2 key_size 4 value_size 4 type f32
func.func @f() {
  %y = graph.param @cache : tensor<8xf32>
  func.return
}
// -----

// A weight is read as what it is declared.
// CHECK: value of weight @w has shape [4], expected [8]
graph.weight @w : tensor<8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
func.func @f() {
  %y = graph.param @w : tensor<4xf32>
  func.return
}
// -----

// A cache holds what was declared.
// CHECK: keys has shape [1, 2, 5, 8], expected [1, 2, 5, 4]
graph.cache_decl @cache layers [0] heads 2 key_size 4 value_size 4 type f32
func.func @f(%k : tensor<1x2x1x8xf32>) {
  %a, %b = graph.kv_update @cache %k, %k : tensor<1x2x5x8xf32>, tensor<1x2x5x8xf32>
  func.return
}
// -----

// What is read back has the heads and sizes that were written.
// CHECK: key has shape [1, 1, 3, 4], expected [1, 2, 3, 4]
graph.cache_decl @cache layers [0] heads 2 key_size 4 value_size 4 type f32
func.func @f(%k : tensor<1x1x3x4xf32>) {
  %a, %b = graph.kv_update @cache %k, %k : tensor<1x2x5x4xf32>, tensor<1x2x5x4xf32>
  func.return
}
// -----

// Layer bodies exist.
// CHECK: function @layer does not exist
func.func @f(%x : tensor<8xf32>) {
  %y = graph.layers @layer [0] %x : tensor<8xf32>
  func.return
}
// -----

// They are functions.
// CHECK: function @w is a graph.weight, expected func.func
graph.weight @w : tensor<8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
func.func @f(%x : tensor<8xf32>) {
  %y = graph.layers @w [0] %x : tensor<8xf32>
  func.return
}
// -----

// They take all operands.
// CHECK: @layer takes 1 arguments, got 2
graph.weight @w : tensor<8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
func.func private @layer(%x : tensor<8xf32>) -> tensor<8xf32> {
  %w = graph.param @w : tensor<8xf32>
  func.return %w : tensor<8xf32>
}
func.func @f(%x : tensor<8xf32>) {
  %y = graph.layers @layer [0] %x extras %x : tensor<8xf32>
  func.return
}
// -----

// Arguments have the declared types.
// CHECK: argument 0 of @layer is tensor<8xf32>, got tensor<4xf32>
graph.weight @w : tensor<8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
func.func private @layer(%x : tensor<8xf32>) -> tensor<8xf32> {
  %w = graph.param @w : tensor<8xf32>
  func.return %w : tensor<8xf32>
}
func.func @f(%x : tensor<4xf32>) {
  %y = graph.layers @layer [0] %x : tensor<4xf32>
  func.return
}
// -----

// The body's weights have all layers that run.
// CHECK: @w has no layer 2, 3
graph.weight @w : tensor<8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
func.func private @layer(%x : tensor<8xf32>) -> tensor<8xf32> {
  %w = graph.param @w : tensor<8xf32>
  func.return %w : tensor<8xf32>
}
func.func @f(%x : tensor<8xf32>) {
  %y = graph.layers @layer [1, 2, 3] %x : tensor<8xf32>
  func.return
}
// -----

// A carried value keeps its type.
// CHECK: output 0 is tensor<4xf32>, the carried value tensor<8xf32>
graph.weight @w : tensor<8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
func.func private @layer(%x : tensor<8xf32>) -> tensor<8xf32> {
  %w = graph.param @w : tensor<8xf32>
  func.return %w : tensor<8xf32>
}
func.func @f(%x : tensor<8xf32>) {
  %y = graph.layers @layer [1] %x : tensor<4xf32>
  func.return
}
