// RUN: irc opt %s -p 'pack-weights{target="rngd"}' --no-type-aliases | filecheck %s

!L = tensor<2x1x64xf32, #tile.sliced<4>>
!R = tensor<2x1x64xf32, #tile.replicated>
!Lv = tensor<96xf32, #tile.sliced<4>>
!Ly = tensor<2x1x96xf32, #tile.sliced<4>>
!Ri = tensor<3xi32, #tile.replicated>
!Li = tensor<48xi32, #tile.sliced<4>>

graph.weight @"layers.{}.w" : tensor<96x64xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
graph.weight @v : tensor<96xf32> sources [{file = "a"}]
graph.weight @e : tensor<96x64xf32> sources [{file = "a"}]
// CHECK: graph.weight @e

// The layers' weights form a block, `stride` bytes a layer. One tensor is packed once for each kind of use: its
// rows padded to whole slices and cut into tiles, its columns as the stream comes, in chunks or in one piece, and
// cut into parts: [tiles, parts, slices, rows, columns].
// CHECK-NEXT: tile.packed @"layers.{}.w#0" of @"layers.{}.w" : memref<1x1x64x4x64xf32, "hbm"> recipe [pad [256, 64], reshape [64, 1, 4, 1, 1, 64], permute [1, 4, 0, 2, 3, 5], reshape [1, 1, 64, 4, 64]] layers [0, 1] offset 0 stride 327680
// CHECK-NEXT: tile.packed @"layers.{}.w#1" of @"layers.{}.w" : memref<1x1x64x4x256xf32, "hbm"> recipe [pad [256, 256], reshape [64, 1, 4, 64, 1, 4], permute [1, 4, 0, 2, 3, 5], reshape [1, 1, 64, 4, 256]] layers [0, 1] offset 65536 stride 327680
// A vector is cut over the slices, a table of embeddings padded to whole slices.
// CHECK-NEXT: tile.packed @"v#0" of @v : memref<64x1x4xf32, "hbm"> recipe [reshape [1, 96], pad [1, 256], reshape [1, 64, 4], permute [1, 0, 2]] offset 655360 stride 0
// CHECK-NEXT: tile.packed @"e#0" of @e : memref<96x256xf32, "hbm"> recipe [pad [96, 256]] offset 656384 stride 0

// Indices and tables become weights made from recipes: in slices they count on into the padding.
// CHECK-NEXT: graph.weight @iota3 : tensor<256xi32> sources [{shape = array<i64: 256>, op = "iota", dim = 0 : i64}]
// CHECK-NEXT: tile.packed @"iota3#0" of @iota3 : memref<64x1x4xf32, "hbm">
// CHECK-NEXT: graph.weight @constant4 : tensor<3xi32> sources [{shape = array<i64: 3>, op = "dense", value = dense<[1, 4, 9]> : tensor<3xi32>}]
// CHECK-NEXT: tile.packed @"constant4#0" of @constant4 : memref<4xf32, "hbm"> recipe [reshape [3], pad [4]]

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // CHECK: func.func private @layer
  func.func private @layer(%h : !L, %r : !R) -> !L {
    // CHECK-NEXT: %w = graph.param @"layers.{}.w#0" : tensor<96x64xf32, #tile.host> {module = "layers.{}"}
    // CHECK-NEXT: %w_1 = graph.param @"layers.{}.w#1" : tensor<96x64xf32, #tile.host> {module = "layers.{}"}
    %w = graph.param @"layers.{}.w" : tensor<96x64xf32> {module = "layers.{}"}
    // CHECK-NEXT: %v = graph.param @"v#0" : tensor<96xf32, #tile.sliced<4>>
    %v = graph.param @v : !Lv
    // CHECK-NEXT: %x = graph.linear %h, %w_1 bias %v
    %x = graph.linear %h, %w bias %v : !Ly
    // CHECK-NEXT: %y = graph.linear %r, %w :
    %y = graph.linear %r, %w : !Ly
    func.return %h : !L
  }
  // CHECK: func.func private @body
  func.func private @body(%ids : tensor<2x1xi32, #tile.host>, %h : !L, %r : !R) -> !L {
    %e = graph.param @e : tensor<96x64xf32>
    // CHECK: %x = graph.embedding %e, %ids
    %x = graph.embedding %e, %ids : !L
    // CHECK-NEXT: %i = graph.param @"iota3#0" : tensor<48xi32, #tile.sliced<4>>
    %i = graph.iota dim 0 : !Li
    %j = graph.neg %i : !Li
    // CHECK: %t = graph.param @"constant4#0"
    %t = graph.constant dense<[1, 4, 9]> : tensor<3xi32> -> !Ri
    // A constant of one element becomes an immediate later.
    // CHECK-NEXT: %c = graph.constant dense<2> : tensor<i32>
    %c = graph.constant dense<2> : tensor<i32>
    %u = graph.mul %t, %c : !Ri
    %y = graph.layers @layer [0, 1] %x extras %r : !L
    func.return %y : !L
  }
}
