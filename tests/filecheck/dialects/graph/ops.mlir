// RUN: irc opt %s | filecheck %s
// RUN: irc opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// Weights have one source, or one per listed layer; they and caches are symbols.
// CHECK: graph.weight @embed : tensor<16x8xf32> sources [{file = "a", offset = 0 : i64}]
// GENERIC: "graph.weight"() {sym_name = "embed", type = tensor<16x8xf32>, sources = [{file = "a", offset = 0 : i64}]}
graph.weight @embed : tensor<16x8xf32> sources [{file = "a", offset = 0 : i64}]
// CHECK-NEXT: graph.weight @"layers.{}.w" : tensor<8x8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
graph.weight @"layers.{}.w" : tensor<8x8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
// CHECK-NEXT: graph.cache_decl @cache layers [0, 1] heads 2 key_size 4 value_size 6 type f32
// GENERIC: "graph.cache_decl"() {sym_name = "cache", layers = array<i64: 0, 1>, heads = 2 : i64, key_size = 4 : i64
graph.cache_decl @cache layers [0, 1] heads 2 key_size 4 value_size 6 type f32

// A layer body reads the current layer's weights; the call lists the layers and replaces the carried values.
// CHECK: func.func private @layer(%x: tensor<1x3x8xf32>, %scale: tensor<8xf32>) -> tensor<1x3x8xf32> {
func.func private @layer(%x : tensor<1x3x8xf32>, %scale : tensor<8xf32>) -> tensor<1x3x8xf32> {
  // CHECK-NEXT: %w = graph.param @"layers.{}.w" : tensor<8x8xf32> {module = "layers.{}"}
  %w = graph.param @"layers.{}.w" : tensor<8x8xf32> {module = "layers.{}"}
  // CHECK-NEXT: %y = graph.linear %x, %w bias %scale : tensor<1x3x8xf32>
  // GENERIC: %y = "graph.linear"(%x, %w, %scale) {{.*}} : (tensor<1x3x8xf32>, tensor<8x8xf32>, tensor<8xf32>)
  %y = graph.linear %x, %w bias %scale : tensor<1x3x8xf32>
  func.return %y : tensor<1x3x8xf32>
}

// CHECK: func.func @main
func.func @main(%ids : tensor<1x3xi32>, %scale : tensor<8xf32>) -> tensor<1x3x8xf32> {
  %table = graph.param @embed : tensor<16x8xf32>
  // CHECK: %x = graph.embedding %table, %ids : tensor<1x3x8xf32>
  %x = graph.embedding %table, %ids : tensor<1x3x8xf32>
  // CHECK-NEXT: %y = graph.layers @layer [0, 1] %x extras %scale : tensor<1x3x8xf32> {module = "layers"}
  // GENERIC: "graph.layers"(%x, %scale) {callee = @layer, layers = array<i64: 0, 1>, module = "layers", operandSegmentSizes = array<i32: 1, 1>}
  %y = graph.layers @layer [0, 1] %x extras %scale : tensor<1x3x8xf32> {module = "layers"}
  // CHECK-NEXT: %z = graph.select_rows %y : tensor<1x3x8xf32>
  %z = graph.select_rows %y : tensor<1x3x8xf32>
  func.return %z : tensor<1x3x8xf32>
}

// Elementwise operations broadcast as numpy does; comparisons give predicates.
// CHECK: func.func @elementwise
func.func @elementwise(%x : tensor<2x8xf32>, %v : tensor<8xf32>) {
  // CHECK-NEXT: %0 = graph.gelu_tanh %x : tensor<2x8xf32>
  %0 = graph.gelu_tanh %x : tensor<2x8xf32>
  // CHECK-NEXT: %1 = graph.mul %x, %v : tensor<2x8xf32>
  %1 = graph.mul %x, %v : tensor<2x8xf32>
  // CHECK-NEXT: %2 = graph.lt %x, %v : tensor<2x8xi1>
  %2 = graph.lt %x, %v : tensor<2x8xi1>
  // CHECK-NEXT: %3 = graph.where %2, %x, %v : tensor<2x8xf32>
  %3 = graph.where %2, %x, %v : tensor<2x8xf32>
  // CHECK-NEXT: %4 = graph.cast %3 : tensor<2x8xbf16>
  %4 = graph.cast %3 : tensor<2x8xbf16>
  // CHECK-NEXT: %5 = graph.gated silu %x, %0 : tensor<2x8xf32>
  %5 = graph.gated silu %x, %0 : tensor<2x8xf32>
  func.return
}

// Shapes: a constant's type is its value's unless it has a placement; slices are written as in Python.
// CHECK: func.func @shapes
func.func @shapes(%x : tensor<2x8xf32>) {
  // CHECK-NEXT: %0 = graph.constant dense<1.000000e+00> : tensor<2xf32> {module = "m"}
  %0 = graph.constant dense<1.0> : tensor<2xf32> {module = "m"}
  // CHECK-NEXT: %1 = graph.constant dense<2> : tensor<1xi32> -> !R_1_i32
  %1 = graph.constant dense<2> : tensor<1xi32> -> tensor<1xi32, #tile.replicated>
  // CHECK-NEXT: %2 = graph.iota dim 1 : tensor<2x8xi32>
  %2 = graph.iota dim 1 : tensor<2x8xi32>
  // CHECK-NEXT: %3 = graph.reduce mean %x dims [1] keepdims : tensor<2x1xf32>
  // GENERIC: "graph.reduce"(%x) {kind = "mean", dims = array<i64: 1>, keepdims = true}
  %3 = graph.reduce mean %x dims [1] keepdims : tensor<2x1xf32>
  // CHECK-NEXT: %4 = graph.reduce max %x dims [0, 1] : tensor<f32>
  %4 = graph.reduce max %x dims [0, 1] : tensor<f32>
  // CHECK-NEXT: %5 = graph.reshape %x : tensor<4x4xf32>
  %5 = graph.reshape %x : tensor<4x4xf32>
  // CHECK-NEXT: %6 = graph.broadcast %3 : tensor<3x2x8xf32>
  %6 = graph.broadcast %3 : tensor<3x2x8xf32>
  // CHECK-NEXT: %7 = graph.transpose %x perm [1, 0] : tensor<8x2xf32>
  %7 = graph.transpose %x perm [1, 0] : tensor<8x2xf32>
  // CHECK-NEXT: %8 = graph.slice %x [1:, :6:2] : tensor<1x3xf32>
  // GENERIC: {starts = array<i64: 1, 0>, stops = array<i64: -1, 6>, steps = array<i64: 1, 2>}
  %8 = graph.slice %x [1:, :6:2] : tensor<1x3xf32>
  // CHECK-NEXT: %9 = graph.pad %x low [0, 1] high [0, 3] value -1.0e-05 : tensor<2x12xf32>
  %9 = graph.pad %x low [0, 1] high [0, 3] value -0.00001 : tensor<2x12xf32>
  // CHECK-NEXT: %10 = graph.concat %x, %x, %x dim 1 : tensor<2x24xf32>
  %10 = graph.concat %x, %x, %x dim 1 : tensor<2x24xf32>
  // CHECK-NEXT: %11 = graph.relayout %x : !L4_2_8_f32
  %11 = graph.relayout %x : tensor<2x8xf32, #tile.sliced<4>>
  func.return
}
