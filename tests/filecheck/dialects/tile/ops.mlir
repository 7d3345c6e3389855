// RUN: irc opt %s --no-type-aliases | filecheck %s
// RUN: irc opt %s --no-type-aliases --print-op-generic | filecheck %s --check-prefix=GENERIC

// Declarations: how a weight is packed, and where a cache lies.
graph.weight @w : tensor<6x8xf32> layers [0, 1] sources [{file = "a"}, {file = "b"}]
// CHECK: tile.packed @"w#0" of @w : memref<2x4x8xf32, "hbm"> recipe [pad [8, 8], reshape [4, 2, 8], permute [1, 0, 2], cast bf16] layers [0, 1] offset 0 stride 256
// GENERIC: recipe = [{op = "pad", shape = array<i64: 8, 8>}, {op = "reshape", shape = array<i64: 4, 2, 8>}, {op = "permute", perm = array<i64: 1, 0, 2>}, {op = "cast", type = "bf16"}]
tile.packed @"w#0" of @w : memref<2x4x8xf32, "hbm"> recipe [pad [8, 8], reshape [4, 2, 8], permute [1, 0, 2], cast bf16] layers [0, 1] offset 0 stride 256
// CHECK-NEXT: tile.cache_decl @c layers [0, 1] key_type memref<16x2x4xf32, "hbm"> value_type memref<16x2x4xf32, "hbm"> slots 3 offset 0 layer_stride 3072 slot_stride 1024 value_offset 512
tile.cache_decl @c layers [0, 1] key_type memref<16x2x4xf32, "hbm"> value_type memref<16x2x4xf32, "hbm"> slots 3 offset 0 layer_stride 3072 slot_stride 1024 value_offset 512

// Buffers, runtime parameters, loops and calls.
// CHECK: func.func private @layer
func.func private @layer(%layer : index, %x : memref<4x32xf32, "dm">) {
  // CHECK-NEXT: %w = tile.weight @"w#0"[%layer] : memref<2x4x8xf32, "hbm">
  %w = tile.weight @"w#0"[%layer] : memref<2x4x8xf32, "hbm">
  // CHECK-NEXT: %row = tile.constant 0
  %row = tile.constant 0
  // CHECK-NEXT: %slot = tile.runtime "slot"[%row] : index
  // GENERIC: "tile.runtime"(%row) {parameter = "slot"} : (index) -> index
  %slot = tile.runtime "slot"[%row] : index
  // CHECK-NEXT: %k = tile.cache @c "key"[%layer, %slot] : memref<16x2x4xf32, "hbm">
  %k = tile.cache @c "key"[%layer, %slot] : memref<16x2x4xf32, "hbm">
  // CHECK-NEXT: %left = tile.sum %slot + -16 * %layer
  // GENERIC: "tile.sum"(%slot, %layer) {coefficient = -16 : i64} : (index, index) -> index
  %left = tile.sum %slot + -16 * %layer
  func.return
}
// CHECK: func.func @loops
func.func @loops(%x : memref<4x32xf32, "dm">) {
  // CHECK-NEXT: %y = tile.alloc : memref<4x32xf32, "dm"> {address = 64 : i64}
  %y = tile.alloc : memref<4x32xf32, "dm"> {address = 64 : i64}
  // CHECK-NEXT: tile.for %layer = 1 to 3 {
  // GENERIC: "tile.for"() ({
  tile.for %layer = 1 to 3 {
    // CHECK-NEXT: tile.call @layer(%layer, %y)
    tile.call @layer(%layer, %y)
  // CHECK-NEXT: } {module = "layers"}
  // GENERIC: }) {count = 2 : i64, start = 1 : i64, module = "layers"}
  } {module = "layers"}
  // CHECK-NEXT: tile.for %i = 0 to 1 {
  // CHECK-NEXT: }
  tile.for %i = 0 to 1 {
  }
  func.return
}

