// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!L = tensor<2x1x96xf32, #tile.sliced<4>>
!R = tensor<2x1x96xf32, #tile.replicated>
!V = tensor<96xf32, #tile.sliced<4>>
!W = tensor<96x96xf32, #tile.host>
!Wide = tensor<2x1x8192xf32, #tile.sliced<128>>

graph.weight @w : tensor<96x96xf32> sources [{file = "a"}]
tile.packed @"w#0" of @w : memref<1x64x4x256xf32, "hbm"> recipe [pad [256, 256], reshape [64, 1, 4, 256], permute [1, 0, 2, 3]] offset 0 stride 0
tile.packed @"w#1" of @w : memref<1x64x4x96xf32, "hbm"> recipe [pad [256, 96], reshape [64, 1, 4, 96], permute [1, 0, 2, 3]] offset 0 stride 0
graph.weight @v : tensor<96xf32> sources [{file = "a"}]
tile.packed @p of @v : memref<64x1x4xf32, "hbm"> recipe [reshape [1, 96], pad [1, 256], reshape [1, 64, 4], permute [1, 0, 2]] offset 0 stride 0
graph.weight @u : tensor<8192x96xf32> sources [{file = "a"}]
tile.packed @"u#0" of @u : memref<2x64x64x256xf32, "hbm"> recipe [pad [8192, 256], reshape [64, 2, 64, 256], permute [1, 0, 2, 3]] offset 0 stride 0

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // From slices: each slice's weight rows go to its stationary memory, the switch sends every slice's part of the
  // input round the ring, and each slice sums its own outputs.
  // CHECK: func.func private @sliced
  func.func private @sliced(%x : !L) -> !L {
    // CHECK-NEXT: %w = tile.weight @"w#0" : memref<1x64x4x256xf32, "hbm">
    // CHECK-NEXT: %y = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: %y_1 = tile.alloc : memref<64x4x256xf32, "dm">
    // CHECK-NEXT: tile.copy [64, 1024] src(%w strides [1024, 1]) dst(%y_1 strides [0, 1] slices [1, 0]) {module = "proj"}
    // CHECK-NEXT: %y_2 = tile.alloc : memref<64x4x256xf32, "trf">
    // CHECK-NEXT: tile.pass [1024] stream(%y_1 strides [1]) out(%y_2 strides [1]) {module = "proj"}
    // CHECK-NEXT: tile.pass [2, 4, 64, 4] reduce [2, 3] ring 2 stream(%x strides [4, 0, 0, 1] slices [0, 0, 1, 0]) stationary(%y_2 strides [0, 256, 4, 1]) out(%y strides [4, 1, 0, 0]) {module = "proj"}
    %w = graph.param @"w#0" : !W
    %y = graph.linear %x, %w : !L {module = "proj"}
    func.return %y : !L
  }

  // From a replicated tensor nothing goes round. A bias is added in a pass of its own, before rounding.
  // CHECK: func.func private @replicated
  func.func private @replicated(%x : !R, %z : !L) -> !R {
    // CHECK: tile.copy [64, 4] src(%v strides [4, 1]) dst(%v_1 strides [0, 1] slices [1, 0])
    // CHECK: tile.copy [64, 384] src(%w strides [384, 1]) dst(%y_2 strides [0, 1] slices [1, 0])
    // CHECK: tile.pass [2, 4, 96] reduce [2] stream(%x strides [96, 0, 1]) stationary(%y_3 strides [0, 96, 1]) out(%y_1 strides [4, 1, 0])
    // CHECK-NEXT: %y_4 = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: tile.pass [2, 4] stream(%y_1 strides [4, 1]) out(%y_4 strides [4, 1]) operand(%v_1 strides [0, 1]) chain [add operand]
    %w = graph.param @"w#1" : !W
    %v = graph.param @p : !V
    %y = graph.linear %x, %w bias %v : !L
    // Back to a replicated tensor: every slice's chunk is sent to all.
    // CHECK: tile.pass [2, 64, 4] ring 1 stream(%y_4 strides [4, 0, 1] slices [0, 1, 0]) out(%r_1 strides [256, 4, 1])
    // CHECK-NEXT: tile.pass [2, 96] stream(%r_1 strides [256, 1]) out(%x strides [96, 1])
    %r = graph.relayout %y : !R
    func.return %r : !R
  }

  // Weights too large for the stationary memory come in tiles: each gives the next rows of every slice.
  // CHECK: func.func private @tiled
  func.func private @tiled(%x : !L) -> !L {
    // CHECK: %w = tile.weight @"u#0"
    // CHECK: %y = tile.alloc : memref<64x2x1x128xf32, "dm">
    // CHECK-NEXT: tile.for %tile = 0 to 2 {
    // CHECK: tile.copy [64, 16384] src(%w + 1048576 * %tile strides [16384, 1]) dst(%{{.*}} strides [0, 1] slices [1, 0])
    // CHECK: tile.pass [2, 64, 64, 4] reduce [2, 3] ring 2 {{.*}} out(%y + 64 * %tile strides [128, 1, 0, 0])
    // CHECK-NEXT: }
    %w = graph.param @"u#0" : tensor<8192x96xf32, #tile.host>
    %y = graph.linear %x, %w : !Wide
    %z = graph.exp %y : !Wide
    func.return %x : !L
  }
}
