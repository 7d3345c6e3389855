// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!L = tensor<2x1x96xbf16, #tile.sliced<4>>
!X = tensor<1x512x96xbf16, #tile.sliced<4>>
!F = tensor<1x512x96xf32, #tile.sliced<4>>
!Q = tensor<1x512x96xf8E4M3FN, #tile.sliced<4>>
!Rows = tensor<1x512x256xf8E4M3FN, #tile.spread<1>>
!Spread = tensor<1x512x64xbf16, #tile.spread<1>>
!W = tensor<96x96xi8, #tile.host>
!W8 = tensor<96x96xf8E4M3FN, #tile.host>
!Long = tensor<1x512x1024xf8E4M3FN, #tile.sliced<16>>
!V = tensor<96xf32, #tile.sliced<4>>
!S = tensor<f32, #tile.replicated>
!One = tensor<1xf32, #tile.replicated>
!Both = tensor<2xf32, #tile.replicated>

graph.weight @w : tensor<96x96xi8> sources [{}]
graph.weight @s : tensor<96xf32> sources [{}]
graph.weight @f : tensor<96x96xf8E4M3FN> sources [{}]
graph.weight @t : tensor<96x1024xf8E4M3FN> sources [{}]
graph.weight @e : tensor<64x256xf8E4M3FN> sources [{}]
graph.weight @b : tensor<2xf32> sources [{}]
tile.packed @"w#0" of @w : memref<1x1x64x4x256xi8, "hbm"> recipe [pad [256, 256], reshape [64, 1, 4, 64, 1, 4], permute [1, 4, 0, 2, 3, 5], reshape [1, 1, 64, 4, 256]] offset 0 stride 0
tile.packed @"s#0" of @s : memref<64x1x4xf32, "hbm"> recipe [reshape [1, 96], pad [1, 256], reshape [1, 64, 4], permute [1, 0, 2]] offset 0 stride 0
tile.packed @"f#0" of @f : memref<1x1x64x4x256xf8E4M3FN, "hbm"> recipe [pad [256, 256], reshape [1, 1, 64, 4, 256]] offset 0 stride 0
tile.packed @"t#0" of @t : memref<1x2x64x4x512xf8E4M3FN, "hbm"> recipe [pad [256, 1024], reshape [64, 1, 4, 64, 2, 8], permute [1, 4, 0, 2, 3, 5], reshape [1, 2, 64, 4, 512]] offset 0 stride 0
tile.packed @"e#0" of @e : memref<1x1x64x4x256xf8E4M3FN, "hbm"> recipe [pad [256, 256], reshape [1, 1, 64, 4, 256]] offset 0 stride 0
tile.packed @"b#0" of @b : memref<4xf32, "hbm"> recipe [pad [4]] offset 0 stride 0
graph.weight @u : tensor<32768x256xf8E4M3FN> sources [{}]
graph.weight @v : tensor<32768xf32> sources [{}]
tile.packed @"u#0" of @u : memref<8x1x64x64x256xf8E4M3FN, "hbm"> recipe [reshape [64, 8, 1, 64, 256], permute [1, 2, 0, 3, 4]] offset 0 stride 0
tile.packed @"v#0" of @v : memref<64x1x512xf32, "hbm"> recipe [reshape [1, 64, 512], permute [1, 0, 2]] offset 0 stride 0

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // A weight comes as it is stored and is converted to the input's type on its way into the stationary memory;
  // sums in f32 are scaled before they are rounded.
  // CHECK: func.func private @layer
  func.func private @layer(%x : !L) -> !L {
    // CHECK: tile.copy [64, 1024] src(%w strides [1024, 1]) dst([[STAGED:%[a-z0-9_]+]] strides [0, 1] slices [1, 0])
    // CHECK: [[TRF:%[a-z0-9_]+]] = tile.alloc : memref<64x4x256xbf16, "trf">
    // CHECK-NEXT: tile.pass [1024] stream([[STAGED]] strides [1]) out([[TRF]] strides [1])
    // CHECK: stationary([[TRF]] {{.*}} out([[SUMS:%[a-z0-9_]+]] strides [0, 4, 1, 0])
    // CHECK: [[OUT:%[a-z0-9_]+]] = tile.alloc : memref<64x2x1x4xbf16, "dm">
    // CHECK-NEXT: tile.pass [2, 4] stream([[SUMS]] strides [4, 1]) out([[OUT]] strides [4, 1]) operand(%s_1 strides [0, 1]) chain [mul operand]
    %w = graph.param @"w#0" : !W
    %s = graph.param @"s#0" : !V
    %y = graph.linear %x, %w scale %s : !L
    func.return %y : !L
  }
}