// Passes: ports as sums of terms, strides and slices; sources and immediates of the chain; limits.
// CHECK: func.func @passes
func.func @passes(%x : memref<4x32xf32, "dm">, %w : memref<4x64xf32, "trf">, %y : memref<4x32xf32, "dm">, %i : index, %end : index) {
  // CHECK-NEXT: tile.pass [4, 4, 2] reduce [1, 2] ring 1 stream(%x + 8 + 2 * %i - %end strides [4, 0, 1] slices [0, 1, 0]) stationary(%w + %i strides [0, 2, 1]) out(%y strides [1, 0, 0]) {module = "m"}
  tile.pass [4, 4, 2] reduce [1, 2] ring 1 stream(%x + 8 + 2 * %i - %end strides [4, 0, 1] slices [0, 1, 0]) stationary(%w + %i strides [0, 2, 1]) out(%y strides [1, 0, 0]) {module = "m"}
  // GENERIC: "tile.pass"(%x, %w, %y, %i, %end) {size = array<i64: 4, 4, 2>, ports = {stream = {buffer = 0 : i64, offset = 8 : i64, strides = array<i64: 4, 0, 1>, slices = array<i64: 0, 1, 0>, index = [array<i64: 0, 2>, array<i64: 1, -1>]}, stationary
  // CHECK-NEXT: tile.pass [8] stream(%x strides [1]) operand(%w strides [1]) out(%y strides [1]) chain [mul stash, add 1.0e-05, sqrt, select operand else -3.0e+38]
  tile.pass [8] stream(%x strides [1]) operand(%w strides [1]) out(%y strides [1]) chain [mul stash, add 0.00001, sqrt, select operand else -3.0e+38]
  // CHECK-NEXT: tile.pass [8, 4] reduce [1] stream(%x strides [4, 1]) out(%y strides [1, 0]) mask(d1 + 4 * slice < %end) chain [max inf, reduce_add, ring_add] limit(d1 < 3)
  // GENERIC: mask = {dim = 1 : i64, limit = 0 : i64, slice_stride = 4 : i64, index = 0 : i64}
  tile.pass [8, 4] reduce [1] stream(%x strides [4, 1]) out(%y strides [1, 0]) chain [max inf, reduce_add, ring_add] limit(d1 < 3) mask(d1 + 4 * slice < %end)
  // CHECK-NEXT: tile.pass [8] fill -1.5 out(%y + 4 strides [1])
  tile.pass [8] fill -1.5 out(%y + 4 strides [1])
  func.return
}

// Copies: slices on either side, a clipped extent, an index list that chooses rows.
// CHECK: func.func @copies
func.func @copies(%x : memref<4x32xf32, "dm">, %h : memref<4x32xf32, "hbm">, %ids : memref<2xi32, "hbm">, %n : index) {
  // CHECK-NEXT: tile.copy [4, 32] src(%h strides [32, 1]) dst(%x strides [0, 1] slices [1, 0])
  tile.copy [4, 32] src(%h strides [32, 1]) dst(%x strides [0, 1] slices [1, 0])
  // CHECK-NEXT: tile.copy [4, 8] src(%h + 32 * %n strides [8, 1]) dst(%h strides [8, 1]) limit(%n)
  // GENERIC: limit = {dim = 0 : i64, limit = 0 : i64, slice_stride = 0 : i64, index = 0 : i64}
  tile.copy [4, 8] src(%h + 32 * %n strides [8, 1]) dst(%h strides [8, 1]) limit(%n)
  // CHECK-NEXT: tile.copy [4, 8] src(%h strides [8, 1]) dst(%h strides [8, 1]) limit(2)
  tile.copy [4, 8] src(%h strides [8, 1]) dst(%h strides [8, 1]) limit(2)
  // CHECK-NEXT: tile.copy [2, 32] src(%h strides [0, 1]) dst(%x strides [0, 1] slices [1, 0]) index(%ids strides [1]) along 0 scale 32
  tile.copy [2, 32] src(%h strides [0, 1]) dst(%x strides [0, 1] slices [1, 0]) index(%ids strides [1]) along 0 scale 32
  func.return
}

// Ranks: a buffer that all see, the rank's own place in it, and a copy that starts when all are ready.
// CHECK: func.func @ranks
func.func @ranks(%x : memref<4x32xf32, "dm">) {
  // CHECK-NEXT: %rank = tile.rank : index
  %rank = tile.rank : index
  // CHECK-NEXT: %all = tile.shared 0 : memref<2x128xf32, "hbm">
  %all = tile.shared 0 : memref<2x128xf32, "hbm">
  // CHECK-NEXT: tile.copy [4, 32] src(%x strides [0, 1] slices [1, 0]) dst(%all + 128 * %rank strides [32, 1])
  tile.copy [4, 32] src(%x strides [0, 1] slices [1, 0]) dst(%all + 128 * %rank strides [32, 1])
  // CHECK-NEXT: tile.copy [4, 32] src(%all strides [32, 1]) dst(%x strides [0, 1] slices [1, 0]) meet
  // GENERIC: meet = "chip", operandSegmentSizes
  tile.copy [4, 32] src(%all strides [32, 1]) dst(%x strides [0, 1] slices [1, 0]) meet
  // Chips: the same buffer of each of them, along its first dimension, when all chips' ranks are ready.
  // CHECK-NEXT: %chip = tile.chip : index
  %chip = tile.chip : index
  // CHECK-NEXT: %each = tile.shared 0 system : memref<2x32xf32, "hbm">
  %each = tile.shared 0 system : memref<2x32xf32, "hbm">
  // CHECK-NEXT: tile.copy [2, 32] src(%each strides [0, 1] slices [1, 0]) dst(%x + 2 * %chip strides [0, 1] slices [1, 0]) meet system
  tile.copy [2, 32] src(%each strides [0, 1] slices [1, 0]) dst(%x + 2 * %chip strides [0, 1] slices [1, 0]) meet system
  func.return
}
