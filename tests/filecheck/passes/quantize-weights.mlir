// RUN: irc opt %s -p 'quantize-weights{scheme="w8a16" ignore="lm_head","l.1.gate"}' --no-type-aliases | filecheck %s

// Rounded weights and their scales are weights of their own, computed when they are read; layers keep theirs.
// CHECK: graph.weight @"l.{}.up.weight" : tensor<8x4xf32> layers [0, 1]
// CHECK-NEXT: graph.weight @"l.{}.up.weight_scale" : tensor<8xf32> layers [0, 1] sources [{op = "scale", scheme = #nquant.scheme<i8 : f32, channel 0>, source = {file = "a"}}, {op = "scale", scheme = #nquant.scheme<i8 : f32, channel 0>, source = {file = "b"}}]
// CHECK-NEXT: graph.weight @"l.{}.up.weight_w8a16" : tensor<8x4x!nquant.quantized<i8 : f32, channel 0>> layers [0, 1] sources [{op = "quantize", scheme = #nquant.scheme<i8 : f32, channel 0>, source = {file = "a"}}, {op = "quantize", scheme = #nquant.scheme<i8 : f32, channel 0>, source = {file = "b"}}]
graph.weight @"l.{}.up.weight" : tensor<8x4xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
// CHECK-NEXT: graph.weight @embed.weight : tensor<8x4xbf16>
graph.weight @embed.weight : tensor<8x4xbf16> sources [{file = "c"}]
// CHECK-NEXT: graph.weight @embed.weight_scale : tensor<8xf32>
// CHECK-NEXT: graph.weight @embed.weight_w8a16 : tensor<8x4x!nquant.quantized<i8 : bf16, channel 0>>
// CHECK-NEXT: graph.weight @norm.weight : tensor<4xf32>
graph.weight @norm.weight : tensor<4xf32> sources [{file = "d"}]
// CHECK: graph.weight @"l.{}.gate.weight_w8a16" {{.*}} layers [0, 2] sources [{{.*}}{file = "d"}}, {{.*}}{file = "f"}}]
graph.weight @"l.{}.gate.weight" : tensor<4x4xf32> layers [0, 1, 2] sources [{file = "d"}, {file = "e"}, {file = "f"}]

// A linear layer multiplies by the dequantized weight.
// CHECK: func.func @layer
func.func @layer(%x : tensor<2x4xf32>) -> tensor<2x8xf32> {
  // CHECK-NEXT: %w = graph.param @"l.{}.up.weight_w8a16" : tensor<8x4x!nquant.quantized<i8 : f32, channel 0>> {module = "l.{}.up"}
  // CHECK-NEXT: %w_1 = graph.param @"l.{}.up.weight_scale" : tensor<8xf32> {module = "l.{}.up"}
  // CHECK-NEXT: %w_2 = nquant.dequantize %w, %w_1 : tensor<8x4xf32> {module = "l.{}.up"}
  // CHECK-NEXT: %y = graph.linear %x, %w_2 : tensor<2x8xf32> {module = "l.{}.up"}
  %w = graph.param @"l.{}.up.weight" : tensor<8x4xf32> {module = "l.{}.up"}
  %y = graph.linear %x, %w : tensor<2x8xf32> {module = "l.{}.up"}
  func.return %y : tensor<2x8xf32>
}

// An embedding stays as it is, even where a layer uses the same weight.
// CHECK: func.func @tied
func.func @tied(%ids : tensor<2xi32>) -> tensor<2x8xbf16> {
  // CHECK-NEXT: %w = graph.param @embed.weight : tensor<8x4xbf16>
  %w = graph.param @embed.weight : tensor<8x4xbf16>
  // CHECK-NEXT: %x = graph.embedding %w, %ids
  %x = graph.embedding %w, %ids : tensor<2x4xbf16>
  // CHECK: %y = graph.linear %x, %{{.*}} : tensor<2x8xbf16> {module = "other"}
  %y = graph.linear %x, %w : tensor<2x8xbf16> {module = "other"}
  func.return %y : tensor<2x8xbf16>
}

// So do layers that are ignored, vectors, and products that are no weights.
// CHECK: func.func @others
// CHECK-NOT: nquant
func.func @others(%x : tensor<2x4xf32>, %m : tensor<8x4xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
  %w = graph.param @"l.{}.up.weight" : tensor<8x4xf32>
  %y = graph.linear %x, %w : tensor<2x8xf32> {module = "lm_head"}
  %v = graph.param @norm.weight : tensor<4xf32>
  %n = graph.rms_norm %x, %v eps 1.0e-05 : tensor<2x4xf32>
  %z = graph.linear %n, %m : tensor<2x8xf32> {module = "product"}
  func.return %y, %z : tensor<2x8xf32>, tensor<2x8xf32>
}

// Where one layer of a kind is ignored, it gets a function of its own, and the others' weights alone are rounded.
// CHECK: func.func private @body
// CHECK: graph.linear %x, %w_2
// CHECK: func.func private @body.1
// CHECK-NEXT: %w = graph.param @"l.{}.gate.weight"
// CHECK-NEXT: graph.linear %x, %w
func.func private @body(%x : tensor<2x4xf32>) -> tensor<2x4xf32> {
  %w = graph.param @"l.{}.gate.weight" : tensor<4x4xf32>
  %y = graph.linear %x, %w : tensor<2x4xf32> {module = "l.{}.gate"}
  func.return %y : tensor<2x4xf32>
}
// CHECK: func.func @layers
// CHECK-NEXT: %y = graph.layers @body [0] %x : tensor<2x4xf32> {module = "l.{}"}
// CHECK-NEXT: %y_1 = graph.layers @body.1 [1] %y : tensor<2x4xf32> {module = "l.{}"}
// CHECK-NEXT: %y_2 = graph.layers @body [2] %y_1 : tensor<2x4xf32> {module = "l.{}"}
// CHECK-NEXT: func.return %y_2
func.func @layers(%x : tensor<2x4xf32>) -> tensor<2x4xf32> {
  %y = graph.layers @body [0, 1, 2] %x : tensor<2x4xf32> {module = "l.{}"}
  func.return %y : tensor<2x4xf32>
}
