// RUN: irc opt %s -p join-parameters | filecheck %s

// Weights of two norms, of two layers each, become one; what a linear layer adds stays by itself.
// CHECK: graph.weight @"l.{}.in+1" : tensor<2x4xf32> layers [0, 1] sources
// CHECK-SAME: {op = "concat", dim = 0 : i64, sources = [{op = "reshape", shape = array<i64: 1, 4>, source = {file = "a", offset = 0
// CHECK-SAME: {op = "reshape", shape = array<i64: 1, 4>, source = {file = "a", offset = 32
// CHECK-SAME: {op = "concat"
// CHECK-SAME: offset = 16
// CHECK-SAME: offset = 48
graph.weight @"l.{}.in" : tensor<4xf32> layers [0, 1] sources [{file = "a", offset = 0, bytes = 16, dtype = "F32", shape = array<i64: 4>}, {file = "a", offset = 16, bytes = 16, dtype = "F32", shape = array<i64: 4>}]
graph.weight @"l.{}.out" : tensor<4xf32> layers [0, 1] sources [{file = "a", offset = 32, bytes = 16, dtype = "F32", shape = array<i64: 4>}, {file = "a", offset = 48, bytes = 16, dtype = "F32", shape = array<i64: 4>}]
// CHECK-NEXT: graph.weight @"l.{}.bias"
graph.weight @"l.{}.bias" : tensor<4xf32> layers [0, 1] sources [{file = "a", offset = 64, bytes = 16, dtype = "F32", shape = array<i64: 4>}, {file = "a", offset = 80, bytes = 16, dtype = "F32", shape = array<i64: 4>}]
// CHECK-NEXT: graph.weight @w
graph.weight @w : tensor<4x4xf32> sources [{file = "a", offset = 96, bytes = 64, dtype = "F32", shape = array<i64: 4, 4>}]

// CHECK: func.func private @layer
func.func private @layer(%h : tensor<2x4xf32>) -> tensor<2x4xf32> {
  // CHECK-NEXT: %in = graph.param @"l.{}.in+1" : tensor<2x4xf32>
  // CHECK-NEXT: %{{.*}} = graph.slice %in [:1, :4] : tensor<1x4xf32>
  // CHECK-NEXT: %[[IN:.*]] = graph.reshape %{{.*}} : tensor<4xf32>
  // CHECK-NEXT: %x = graph.rms_norm %h, %[[IN]]
  %in = graph.param @"l.{}.in" : tensor<4xf32>
  %x = graph.rms_norm %h, %in eps 1.0e-05 : tensor<2x4xf32>
  %w = graph.param @w : tensor<4x4xf32>
  // CHECK: graph.param @"l.{}.bias"
  %bias = graph.param @"l.{}.bias" : tensor<4xf32>
  %y = graph.linear %x, %w bias %bias : tensor<2x4xf32>
  // CHECK: graph.slice %in [1:2, :4] : tensor<1x4xf32>
  %out = graph.param @"l.{}.out" : tensor<4xf32>
  %z = graph.rms_norm %y, %out eps 1.0e-05 : tensor<2x4xf32>
  func.return %z : tensor<2x4xf32>
}

// What is read twice, or alone, is not joined to itself.
// CHECK: func.func @twice
func.func @twice(%h : tensor<2x4xf32>) -> tensor<2x4xf32> {
  // CHECK-NOT: graph.slice
  %a = graph.param @b : tensor<4xf32>
  %c = graph.param @b : tensor<4xf32>
  %x = graph.rms_norm %h, %a eps 1.0e-05 : tensor<2x4xf32>
  %y = graph.rms_norm %x, %c eps 1.0e-05 : tensor<2x4xf32>
  func.return %y : tensor<2x4xf32>
}
graph.weight @b : tensor<4xf32> sources [{file = "a", offset = 160, bytes = 16, dtype = "F32", shape = array<i64: 4>}]
