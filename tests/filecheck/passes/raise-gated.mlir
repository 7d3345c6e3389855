// RUN: irc opt %s -p raise-gated | filecheck %s

// activation(gate) · up becomes one operation, whichever side is activated.
// CHECK: func.func @gated
func.func @gated(%gate : tensor<2x8xf32>, %up : tensor<2x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
  // CHECK: %y = graph.gated silu %gate, %up : tensor<2x8xf32> {module = "mlp"}
  %0 = graph.silu %gate : tensor<2x8xf32>
  %y = graph.mul %0, %up : tensor<2x8xf32> {module = "mlp"}
  // CHECK: %z = graph.gated gelu_tanh %gate, %up : tensor<2x8xf32>
  %1 = graph.gelu_tanh %gate : tensor<2x8xf32>
  %z = graph.mul %up, %1 : tensor<2x8xf32>
  func.return %y, %z : tensor<2x8xf32>, tensor<2x8xf32>
}

// An activation that is used elsewhere is computed anyway.
// CHECK: func.func @shared
// CHECK-NOT: graph.gated
func.func @shared(%gate : tensor<2x8xf32>, %up : tensor<2x8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
  %0 = graph.silu %gate : tensor<2x8xf32>
  %y = graph.mul %0, %up : tensor<2x8xf32>
  func.return %y, %0 : tensor<2x8xf32>, tensor<2x8xf32>
}

// So is one whose product broadcasts, and what is no activation stays a product.
// CHECK: func.func @near_misses
// CHECK-NOT: graph.gated
func.func @near_misses(%gate : tensor<2x8xf32>, %v : tensor<8xf32>) -> (tensor<2x8xf32>, tensor<2x8xf32>) {
  %0 = graph.silu %gate : tensor<2x8xf32>
  %y = graph.mul %0, %v : tensor<2x8xf32>
  %1 = graph.exp %gate : tensor<2x8xf32>
  %z = graph.mul %1, %gate : tensor<2x8xf32>
  func.return %y, %z : tensor<2x8xf32>, tensor<2x8xf32>
}
