// RUN: irc opt %s -p canonicalize | filecheck %s
// RUN: irc opt %s -p cse,dce | filecheck %s --check-prefix=CSE

// Operations that change nothing disappear.
// CHECK: func.func @identities
func.func @identities(%x : tensor<2x8xf32>) -> tensor<2x8xf32> {
  // CHECK-NEXT: func.return %x
  %0 = graph.cast %x : tensor<2x8xf32>
  %1 = graph.reshape %0 : tensor<2x8xf32>
  %2 = graph.broadcast %1 : tensor<2x8xf32>
  %3 = graph.slice %2 [:, :] : tensor<2x8xf32>
  %4 = graph.transpose %3 perm [0, 1] : tensor<2x8xf32>
  %5 = graph.pad %4 low [0, 0] high [0, 0] value 0.0 : tensor<2x8xf32>
  %6 = graph.concat %5 dim 0 : tensor<2x8xf32>
  func.return %6 : tensor<2x8xf32>
}

// A transpose of equal sizes is no identity.
// CHECK: func.func @square
func.func @square(%x : tensor<8x8xf32>) -> tensor<8x8xf32> {
  // CHECK-NEXT: %y = graph.transpose %x perm [1, 0]
  %y = graph.transpose %x perm [1, 0] : tensor<8x8xf32>
  func.return %y : tensor<8x8xf32>
}

// Shape operations of a kind compose, and the result keeps its name and module.
// CHECK: func.func @composed
func.func @composed(%x : tensor<2x3x4xf32>) -> (tensor<24xf32>, tensor<4x2x3xf32>, tensor<2x3x4xf32>) {
  // CHECK-NEXT: %a = graph.reshape %x : tensor<24xf32> {module = "m"}
  %0 = graph.reshape %x : tensor<6x4xf32>
  %a = graph.reshape %0 : tensor<24xf32> {module = "m"}
  // CHECK-NEXT: %b = graph.transpose %x perm [2, 0, 1] : tensor<4x2x3xf32>
  %1 = graph.transpose %x perm [2, 1, 0] : tensor<4x3x2xf32>
  %b = graph.transpose %1 perm [0, 2, 1] : tensor<4x2x3xf32>
  // CHECK-NEXT: func.return %a, %b, %x
  %2 = graph.transpose %b perm [1, 2, 0] : tensor<2x3x4xf32>
  func.return %a, %b, %2 : tensor<24xf32>, tensor<4x2x3xf32>, tensor<2x3x4xf32>
}

// Placed tensors stay as they are: which placement a shape operation has is decided already.
// CHECK: func.func @placed
func.func @placed(%x : tensor<2x4xf32, #tile.replicated>) -> tensor<4x2xf32, #tile.replicated> {
  // CHECK-COUNT-2: graph.reshape
  %0 = graph.reshape %x : tensor<8xf32, #tile.sliced<2>>
  %1 = graph.reshape %0 : tensor<4x2xf32, #tile.replicated>
  func.return %1 : tensor<4x2xf32, #tile.replicated>
}

// A conversion that loses nothing vanishes before another one; one that rounds stays.
// CHECK: func.func @casts
func.func @casts(%b : tensor<8xbf16>, %f : tensor<8xf32>) -> (tensor<8xbf16>, tensor<8xf16>, tensor<8xf32>) {
  %0 = graph.cast %b : tensor<8xf32>
  %1 = graph.cast %0 : tensor<8xbf16>
  // CHECK-NEXT: %narrow = graph.cast %b : tensor<8xf16>
  %narrow = graph.cast %0 : tensor<8xf16>
  // CHECK-NEXT: %rounded = graph.cast %f : tensor<8xbf16>
  %rounded = graph.cast %f : tensor<8xbf16>
  // CHECK-NEXT: %wide = graph.cast %rounded : tensor<8xf32>
  %wide = graph.cast %rounded : tensor<8xf32>
  // CHECK-NEXT: func.return %b, %narrow, %wide
  func.return %1, %narrow, %wide : tensor<8xbf16>, tensor<8xf16>, tensor<8xf32>
}

