// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!K = tensor<2x2x1x8xf32, #tile.replicated>
!F = tensor<2x1x16xf32, #tile.sliced<4>>
!Q = tensor<2x4x1x8xf32, #tile.replicated>
!C = tensor<2x2x16x8xf32, #tile.host>
!M = tensor<2x1x1x16xi1, #tile.sliced<4>>
!A = tensor<2x1x4x8xf32, #tile.replicated>

tile.cache_decl @c layers [0] key_type memref<2x256x8xf32, "hbm"> value_type memref<2x256x8xf32, "hbm"> slots 2 offset 0 layer_stride 65536 slot_stride 32768 value_offset 16384

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // Each row writes its valid tokens at its position of its slot; a flat tensor is gathered from the slices that
  // hold a head.
  // CHECK: func.func private @update
  func.func private @update(%k : !K, %f : !F) -> !K {
    // CHECK-NEXT: tile.for %row = 0 to 2 {
    // CHECK-NEXT: %slot = tile.runtime "slot"[%row] : index
    // CHECK-NEXT: %position = tile.runtime "position"[%row] : index
    // CHECK-NEXT: %valid = tile.runtime "valid"[%row] : index
    // CHECK-NEXT: %keys = tile.cache @c "key"[%layer, %slot] : memref<2x256x8xf32, "hbm">
    // CHECK-NEXT: tile.copy [1, 2, 8] src(%k + 16 * %row strides [8, 8, 1]) dst(%keys + 8 * %position strides [8, 2048, 1]) limit(%valid) {module = "attn"}
    // CHECK-NEXT: %values = tile.cache @c "value"[%layer, %slot]
    // CHECK-NEXT: tile.copy [1, 2, 2, 4] src(%f + 4 * %row strides [4, 0, 0, 1] slices [0, 2, 1, 0]) dst(%values + 8 * %position strides [8, 2048, 4, 1]) limit(%valid) {module = "attn"}
    // CHECK-NEXT: }
    // CHECK-NEXT: func.return
    %keys, %values = graph.kv_update @c %k, %f : !C, !C {module = "attn"}
    func.return %k : !K
  }

  // Attention runs row by row, key positions cut over the slices. Positions from `end` on are cleared on their way
  // to the stationary memory, whatever the cache holds there.
  // CHECK: func.func private @attend
  func.func private @attend(%q : !Q, %k : !K, %m : !M) -> !A {
    // CHECK: tile.for %row_1 = 0 to 2 {
    // CHECK: %end = tile.runtime "end"[%row_1] : index
    // CHECK: %a_1 = tile.alloc : memref<64x2x2x1x4xf32, "dm">
    // CHECK-NEXT: %a_2 = tile.alloc : memref<64x2x4x8xf32, "dm">
    // CHECK-NEXT: tile.copy [64, 2, 32] src(%keys_1 strides [32, 2048, 1]) dst(%a_2 strides [0, 32, 1] slices [1, 0, 0])
    // CHECK-NEXT: %a_3 = tile.alloc : memref<64x2x4x8xf32, "trf">
    // CHECK-NEXT: tile.pass [2, 4, 8] stream(%a_2 strides [32, 8, 1]) out(%a_3 strides [32, 8, 1]) mask(d1 + 4 * slice < %end)
    // Scores are scaled, capped and masked; the mask selects, so that nothing excluded has any influence.
    // CHECK-NEXT: tile.pass [2, 2, 4, 8] reduce [3] stream(%q + 32 * %row_1 strides [16, 8, 0, 1]) stationary(%a_3 strides [32, 0, 8, 1]) out(%a_1 strides [8, 4, 1, 0])
    // CHECK-NEXT: %a_4 = tile.alloc
    // CHECK-NEXT: tile.pass [4, 4] stream(%a_1 strides [4, 1]) out(%a_4 strides [4, 1]) operand(%m + 4 * %row_1 strides [0, 1]) chain [mul 0.008333334, tanh, mul 30.0, select operand else -3.0e+38]
    // Maxima and sums of the softmax go round all slices.
    // CHECK: tile.pass [4, 4] reduce [1] stream(%a_4 strides [4, 1]) out(%a_5 strides [1, 0]) chain [reduce_max, ring_max]
    // CHECK: tile.pass [4, 4] stream(%a_4 strides [4, 1]) out(%a_6 strides [4, 1]) operand(%a_5 strides [1, 0]) chain [sub operand, exp]
    // CHECK: tile.pass [4, 4] reduce [1] stream(%a_6 strides [4, 1]) out(%a_7 strides [1, 0]) chain [reduce_add, ring_add]
    // Values likewise; each slice's part of the sum is added up round the ring, and divided at the end.
    // CHECK: tile.copy [64, 2, 32] src(%values_1 strides [32, 2048, 1]) dst(%a_8 strides [0, 32, 1] slices [1, 0, 0])
    // CHECK: tile.pass [2, 4, 8] stream(%a_8 strides [32, 8, 1]) out(%a_9 strides [32, 8, 1]) mask(d1 + 4 * slice < %end)
    // CHECK: tile.pass [2, 2, 8, 4] reduce [3] stream(%a_6 strides [8, 4, 0, 1]) stationary(%a_9 strides [32, 0, 1, 8]) out(%a_10 strides [16, 8, 1, 0]) chain [ring_add]
    // CHECK-NEXT: tile.pass [4, 8] stream(%a_10 strides [8, 1]) out(%a + 32 * %row_1 strides [8, 1]) operand(%a_7 strides [1, 0]) chain [div operand]
    // CHECK-NEXT: }
    %keys, %values = graph.kv_update @c %k, %k : !C, !C
    %a = graph.attention %q, %keys, %values mask %m scale 0.25 softcap 30.0 : !A {module = "attn"}
    func.return %a : !A
  }
}