builtin.module @prefill_1x512 attributes {npuc.bucket = {kind = "prefill", batch = 1 : i64, new_tokens = 512 : i64, length = 512 : i64}} {
  // Of many rows it pays to bring the scales to the vector registers: the contraction multiplies by them.
  // CHECK: func.func private @rows
  func.func private @rows(%x : !X) -> !X {
    // CHECK: %[[S:.*]] = tile.alloc : memref<64x1x4xf32, "vrf">
    // CHECK-NEXT: tile.pass [4] stream(%{{.*}} strides [1]) out(%[[S]] strides [1])
    // CHECK: %y = tile.alloc : memref<64x1x512x4xbf16, "dm">
    // CHECK: stationary({{.*}}) out(%y {{.*}}) vrf(%[[S]] {{.*}}) chain [mul vrf]
    %w = graph.param @"w#0" : !W
    %s = graph.param @"s#0" : !V
    %y = graph.linear %x, %w scale %s : !X
    func.return %y : !X
  }

  // Scalars that lie in one parameter come there together. An input is divided by one of them and its product
  // multiplied by the other, neither of them fetched with every element; a bias is added afterwards.
  // CHECK: func.func private @scalars
  func.func private @scalars(%x : !X) -> !X {
    // CHECK: %[[B:.*]] = tile.alloc : memref<64x4xf32, "vrf">
    // CHECK-NEXT: tile.pass [4] stream(%{{.*}} strides [1]) out(%[[B]] strides [1])
    // CHECK-NOT: "vrf">
    // CHECK: tile.pass [2048] stream(%x strides [1]) out({{.*}}) vrf(%[[B]] strides [0]) chain [div vrf, max -448.0, min 448.0]
    // CHECK: stationary({{.*}}) out(%[[SUMS:.*]] strides {{.*}}) vrf(%[[B]] + 1 strides [0, 0, 0, 0, 0]) chain [mul vrf]
    // CHECK: stream(%[[SUMS]] strides {{.*}} operand(%v_1 {{.*}}) chain [add operand]
    %w = graph.param @"f#0" : !W8
    %b = graph.param @"b#0" : !Both
    %v = graph.param @"s#0" : !V
    %a = graph.slice %b [0:1] : !One
    %input = graph.reshape %a : !S
    %c = graph.slice %b [1:2] : !One
    %product = graph.reshape %c : !S
    %low = graph.constant dense<-4.480000e+02> : tensor<f32>
    %high = graph.constant dense<4.480000e+02> : tensor<f32>
    %wide = graph.cast %x : !F
    %divided = graph.div %wide, %input : !F
    %raised = graph.maximum %divided, %low : !F
    %clamped = graph.minimum %raised, %high : !F
    %q = graph.cast %clamped : !Q
    %y = graph.linear %q, %w bias %v scale %product : !X
    func.return %y : !X
  }

  // A vector moves with the tiles of its weight.
  // CHECK: func.func private @tiles
  func.func private @tiles(%x : tensor<1x256x256xf8E4M3FN, #tile.sliced<4>>) -> tensor<1x256x256xf8E4M3FN, #tile.sliced<4>> {
    // CHECK: tile.for %tile = 0 to
    // CHECK: out(%y + 64 * %tile strides {{.*}} vrf(%{{.*}} + 64 * %tile strides {{.*}} chain [mul vrf]
    %w = graph.param @"u#0" : tensor<32768x256xf8E4M3FN, #tile.host>
    %s = graph.param @"v#0" : tensor<32768xf32, #tile.sliced<512>>
    %y = graph.linear %x, %w scale %s : tensor<1x256x32768xbf16, #tile.sliced<512>>
    %z = graph.exp %y : tensor<1x256x32768xbf16, #tile.sliced<512>>
    func.return %x : tensor<1x256x256xf8E4M3FN, #tile.sliced<4>>
  }

  // Where parts are added by passes, the last of them scales too.
  // CHECK: func.func private @parts
  func.func private @parts(%x : !Long, %z : !X) -> !X {
    // CHECK: chain [add operand, mul vrf]
    %w = graph.param @"t#0" : tensor<96x1024xf8E4M3FN, #tile.host>
    %b = graph.param @"b#0" : !Both
    %a = graph.slice %b [0:1] : !One
    %scale = graph.reshape %a : !S
    %y = graph.linear %x, %w scale %scale : !X
    %r = graph.add %y, %z : !X
    func.return %r : !X
  }

  // The product of spread rows, each slice's own.
  // CHECK: func.func private @spread
  func.func private @spread(%x : !Rows) -> !Spread {
    // CHECK: ring 1 {{.*}} vrf(%{{.*}} + 1 strides {{.*}}) chain [mul vrf]
    %w = graph.param @"e#0" : tensor<64x256xf8E4M3FN, #tile.host>
    %b = graph.param @"b#0" : !Both
    %a = graph.slice %b [1:2] : !One
    %scale = graph.reshape %a : !S
    %y = graph.linear %x, %w scale %scale : !Spread
    func.return %y : !Spread
  }
}
