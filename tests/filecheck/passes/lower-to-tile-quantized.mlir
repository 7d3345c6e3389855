// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!L = tensor<2x1x96xbf16, #tile.sliced<4>>
!W = tensor<96x96xi8, #tile.host>
!V = tensor<96xf32, #tile.sliced<4>>

graph.weight @w : tensor<96x96xi8> sources [{}]
graph.weight @s : tensor<96xf32> sources [{}]
tile.packed @"w#0" of @w : memref<1x1x64x4x256xi8, "hbm"> recipe [pad [256, 256], reshape [64, 1, 4, 64, 1, 4], permute [1, 4, 0, 2, 3, 5], reshape [1, 1, 64, 4, 256]] offset 0 stride 0
tile.packed @"s#0" of @s : memref<64x1x4xf32, "hbm"> recipe [reshape [1, 96], pad [1, 256], reshape [1, 64, 4], permute [1, 0, 2]] offset 0 stride 0

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // A weight comes as it is stored and is converted to the input's type on its way into the stationary memory;
  // sums in f32 are scaled before they are rounded.
  // CHECK: func.func private @layer
  func.func private @layer(%x : !L) -> !L {
    // CHECK: tile.copy [64, 1024] src(%w strides [1024, 1]) dst([[STAGED:%[a-z0-9_]+]] strides [0, 1] slices [1, 0])
    // CHECK: [[TRF:%[a-z0-9_]+]] = tile.alloc : memref<64x4x256xbf16, "trf">
    // CHECK-NEXT: tile.pass [1024] stream([[STAGED]] strides [1]) out([[TRF]] strides [1])
    // CHECK: stationary([[TRF]] {{.*}} out([[SUMS:%[a-z0-9_]+]] strides [4, 1, 0, 0])
    // CHECK: [[OUT:%[a-z0-9_]+]] = tile.alloc : memref<64x2x1x4xbf16, "dm">
    // CHECK-NEXT: tile.pass [2, 4] stream([[SUMS]] strides [4, 1]) out([[OUT]] strides [4, 1]) operand(%s_1 strides [0, 1]) chain [mul operand]
    %w = graph.param @"w#0" : !W
    %s = graph.param @"s#0" : !V
    %y = graph.linear %x, %w scale %s : !L
    func.return %y : !L
  }
}
