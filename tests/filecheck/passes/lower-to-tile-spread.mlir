// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!S = tensor<1x128x256xf32, #tile.spread<1>>
!Few = tensor<1x128x64xf32, #tile.spread<1>>
!L = tensor<1x128x256xf32, #tile.sliced<4>>
!W = tensor<256x256xf32, #tile.host>
!T = tensor<1x64x256xf32, #tile.spread<1>>
!Q = tensor<1x2x128x64xf32, #tile.spread<2>>
!K = tensor<1x1x128x64xf32, #tile.host>

graph.weight @w : tensor<256x256xf32> sources [{file = "a"}]
tile.packed @"w#0" of @w : memref<1x1x64x4x256xf32, "hbm"> recipe [reshape [1, 1, 64, 4, 256]] offset 0 stride 0
graph.weight @k : tensor<64x256xf32> sources [{file = "a"}]
tile.packed @"k#0" of @k : memref<1x1x64x4x256xf32, "hbm"> recipe [pad [256, 256], reshape [1, 1, 64, 4, 256]] offset 0 stride 0
graph.weight @e : tensor<32x256xf32> sources [{file = "a"}]
tile.packed @"e#0" of @e : memref<32x256xf32, "hbm"> recipe [pad [32, 256]] offset 0 stride 0
tile.cache_decl @cache layers [0] key_type memref<128x1x64xf32, "hbm"> value_type memref<128x1x64xf32, "hbm"> slots 1 offset 0 layer_stride 65536 slot_stride 65536 value_offset 32768

