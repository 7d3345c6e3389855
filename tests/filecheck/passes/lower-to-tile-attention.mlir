// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!K = tensor<2x2x1x8xf32, #tile.replicated>
!F = tensor<2x1x16xf32, #tile.sliced<4>>
!Q = tensor<2x4x1x8xf32, #tile.replicated>
!C = tensor<2x2x16x8xf32, #tile.host>
!M = tensor<2x1x1x16xi1, #tile.sliced<4>>
!A = tensor<2x1x4x8xf32, #tile.replicated>
!T = tensor<2x32x512xf32, #tile.sliced<8>>
!W = tensor<2x2x16x256xf32, #tile.host>

tile.cache_decl @wide layers [0] key_type memref<256x2x256xf32, "hbm"> value_type memref<256x2x256xf32, "hbm"> slots 2 offset 131072 layer_stride 2097152 slot_stride 1048576 value_offset 524288
tile.cache_decl @c layers [0] key_type memref<256x2x8xf32, "hbm"> value_type memref<256x2x8xf32, "hbm"> slots 2 offset 0 layer_stride 65536 slot_stride 32768 value_offset 16384

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // Each row writes its valid tokens at its position of its slot, a token in one run of bytes; a tensor that is cut
  // over the slices is gathered first.
  // CHECK: func.func private @update
  func.func private @update(%k : !K, %f : !F) -> !K {
    // CHECK-NEXT: tile.for %row = 0 to 2 {
    // CHECK-NEXT: %slot = tile.runtime "slot"[%row] : index
    // CHECK-NEXT: %position = tile.runtime "position"[%row] : index
    // CHECK-NEXT: %valid = tile.runtime "valid"[%row] : index
    // CHECK-NEXT: %keys = tile.cache @c "key"[%layer, %slot] : memref<256x2x8xf32, "hbm">
    // CHECK-NEXT: tile.copy [1, 16] src(%k + 16 * %row strides [8, 1]) dst(%keys + 16 * %position strides [16, 1]) limit(%valid) {module = "attn"}
    // CHECK-NEXT: %values = tile.cache @c "value"[%layer, %slot]
    // CHECK-NEXT: %[[G:.*]] = tile.alloc : memref<64x1x256xf32, "dm">
    // CHECK-NEXT: tile.pass [64, 4] ring 0 stream(%f + 4 * %row strides [0, 1] slices [1, 0]) out(%[[G]] strides [4, 1]) {module = "attn"}
    // CHECK-NEXT: tile.copy [1, 16] src(%[[G]] strides [256, 1]) dst(%values + 16 * %position strides [16, 1]) limit(%valid) {module = "attn"}
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
    // CHECK: tile.copy [64, 64] src(%keys_1 strides [64, 1]) dst(%a_1 strides [0, 1] slices [1, 0])
    // CHECK-NEXT: %a_2 = tile.alloc : memref<64x4x2x8xf32, "trf">
    // CHECK-NEXT: tile.pass [4, 16] stream(%a_1 strides [16, 1]) out(%a_2 strides [16, 1]) mask(d0 + 4 * slice < %end)
    // Scores are scaled, capped and masked; the mask selects, so that nothing excluded has any influence.
    // CHECK: tile.pass [2, 2, 4, 8] reduce [3] stream(%q + 32 * %row_1 strides [16, 8, 0, 1]) stationary(%a_2 strides [8, 0, 16, 1]) out(%a_3 strides [8, 4, 1, 0])
    // CHECK: tile.pass [4, 4] stream(%a_3 strides [4, 1]) out(%a_4 strides [4, 1]) operand(%m + 4 * %row_1 strides [0, 1]) chain [mul 0.008333334, tanh, mul 30.0, select operand else -3.0e+38]
    // Maxima and sums of the softmax go round all slices; what goes on is divided here, where it is smallest.
    // CHECK: tile.pass [4, 4] reduce [1] stream(%a_4 strides [4, 1]) out(%a_5 strides [1, 0]) chain [reduce_max, ring_max]
    // CHECK: tile.pass [4, 4] stream(%a_4 strides [4, 1]) out(%a_6 strides [4, 1]) operand(%a_5 strides [1, 0]) chain [sub operand, exp]
    // CHECK: tile.pass [4, 4] reduce [1] stream(%a_6 strides [4, 1]) out(%a_7 strides [1, 0]) chain [reduce_add, ring_add]
    // CHECK: tile.pass [4, 4] stream(%a_6 strides [4, 1]) out(%a_8 strides [4, 1]) operand(%a_7 strides [1, 0]) chain [div operand]
    // Values are turned, so that what is summed lies side by side; each slice's part is added up round the ring.
    // CHECK: tile.copy [64, 64] src(%values_1 strides [64, 1]) dst(%a_9 strides [0, 1] slices [1, 0])
    // CHECK: tile.pass [16, 4] stream(%a_9 strides [1, 16]) out(%a_10 strides [4, 1]) mask(d1 + 4 * slice < %end)
    // CHECK: tile.pass [2, 2, 8, 4] reduce [3] stream(%a_8 strides [8, 4, 0, 1]) stationary(%a_10 strides [32, 0, 4, 1]) out(%a + 32 * %row_1 strides [16, 8, 1, 0]) chain [ring_add]
    // CHECK-NEXT: }
    %keys, %values = graph.kv_update @c %k, %k : !C, !C
    %a = graph.attention %q, %keys, %values mask %m scale 0.25 softcap 30.0 : !A {module = "attn"}
    func.return %a : !A
  }

  // Many tokens are gathered a few at a time; what is left of the valid ones clips each copy.
  // CHECK: func.func private @many
  func.func private @many(%k : !T) -> !T {
    // CHECK: tile.for %tokens = 0 to 2 {
    // CHECK-NEXT: %left = tile.sum %valid + -16 * %tokens
    // CHECK-NEXT: %keys = tile.cache @wide "key"[%layer, %slot]
    // CHECK: tile.pass [16, 64, 8] ring 1 stream(%k + 256 * %row + 128 * %tokens strides [8, 0, 1] slices [0, 1, 0])
    // CHECK-NEXT: tile.copy [16, 512] src({{.*}}) dst(%keys + 512 * %position + 8192 * %tokens strides [512, 1]) limit(%left)
    %keys, %values = graph.kv_update @wide %k, %k : !W, !W
    func.return %k : !T
  }
}
