// RUN: irc opt %s -p 'lower-nquant{target="rngd"}' --no-type-aliases | filecheck %s

graph.weight @"l.{}.weight" : tensor<8x4x!nquant.quantized<f8E4M3FN : bf16, tensor>> layers [3, 4] sources [{file = "a"}, {file = "b"}]
// The scales of an input and a weight become one weight, their product, for the weight's layers.
// CHECK: graph.weight @"l.{}.weight_scale" : tensor<f32> layers [3, 4]
// CHECK-NEXT: graph.weight @"l.{}.weight_scale*input_scale" : tensor<f32> layers [3, 4] sources [{op = "mul", sources = [{file = "c"}, {file = "f"}]}, {op = "mul", sources = [{file = "d"}, {file = "g"}]}]
graph.weight @"l.{}.weight_scale" : tensor<f32> layers [3, 4] sources [{file = "c"}, {file = "d"}]
graph.weight @"l.{}.input_scale" : tensor<f32> layers [2, 3, 4] sources [{file = "e"}, {file = "f"}, {file = "g"}]
graph.weight @w : tensor<8x4x!nquant.quantized<i8 : bf16, channel 0>> sources [{file = "w"}]
graph.weight @s : tensor<8xf32> sources [{file = "s"}]

// An input is divided by its scale, clamped, and rounded where it is stored. The machine multiplies values of
// that type; sums are scaled before they are rounded.
// CHECK: func.func @native
func.func @native(%x : tensor<2x4xbf16>) -> tensor<2x8xbf16> {
  // CHECK-NEXT: %si = graph.param @"l.{}.input_scale" : tensor<f32>
  %si = graph.param @"l.{}.input_scale" : tensor<f32>
  // CHECK-NEXT: %q = graph.constant dense<-4.480000e+02> : tensor<f32> {module = "l"}
  // CHECK-NEXT: %q_1 = graph.constant dense<4.480000e+02> : tensor<f32>
  // CHECK-NEXT: %q_2 = graph.cast %x : tensor<2x4xf32>
  // CHECK-NEXT: %q_3 = graph.div %q_2, %si : tensor<2x4xf32>
  // CHECK-NEXT: %q_4 = graph.maximum %q_3, %q : tensor<2x4xf32>
  // CHECK-NEXT: %q_5 = graph.minimum %q_4, %q_1 : tensor<2x4xf32>
  // CHECK-NEXT: %q_6 = graph.cast %q_5 : tensor<2x4xf8E4M3FN>
  %q = nquant.quantize %x, %si : tensor<2x4x!nquant.quantized<f8E4M3FN : bf16, tensor>> {module = "l"}
  %a = nquant.dequantize %q, %si : tensor<2x4xbf16> {module = "l"}
  // CHECK-NEXT: %w = graph.param @"l.{}.weight" : tensor<8x4xf8E4M3FN>
  %w = graph.param @"l.{}.weight" : tensor<8x4x!nquant.quantized<f8E4M3FN : bf16, tensor>>
  %s = graph.param @"l.{}.weight_scale" : tensor<f32>
  %b = nquant.dequantize %w, %s : tensor<8x4xbf16>
  // CHECK-NEXT: %y = graph.param @"l.{}.weight_scale*input_scale" : tensor<f32> {module = "l"}
  // CHECK-NEXT: %y_1 = graph.linear %q_6, %w scale %y : tensor<2x8xbf16> {module = "l"}
  %y = graph.linear %a, %b : tensor<2x8xbf16> {module = "l"}
  func.return %y : tensor<2x8xbf16>
}

// A weight alone stays as it is stored; scales of its rows are scales of the sums. A bias comes after.
// CHECK: func.func @weight_only
func.func @weight_only(%x : tensor<2x4xbf16>, %c : tensor<8xbf16>) -> tensor<2x8xbf16> {
  // CHECK-NEXT: %w = graph.param @w : tensor<8x4xi8>
  %w = graph.param @w : tensor<8x4x!nquant.quantized<i8 : bf16, channel 0>>
  // CHECK-NEXT: %s = graph.param @s : tensor<8xf32>
  %s = graph.param @s : tensor<8xf32>
  %b = nquant.dequantize %w, %s : tensor<8x4xbf16>
  // CHECK-NEXT: %y = graph.linear %x, %w bias %c scale %s : tensor<2x8xbf16>
  %y = graph.linear %x, %b bias %c : tensor<2x8xbf16>
  func.return %y : tensor<2x8xbf16>
}

// Where no linear layer takes it, a value is dequantized by elementwise operations.
// CHECK: func.func @plain
func.func @plain() -> tensor<8x4xbf16> {
  // CHECK-NEXT: %w = graph.param @w : tensor<8x4xi8>
  // CHECK-NEXT: %s = graph.param @s
  // CHECK-NEXT: %b = graph.cast %w : tensor<8x4xf32>
  // CHECK-NEXT: %b_1 = graph.reshape %s : tensor<8x1xf32>
  // CHECK-NEXT: %b_2 = graph.mul %b, %b_1 : tensor<8x4xf32>
  // CHECK-NEXT: %b_3 = graph.cast %b_2 : tensor<8x4xbf16>
  %w = graph.param @w : tensor<8x4x!nquant.quantized<i8 : bf16, channel 0>>
  %s = graph.param @s : tensor<8xf32>
  %b = nquant.dequantize %w, %s : tensor<8x4xbf16>
  func.return %b : tensor<8x4xbf16>
}
