// RUN: irc opt %s -p 'specialize{target="rngd" buckets="prefill_2x8","extend_1x4x16"}' | filecheck %s

!tokens = tensor<?x?xi32, #graph.dims<affine_map<(b, s, c) -> (b, s)>>>
!hidden = tensor<?x?x8xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 8)>>>
!logits = tensor<?x?x12xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 12)>>>
!next = tensor<?xi32, #graph.dims<affine_map<(b, s, c) -> (c + 1)>>>

// Weights stay where they are; each bucket is a module that says its sizes.
// CHECK: builtin.module attributes {npuc.buckets = "prefill_2x8,extend_1x4x16"}
// CHECK-NEXT: graph.weight @embed
graph.weight @embed : tensor<12x8xf32> sources [{file = "a"}]
// CHECK-NEXT: graph.weight @norms
graph.weight @norms : tensor<2x8xf32> sources [{file = "a"}]
// CHECK-NEXT: builtin.module @prefill_2x8 attributes {npuc.bucket = {kind = "prefill", batch = 2 : i64, new_tokens = 8 : i64, length = 8 : i64}}

// Layer kinds are copied with static sizes.
// CHECK-NEXT: func.func private @layer(%h: tensor<2x8x8xf32>) -> tensor<2x8x8xf32>
func.func private @layer(%h : !hidden) -> !hidden {
  // CHECK-NEXT: %g = graph.silu %h : tensor<2x8x8xf32>
  %g = graph.silu %h : !hidden
  // CHECK-NEXT: func.return %g : tensor<2x8x8xf32>
  func.return %g : !hidden
}

// The model up to the selected rows is the body.
// CHECK: func.func private @body(%tokens: tensor<2x8xi32>) -> tensor<2x8x8xf32>
func.func @main(%tokens : !tokens) -> !logits {
  // CHECK-NEXT: %table = graph.param @embed
  %table = graph.param @embed : tensor<12x8xf32>
  // CHECK-NEXT: %x = graph.embedding %table, %tokens : tensor<2x8x8xf32> {module = "embed"}
  %x = graph.embedding %table, %tokens : !hidden {module = "embed"}
  // CHECK-NEXT: %next = graph.iota dim 0 : tensor<9xi32>
  %next = graph.iota dim 0 : !next
  // CHECK-NEXT: %top = graph.reduce max %next dims [0] keepdims : tensor<1xi32>
  // CHECK-NEXT: %scale = graph.cast %top : tensor<1xf32>
  // CHECK-NEXT: %s = graph.mul %x, %scale : tensor<2x8x8xf32>
  %top = graph.reduce max %next dims [0] keepdims : tensor<1xi32>
  %scale = graph.cast %top : tensor<1xf32>
  %s = graph.mul %x, %scale : !hidden
  // CHECK-NEXT: %y = graph.layers @layer [0] %s : tensor<2x8x8xf32>
  // CHECK-NEXT: func.return %y
  %y = graph.layers @layer [0] %s : !hidden
  %norms = graph.param @norms : tensor<2x8xf32>
  %row = graph.slice %norms [1:2, :] : tensor<1x8xf32>
  %norm = graph.reshape %row : tensor<8xf32>
  %z = graph.select_rows %y : !hidden
  %n = graph.rms_norm %z, %norm eps 1.0e-05 : !hidden
  %l = graph.linear %n, %table : !logits {module = "head"}
  func.return %l : !logits
}

// What follows is the head: once for all rows, once for one row each, with weights of its own, parts of them too.
// CHECK: func.func private @head_all(%hidden: tensor<2x8x8xf32>) -> tensor<2x8x12xf32>
// CHECK-NEXT: %z = graph.select_rows %hidden : tensor<2x8x8xf32>
// CHECK-NEXT: %norms = graph.param @norms
// CHECK-NEXT: %row = graph.slice %norms [1:2, :]
// CHECK-NEXT: %norm = graph.reshape %row
// CHECK-NEXT: %n = graph.rms_norm %z, %norm
// CHECK-NEXT: %table = graph.param @embed
// CHECK-NEXT: %l = graph.linear %n, %table : tensor<2x8x12xf32> {module = "head"}
// CHECK: func.func private @head_last(%hidden: tensor<2x8x8xf32>) -> tensor<2x1x12xf32>
// CHECK-NEXT: %z = graph.select_rows %hidden : tensor<2x1x8xf32>
// CHECK: %l = graph.linear %n, %table : tensor<2x1x12xf32>

// Entries call body and head.
// CHECK: func.func @all(%tokens: tensor<2x8xi32>) -> tensor<2x8x12xf32>
// CHECK-NEXT: %[[H:.*]] = func.call @body(%tokens)
// CHECK-NEXT: func.call @head_all(%[[H]])
// CHECK: func.func @last(%tokens: tensor<2x8xi32>) -> tensor<2x1x12xf32>
// CHECK: func.call @head_last

// The next bucket has its own sizes: seq is the new tokens, ctx the attention length.
// CHECK: builtin.module @extend_1x4x16 attributes {npuc.bucket = {kind = "extend", batch = 1 : i64, new_tokens = 4 : i64, length = 16 : i64}}
// CHECK: %x = graph.embedding %table, %tokens : tensor<1x4x8xf32>
// CHECK-NEXT: %next = graph.iota dim 0 : tensor<17xi32>
// CHECK-NOT: func.func @main
