// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!L = tensor<2x3x96xf32, #tile.sliced<4>>
!L1 = tensor<2x1x96xf32, #tile.sliced<4>>
!R = tensor<2x3x96xf32, #tile.replicated>
!I = tensor<2x3xi32, #tile.host>

graph.weight @e : tensor<10x96xf32> sources [{file = "a"}]
tile.packed @p of @e : memref<10x256xf32, "hbm"> recipe [pad [10, 256]] offset 0 stride 0

builtin.module @prefill_2x3 attributes {npuc.bucket = {kind = "prefill", batch = 2 : i64, new_tokens = 3 : i64, length = 3 : i64}} {
  // Embeddings are gathered in main memory, each row cut over the slices as it comes; other inputs are copied to all
  // slices and converted there.
  // CHECK: func.func private @body(%ids: memref<2x3xi32, "hbm">, %positions: memref<2x3xi32, "hbm">, %result: memref<64x2x3x4xf32, "dm">)
  func.func private @body(%ids : !I, %positions : !I) -> !L {
    // CHECK-NEXT: %p = tile.alloc : memref<64x8xf32, "dm">
    // CHECK-NEXT: %p_1 = tile.alloc : memref<64x6xi32, "dm">
    // CHECK-NEXT: tile.copy [64, 6] src(%positions strides [0, 1]) dst(%p_1 strides [0, 1] slices [1, 0])
    // CHECK-NEXT: tile.pass [6] stream(%p_1 strides [1]) out(%p strides [1])
    %p = graph.relayout %positions : tensor<2x3xi32, #tile.replicated>
    // CHECK-NEXT: %e = tile.weight @p : memref<10x256xf32, "hbm">
    // CHECK-NEXT: %x = tile.alloc : memref<64x2x3x4xf32, "dm">
    // CHECK-NEXT: tile.copy [6, 64, 4] src(%e strides [0, 4, 1]) dst(%x strides [4, 0, 1] slices [0, 1, 0]) index(%ids strides [1]) along 0 scale 256 {module = "embed"}
    %e = graph.param @p : tensor<10x96xf32, #tile.host>
    %x = graph.embedding %e, %ids : !L {module = "embed"}
    // CHECK-NEXT: tile.pass [24] stream(%x strides [1]) out(%result strides [1]) {module = "embed"}
    func.return %x : !L
  }

  // The last valid row of each batch row is found at run time; logits are brought together and
  // go to main memory as whole rows, for small pieces are slow to write.
  // CHECK: func.func private @head_last
  func.func private @head_last(%h : !L) -> tensor<2x1x96xf32, #tile.host> {
    // CHECK-NEXT: %s = tile.alloc : memref<64x2x1x4xf32, "dm">
    // CHECK-NEXT: tile.for %row = 0 to 2 {
    // CHECK-NEXT: %last = tile.runtime "last"[%row] : index
    // CHECK-NEXT: tile.copy [64, 4] src(%h + 12 * %row + 4 * %last strides [0, 1] slices [1, 0]) dst(%s + 4 * %row strides [0, 1] slices [1, 0])
    // CHECK-NEXT: }
    %s = graph.select_rows %h : !L1
    // CHECK: tile.pass [64, 2, 4] ring 0 stream(%s strides [0, 4, 1] slices [1, 0, 0]) out(%y strides [4, 256, 1])
    // CHECK-NEXT: tile.copy [2, 96] src(%y strides [256, 1]) dst(%result strides [96, 1])
    %y = graph.relayout %s : tensor<2x1x96xf32, #tile.host>
    func.return %y : tensor<2x1x96xf32, #tile.host>
  }

  // From replicated to sliced: each slice takes its chunk, slices without one hold zeros.
  // CHECK: func.func private @scattered
  func.func private @scattered(%x : !L, %r : !R) -> !L {
    // CHECK-NEXT: %y = tile.alloc : memref<64x2x3x4xf32, "dm">
    // CHECK-NEXT: tile.pass [24] fill 0.0 out(%y strides [1])
    // CHECK-NEXT: tile.copy [6, 24, 4] src(%r strides [96, 4, 1]) dst(%y strides [4, 0, 1] slices [0, 1, 0])
    %y = graph.relayout %r : !L
    func.return %y : !L
  }

  // Reshapes, transposes and slices are views; concatenation and what no strides can say move elements.
  // CHECK: func.func private @views
  func.func private @views(%x : !R) -> !R {
    %a = graph.reshape %x : tensor<2x3x12x8xf32, #tile.replicated>
    %b = graph.transpose %a perm [0, 2, 1, 3] : tensor<2x12x3x8xf32, #tile.replicated>
    %c = graph.slice %b [:, :, 1:, :] : tensor<2x12x2x8xf32, #tile.replicated>
    %d = graph.slice %b [:, :, :1, :] : tensor<2x12x1x8xf32, #tile.replicated>
    // CHECK-NEXT: %e = tile.alloc : memref<64x576xf32, "dm">
    // CHECK-NEXT: tile.pass [2, 12, 2, 8] stream(%x + 96 strides [288, 8, 96, 1]) out(%e strides [288, 24, 8, 1])
    // CHECK-NEXT: tile.pass [2, 12, 8] stream(%x strides [288, 8, 1]) out(%e + 16 strides [288, 24, 1])
    %e = graph.concat %c, %d dim 2 : tensor<2x12x3x8xf32, #tile.replicated>
    %f = graph.transpose %e perm [0, 2, 1, 3] : tensor<2x3x12x8xf32, #tile.replicated>
    // CHECK-NEXT: %g = tile.alloc : memref<64x576xf32, "dm">
    // CHECK-NEXT: tile.pass [2, 3, 12, 8] stream(%e strides [288, 8, 24, 1]) out(%g strides [288, 96, 8, 1])
    %g = graph.reshape %f : !R
    func.return %g : !R
  }
}
