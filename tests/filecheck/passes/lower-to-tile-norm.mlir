// RUN: irc opt %s -p 'lower-to-tile{target="rngd"}' --no-type-aliases | filecheck %s

!L = tensor<2x1x96xf32, #tile.sliced<4>>
!R = tensor<2x1x96xf32, #tile.replicated>
!S = tensor<2x1x1xf32, #tile.replicated>

graph.weight @w : tensor<96xf32> layers [0] sources [{file = "a"}]
tile.packed @p of @w : memref<64x1x4xf32, "hbm"> recipe [reshape [1, 96], pad [1, 256], reshape [1, 64, 4], permute [1, 0, 2]] layers [0] offset 0 stride 1024

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // Squares are summed within and then across slices, the last slices' padding left out; the scale goes to the
  // vector registers, so that one pass multiplies by it and by the weight, to which Gemma's offset is added beforehand.
  // CHECK: func.func private @norm
  func.func private @norm(%x : !L) -> !L {
    // CHECK-NEXT: %y = tile.alloc : memref<64x4xf32, "dm">
    // CHECK-NEXT: tile.pass [2, 4] reduce [1] stream(%x strides [4, 1]) out(%y strides [1, 0]) chain [mul stash, reduce_add, ring_add] limit(d1 + 4 * slice < 96) {module = "norm"}
    // CHECK-NEXT: %y_1 = tile.alloc : memref<64x2x1x1xf32, "vrf">
    // CHECK-NEXT: tile.pass [2] stream(%y strides [1]) out(%y_1 strides [1]) chain [mul 0.010416667, add 1.0e-05, sqrt, rdiv 1.0] {module = "norm"}
    // CHECK-NEXT: %y_2 = tile.alloc
    // CHECK-NEXT: %w = tile.weight @p[%layer]
    // CHECK-NEXT: %w_1 = tile.alloc
    // CHECK-NEXT: tile.copy [64, 4] src(%w strides [4, 1]) dst(%w_1 strides [0, 1] slices [1, 0]) {module = "load"}
    // CHECK-NEXT: %y_3 = tile.alloc
    // CHECK-NEXT: tile.pass [4] stream(%w_1 strides [1]) out(%y_3 strides [1]) chain [add 1.0] {module = "norm"}
    // CHECK-NEXT: tile.pass [2, 4] stream(%x strides [4, 1]) out(%y_2 strides [4, 1]) operand(%y_3 strides [0, 1]) vrf(%y_1 strides [1, 0]) chain [mul vrf, mul operand] {module = "norm"}
    %w = graph.param @p : tensor<96xf32, #tile.sliced<4>> {module = "load"}
    %y = graph.rms_norm %x, %w eps 1.0e-05 offset 1.0 : !L {module = "norm"}
    func.return %y : !L
  }

  // A replicated tensor needs no ring, and has no padding.
  // CHECK: func.func private @softmax
  func.func private @softmax(%x : !R) -> !R {
    // CHECK: tile.pass [2, 96] reduce [1] stream(%x strides [96, 1]) out(%[[TOP:.*]] strides [1, 0]) chain [reduce_max]
    // CHECK: tile.pass [2, 96] stream(%x strides [96, 1]) out(%[[EXP:.*]] strides [96, 1]) operand(%[[TOP]] strides [1, 0]) chain [sub operand, exp]
    // CHECK: tile.pass [2, 96] reduce [1] stream(%[[EXP]] strides [96, 1]) out(%[[SUM:.*]] strides [1, 0]) chain [reduce_add]
    // CHECK: tile.pass [2, 96] stream(%[[EXP]] strides [96, 1]) out(%y_3 strides [96, 1]) operand(%[[SUM]] strides [1, 0]) chain [div operand]
    %y = graph.softmax %x dim 2 : !R
    func.return %y : !R
  }

  // A mean is a sum scaled once.
  // CHECK: func.func private @mean
  func.func private @mean(%s : !S, %x : !L) -> !S {
    // CHECK: tile.pass [2, 4] reduce [1] stream(%x strides [4, 1]) out(%[[M:.*]] strides [1, 0]) chain [reduce_add, ring_add] limit(d1 + 4 * slice < 96)
    // CHECK-NEXT: tile.pass [2] stream(%[[M]] strides [1]) out(%[[M]] strides [1]) chain [mul 0.010416667]
    %m = graph.reduce mean %x dims [2] keepdims : !S
    func.return %m : !S
  }
}