// Neutral constants vanish where they do not widen the shape. Adding +0.0 turns -0.0 into +0.0, so it stays.
// CHECK: func.func @neutral
func.func @neutral(%x : tensor<8xf32>, %i : tensor<8xi32>) -> (tensor<8xf32>, tensor<8xi32>, tensor<1x8xf32>) {
  // CHECK-NEXT: %zero = graph.constant dense<0.000000e+00> : tensor<f32>
  %zero = graph.constant dense<0.0> : tensor<f32>
  %negative = graph.constant dense<-0.0> : tensor<f32>
  %one = graph.constant dense<1.0> : tensor<f32>
  // CHECK-NEXT: %ones = graph.constant
  %ones = graph.constant dense<1.0> : tensor<1x1xf32>
  %none = graph.constant dense<0> : tensor<i32>
  %0 = graph.mul %one, %x : tensor<8xf32>
  %1 = graph.div %0, %one : tensor<8xf32>
  %2 = graph.sub %1, %zero : tensor<8xf32>
  %3 = graph.add %negative, %2 : tensor<8xf32>
  // CHECK-NEXT: %kept = graph.add %x, %zero
  %kept = graph.add %3, %zero : tensor<8xf32>
  %4 = graph.add %i, %none : tensor<8xi32>
  // CHECK-NEXT: %wider = graph.mul %x, %ones
  %wider = graph.mul %x, %ones : tensor<1x8xf32>
  // CHECK-NEXT: func.return %kept, %i, %wider
  func.return %kept, %4, %wider : tensor<8xf32>, tensor<8xi32>, tensor<1x8xf32>
}

// Equal operations are computed once, unused ones not at all; a cache is written whether read or not.
// CSE: func.func @once
graph.cache_decl @cache layers [0] heads 1 key_size 4 value_size 4 type f32
func.func @once(%k : tensor<1x1x2x4xf32>) -> tensor<1x1x2x4xf32> {
  // CSE-NEXT: %a = graph.exp %k
  %a = graph.exp %k : tensor<1x1x2x4xf32>
  %b = graph.exp %k : tensor<1x1x2x4xf32>
  %unused = graph.sqrt %k : tensor<1x1x2x4xf32>
  // CSE-NEXT: graph.kv_update @cache %a, %a
  %keys, %values = graph.kv_update @cache %a, %b : tensor<1x1x5x4xf32>, tensor<1x1x5x4xf32>
  // CSE-NEXT: func.return %a
  func.return %b : tensor<1x1x2x4xf32>
}

// Rows are selected before a norm, if nothing else takes its result.
// CHECK: func.func @select(%x: tensor<1x4x8xf32>, %w: tensor<8xf32>)
func.func @select(%x : tensor<1x4x8xf32>, %w : tensor<8xf32>) -> (tensor<1x1x8xf32>, tensor<1x1x8xf32>, tensor<1x4x8xf32>) {
  // CHECK-NEXT: %z = graph.rms_norm %x, %w eps 1.0e-05 : tensor<1x4x8xf32> {module = "norm"}
  // CHECK-NEXT: %a = graph.select_rows %x : tensor<1x1x8xf32> {module = "head"}
  // CHECK-NEXT: %y = graph.rms_norm %a, %w eps 1.0e-06 : tensor<1x1x8xf32> {module = "norm"}
  // CHECK-NEXT: %b = graph.select_rows %z
  %y = graph.rms_norm %x, %w eps 1.0e-06 : tensor<1x4x8xf32> {module = "norm"}
  %z = graph.rms_norm %x, %w eps 1.0e-05 : tensor<1x4x8xf32> {module = "norm"}
  %a = graph.select_rows %y : tensor<1x1x8xf32> {module = "head"}
  %b = graph.select_rows %z : tensor<1x1x8xf32> {module = "head"}
  func.return %a, %b, %z : tensor<1x1x8xf32>, tensor<1x1x8xf32>, tensor<1x4x8xf32>
}
