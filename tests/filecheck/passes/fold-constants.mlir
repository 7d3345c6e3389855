// RUN: irc opt %s -p fold-constants,dce | filecheck %s

// Index lists and what is computed from constants alone become constants, with the name of what they replace.
// CHECK: func.func @frequencies
func.func @frequencies() -> tensor<2x3xf32> {
  // CHECK-NEXT: %f = graph.constant dense<{{\[\[}}0.000000e+00, 2.000000e+00, 4.000000e+00], [1.000000e+00, 3.000000e+00, 5.000000e+00]]> : tensor<2x3xf32> {module = "rotary_emb"}
  // CHECK-NEXT: func.return %f
  %i = graph.iota dim 0 : tensor<6xi32>
  %c = graph.cast %i : tensor<6xf32>
  %r = graph.reshape %c : tensor<3x2xf32>
  %f = graph.transpose %r perm [1, 0] : tensor<2x3xf32> {module = "rotary_emb"}
  func.return %f : tensor<2x3xf32>
}

// What depends on the sizes of a bucket, or on an argument, stays.
// CHECK: func.func @symbolic
func.func @symbolic(%x : tensor<6xf32>) -> (tensor<?xi32, #graph.dims<affine_map<(b, s, c) -> (c)>>>, tensor<6xf32>) {
  // CHECK-NEXT: %i = graph.iota dim 0 : !t_ctx_i32
  %i = graph.iota dim 0 : tensor<?xi32, #graph.dims<affine_map<(b, s, c) -> (c)>>>
  // CHECK-NEXT: %two = graph.constant dense<2.000000e+00> : tensor<f32>
  %one = graph.constant dense<1.0> : tensor<f32>
  %two = graph.add %one, %one : tensor<f32>
  // CHECK-NEXT: %y = graph.mul %x, %two
  %y = graph.mul %x, %two : tensor<6xf32>
  func.return %i, %y : tensor<?xi32, #graph.dims<affine_map<(b, s, c) -> (c)>>>, tensor<6xf32>
}

// So does what is large, and what has no finite value.
// CHECK: func.func @kept
func.func @kept() -> (tensor<4097xi32>, tensor<f32>) {
  // CHECK-NEXT: graph.iota dim 0 : tensor<4097xi32>
  %i = graph.iota dim 0 : tensor<4097xi32>
  %zero = graph.constant dense<0.0> : tensor<f32>
  // CHECK: graph.log
  %l = graph.log %zero : tensor<f32>
  func.return %i, %l : tensor<4097xi32>, tensor<f32>
}
