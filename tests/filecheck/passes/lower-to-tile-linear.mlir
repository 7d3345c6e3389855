// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!L = tensor<2x1x96xf32, #tile.sliced<4>>
!R = tensor<2x1x96xf32, #tile.replicated>
!V = tensor<96xf32, #tile.sliced<4>>
!W = tensor<96x96xf32, #tile.host>
!Wide = tensor<2x1x32768xf32, #tile.sliced<512>>

graph.weight @w : tensor<96x96xf32> sources [{file = "a"}]
tile.packed @"w#0" of @w : memref<1x1x64x4x256xf32, "hbm"> recipe [pad [256, 256], reshape [1, 1, 64, 4, 256]] offset 0 stride 0
tile.packed @"w#1" of @w : memref<1x1x64x4x96xf32, "hbm"> recipe [pad [256, 96], reshape [1, 1, 64, 4, 96]] offset 0 stride 0
graph.weight @v : tensor<96xf32> sources [{file = "a"}]
tile.packed @p of @v : memref<64x1x4xf32, "hbm"> recipe [reshape [1, 96], pad [1, 256], reshape [1, 64, 4], permute [1, 0, 2]] offset 0 stride 0
graph.weight @t : tensor<96x1024xf32> sources [{file = "a"}]
tile.packed @"t#0" of @t : memref<1x2x64x4x512xf32, "hbm"> recipe [pad [256, 1024], reshape [64, 1, 4, 64, 2, 8], permute [1, 4, 0, 2, 3, 5], reshape [1, 2, 64, 4, 512]] offset 0 stride 0
graph.weight @u : tensor<32768x96xf32> sources [{file = "a"}]
tile.packed @"u#0" of @u : memref<16x1x64x32x256xf32, "hbm"> recipe [pad [32768, 256], reshape [64, 16, 1, 32, 256], permute [1, 2, 0, 3, 4]] offset 0 stride 0

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // From slices: each slice's weight rows go to its stationary memory, the switch sends every slice's part of the
  // input round the ring, and each slice sums its own outputs. Short parts of a row travel with those of the next row.
  // CHECK: func.func private @sliced
  func.func private @sliced(%x : !L) -> !L {
    // CHECK-NEXT: %w = tile.weight @"w#0" : memref<1x1x64x4x256xf32, "hbm">
    // CHECK-NEXT: %y = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: %y_1 = tile.alloc : memref<64x1x4x256xf32, "dm">
    // CHECK-NEXT: tile.copy [64, 1024] src(%w strides [1024, 1]) dst(%y_1 strides [0, 1] slices [1, 0]) {module = "proj"}
    // CHECK-NEXT: %y_2 = tile.alloc : memref<64x4x256xf32, "trf">
    // CHECK-NEXT: tile.pass [1024] stream(%y_1 strides [1]) out(%y_2 strides [1]) {module = "proj"}
    // CHECK-NEXT: tile.pass [64, 2, 4, 4] reduce [0, 3] ring 0 stream(%x strides [0, 4, 0, 1] slices [1, 0, 0, 0]) stationary(%y_2 strides [4, 0, 256, 1]) out(%y strides [0, 4, 1, 0]) {module = "proj"}
    %w = graph.param @"w#0" : !W
    %y = graph.linear %x, %w : !L {module = "proj"}
    func.return %y : !L
  }

  // As many rows at a time as fill what is multiplied at once: their sums wait while the ring goes round.
  // CHECK: func.func private @rows
  func.func private @rows(%x : tensor<1x512x96xf32, #tile.sliced<4>>) -> tensor<1x512x96xf32, #tile.sliced<4>> {
    // CHECK: tile.pass [128, 64, 4, 4, 4] reduce [1, 4] ring 1 stream(%x strides [16, 0, 4, 0, 1] slices [0, 1, 0, 0, 0]) stationary(%y_2 strides [0, 4, 0, 256, 1]) out(%y strides [16, 0, 4, 1, 0])
    %w = graph.param @"w#0" : !W
    %y = graph.linear %x, %w : tensor<1x512x96xf32, #tile.sliced<4>>
    func.return %y : tensor<1x512x96xf32, #tile.sliced<4>>
  }

  // From a replicated tensor nothing goes round. A bias is added in a pass of its own, before rounding.
  // CHECK: func.func private @replicated
  func.func private @replicated(%x : !R, %z : !L) -> !R {
    // CHECK: tile.copy [64, 4] src(%v strides [4, 1]) dst(%v_1 strides [0, 1] slices [1, 0])
    // CHECK: tile.copy [64, 384] src(%w strides [384, 1]) dst(%y_1 strides [0, 1] slices [1, 0])
    // CHECK: tile.pass [2, 4, 96] reduce [2] stream(%x strides [96, 0, 1]) stationary(%y_2 strides [0, 96, 1]) out(%y strides [4, 1, 0])
    // CHECK-NEXT: %y_3 = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: tile.pass [2, 4] stream(%y strides [4, 1]) out(%y_3 strides [4, 1]) operand(%v_1 strides [0, 1]) chain [add operand]
    %w = graph.param @"w#1" : !W
    %v = graph.param @p : !V
    %y = graph.linear %x, %w bias %v : !L
    // Back to a replicated tensor: every slice's chunk is sent to all.
    // CHECK: tile.pass [64, 2, 4] ring 0 stream(%y_3 strides [0, 4, 1] slices [1, 0, 0]) out(%r_1 strides [4, 256, 1])
    // CHECK-NEXT: tile.pass [2, 96] stream(%r_1 strides [256, 1]) out(%x strides [96, 1])
    %r = graph.relayout %y : !R
    func.return %r : !R
  }

  // Weights too large for the stationary memory come in tiles: each gives the next rows of every slice. One copy
  // brings several, since every copy has a price of its own.
  // CHECK: func.func private @tiled
  func.func private @tiled(%x : !L) -> !L {
    // CHECK: %w = tile.weight @"u#0"
    // CHECK: %y = tile.alloc : memref<64x2x1x512xf32, "dm">
    // CHECK-NEXT: tile.for %tile = 0 to 4 {
    // CHECK: tile.copy [4, 64, 8192] src(%w + 2097152 * %tile strides [524288, 8192, 1]) dst(%y_1 strides [8192, 0, 1] slices [0, 1, 0])
    // CHECK: tile.pass [8192] stream(%y_1 + 8192 strides [1]) out(%y_3 strides [1])
    // CHECK-NEXT: tile.pass [2, 32, 64, 4] reduce [2, 3] ring 2 {{.*}} out(%y + 32 + 128 * %tile strides [512, 1, 0, 0])
    // CHECK: }
    %w = graph.param @"u#0" : tensor<32768x96xf32, #tile.host>
    %y = graph.linear %x, %w : !Wide
    %z = graph.exp %y : !Wide
    func.return %x : !L
  }

  // An input too long for the stationary memory is summed in parts: the sums so far wait in the vector registers.
  // CHECK: func.func private @parts
  func.func private @parts(%x : tensor<2x1x1024xf32, #tile.sliced<16>>) -> !L {
    // CHECK: %y_3 = tile.alloc : memref<64x2x1x4xf32, "vrf">
    // CHECK-NEXT: tile.pass [2, 4, 64, 8] reduce [2, 3] ring 2 {{.*}} out(%y_3 strides [4, 1, 0, 0])
    // CHECK: tile.pass [2, 4, 64, 8] reduce [2, 3] ring 2 stream(%x + 8 strides [16, 0, 0, 1] slices [0, 0, 1, 0]) stationary(%y_4 strides [0, 512, 8, 1]) out(%y strides [4, 1, 0, 0]) vrf(%y_3 strides [4, 1, 0, 0]) chain [add vrf]
    %w = graph.param @"t#0" : tensor<96x1024xf32, #tile.host>
    %y = graph.linear %x, %w : !L
    func.return %y : !L
  }
}
