// RUN: not irc opt %s -p 'lower-nquant{target="rngd"}' | filecheck %s

// Scales of groups cannot be applied to sums over all groups.
// CHECK: lower-nquant: #nquant.scheme<i8 : f32, group 1 by 2> has no lowering: scales of groups, zero points
graph.weight @w : tensor<8x4x!nquant.quantized<i8 : f32, group 1 by 2>> sources [{file = "w"}]
graph.weight @s : tensor<8x2xf32> sources [{file = "s"}]
func.func @groups(%x : tensor<2x4xf32>) -> tensor<2x8xf32> {
  %w = graph.param @w : tensor<8x4x!nquant.quantized<i8 : f32, group 1 by 2>>
  %s = graph.param @s : tensor<8x2xf32>
  %b = nquant.dequantize %w, %s : tensor<8x4xf32>
  %y = graph.linear %x, %b : tensor<2x8xf32>
  func.return %y : tensor<2x8xf32>
}