builtin.module @prefill_1x128 attributes {npuc.spread, npuc.bucket = {kind = "prefill", batch = 1 : i64, new_tokens = 128 : i64, length = 128 : i64}} {
  // A result that is cut: every slice multiplies its columns of the weight with all rows, which the ring brings.
  // CHECK: func.func private @cut
  // CHECK: tile.pass [2, 64, 4, 256] reduce [3] ring 1 stream(%x strides [256, 0, 0, 1] slices [0, 1, 0, 0]) stationary(%{{.*}} strides [0, 0, 256, 1]) out(%y strides [256, 4, 1, 0]) {module = "proj"}
  func.func private @cut(%x : !S) -> !L {
    %w = graph.param @"w#0" : !W
    %y = graph.linear %x, %w : !L {module = "proj"}
    func.return %y : !L
  }

  // A result that is spread: every slice holds its rows, and the ring brings the weight, dealt evenly whatever its packing.
  // CHECK: func.func private @product
  // CHECK: tile.pass [512] stream(%x strides [1]) out(%[[HELD:.*]] strides [1])
  // CHECK: tile.copy [64, 256] src(%w strides [256, 1]) dst(%[[UNIT:.*]] strides [0, 1] slices [1, 0])
  // CHECK: tile.pass [2, 64, 256] reduce [2] ring 1 stream(%[[UNIT]] strides [0, 0, 1] slices [0, 1, 0]) stationary(%[[HELD]] strides [256, 0, 1]) out(%y strides [64, 1, 0])
  func.func private @product(%x : !S) -> !Few {
    %w = graph.param @"k#0" : tensor<64x256xf32, #tile.host>
    %y = graph.linear %x, %w : !Few {module = "proj"}
    func.return %y : !Few
  }

  // Tokens reach the cache whole and in order. Queries and probabilities are stationary, keys and turned values
  // stream from all slices; sums are products with ones, and the product is divided by them as it is made.
  // CHECK: func.func private @attend
  // CHECK: tile.copy [64, 2, 64] src(%k strides [0, 64, 1] slices [1, 0, 0]) dst(%[[KEYS:.*]] strides [64, 4096, 1])
  // CHECK-NEXT: tile.copy [128, 64] src(%[[KEYS]] strides [64, 1]) dst(%keys + 64 * %position strides [64, 1]) limit(%valid)
  // CHECK: tile.pass [128] fill 1.0 out(%[[ONES:.*]] strides [1])
  // CHECK: tile.pass [4, 64, 2, 64] reduce [3] ring 1 stream({{.*}}) stationary({{.*}}) out(%[[SCORES:.*]] strides [128, 2, 1, 0]) chain [mul 0.5]
  // CHECK: out(%[[TOP:.*]] strides [2, 1, 0]) chain [select operand else -3.0e+38, reduce_max]
  // CHECK: %[[POWERS:.*]] = tile.alloc : memref<64x2x2x128xf32, "trf">
  // CHECK-NEXT: vrf(%[[TOP]] strides [2, 1, 0]) chain [select operand else -3.0e+38, sub vrf, exp]
  // CHECK: tile.pass [4, 128] reduce [1] stream(%[[ONES]] strides [0, 1]) stationary(%[[POWERS]] strides [128, 1]) out(%[[SHARE:.*]] strides [1, 0]) chain [rdiv 1.0]
  // CHECK: tile.pass [64, 2] stream({{.*}} strides [1, 64]) out({{.*}} strides [4, 1]) mask(d1 + 2 * slice < %end)
  // CHECK-NEXT: tile.pass [2, 2, 64, 64, 2] reduce [3, 4] ring 3 stream({{.*}}) stationary(%[[POWERS]] {{.*}}) out(%a {{.*}}) vrf(%[[SHARE]] {{.*}}) chain [mul vrf]
  func.func private @attend(%q : !Q, %k : !Few, %m : tensor<1x1x128x128xi1, #tile.spread<2>>) -> tensor<1x128x2x64xf32, #tile.spread<1>> {
    %keys, %values = graph.kv_update @cache %k, %k : !K, !K
    %a = graph.attention %q, %keys, %values mask %m scale 0.5 : tensor<1x128x2x64xf32, #tile.spread<1>>
    func.return %a : tensor<1x128x2x64xf32, #tile.spread<1>>
  }

  // The slices' next rows are gathered by one copy. What is cut becomes spread by way of main memory, and back. Ranks'
  // sums are brought together some rows at a time, to lie row after row where all ranks read their slices' rows.
  // CHECK: func.func private @body
  // CHECK: tile.copy [64, 256] src(%t strides [0, 1]) dst(%e + 256 strides [0, 1] slices [1, 0]) index(%ids + 64 strides [1]) along 0 scale 256
  // CHECK: tile.copy [64, 512] src(%x strides [0, 1] slices [1, 0]) dst(%[[CUT:.*]] strides [512, 1])
  // CHECK-NEXT: tile.copy [64, 2, 64, 4] src(%[[CUT]] strides [4, 256, 512, 1]) dst(%r strides [0, 256, 4, 1] slices [1, 0, 0, 0])
  // CHECK: tile.pass [64, 64, 4] ring 0 stream({{.*}}) out(%[[SOME:.*]] strides [4, 256, 1])
  // CHECK-NEXT: tile.copy [16384] src(%[[SOME]] strides [1]) dst(%sums + 16384 * %rank strides [1])
  // CHECK: tile.copy [64, 2, 256] src(%sums strides [256, 16384, 1]) dst(%s strides [0, 256, 1] slices [1, 0, 0]) meet
  // CHECK: tile.copy [64, 2, 256] src(%z strides [0, 256, 1] slices [1, 0, 0]) dst(%[[WHOLE:.*]] strides [256, 16384, 1])
  // CHECK-NEXT: tile.copy [128, 64, 4] src(%[[WHOLE]] strides [256, 4, 1]) dst(%y strides [4, 0, 1] slices [0, 1, 0])
  func.func private @body(%ids : tensor<1x128xi32, #tile.host>) -> !L {
    %t = graph.param @"e#0" : tensor<32x256xf32, #tile.host>
    %w = graph.param @"w#0" : !W
    %e = graph.embedding %t, %ids : !S
    %x = graph.linear %e, %w : !L
    %r = graph.relayout %x : !S
    %s = dist.all_reduce sum %x over [tp] mesh #dist.mesh<tp = 2> : !S
    %z = graph.add %r, %s : !S
    %y = graph.relayout %z : !L
    func.return %y : !L
  }

  // Groups of rows take turns, with buffers of their own to add up in: each sees its part of the input, and
  // its part of the result is where it is written.
  // CHECK: func.func private @groups
  // CHECK: tile.pass [64, 4, 256] reduce [2] ring 0 stream(%h strides [0, 0, 1] slices [1, 0, 0])
  // CHECK: tile.copy {{.*}} dst(%[[FIRST:.*]] + 16384 * %{{.*}} strides [256, 1])
  // CHECK: tile.shared 1 :
  // CHECK: tile.pass [64, 4, 256] reduce [2] ring 0 stream(%h + 256 strides [0, 0, 1] slices [1, 0, 0])
  // CHECK: %[[SECOND:.*]] = tile.shared 8 :
  // CHECK-NEXT: tile.copy {{.*}} dst(%[[SECOND]] + 16384 * %{{.*}} strides [256, 1])
  // CHECK: tile.shared 9 :
  // CHECK: tile.pass [256] stream(%h strides [1]) out(%h strides [1]) operand({{.*}}) chain [add operand]
  // CHECK-NEXT: tile.pass [256] stream(%h + 256 strides [1]) out(%h + 256 strides [1]) operand({{.*}}) chain [add operand]
  // CHECK-NEXT: func.return
  func.func private @groups(%h : !S) -> !S {
    %z = graph.rows(%x : !T = %h along 1) along [1] : !S {
      %w = graph.param @"w#0" : !W
      %x1 = graph.linear %x, %w : tensor<1x64x256xf32, #tile.sliced<4>>
      %s = dist.all_reduce sum %x1 over [tp] mesh #dist.mesh<tp = 2> : !T
      %y = graph.add %x, %s : !T
      graph.yield %y
    } {unrolled}
    func.return %z : !S
  }

  // The row that a program wants is found in main memory.
  // CHECK: func.func private @head_last
  // CHECK: tile.copy [64, 2, 256] src(%h strides [0, 256, 1] slices [1, 0, 0]) dst(%[[ROWS:.*]] strides [256, 16384, 1])
  // CHECK: %last = tile.runtime "last"[%row]
  // CHECK-NEXT: tile.copy [64, 4] src(%[[ROWS]] + 32768 * %row + 256 * %last strides [4, 1]) dst(%y + 4 * %row strides [0, 1] slices [1, 0])
  func.func private @head_last(%h : !S) -> tensor<1x1x256xf32, #tile.sliced<4>> {
    %r = graph.relayout %h : tensor<1x128x256xf32, #tile.host>
    %y = graph.select_rows %r : tensor<1x1x256xf32, #tile.sliced<4>>
    func.return %y : tensor<1x1x256xf32, #tile.sliced<4>>
  }
}
