// RUN: irc opt %s -p 'pad-shards{tensor_parallel=4}' | filecheck %s

// Two heads of keys for four ranks: each is repeated, and the six heads of queries follow, two to a rank.
// Features become a multiple of four; what reads the padding multiplies it by zero.

// CHECK: graph.weight @q : tensor<32x6xf32> layers [0] sources [{op = "take", dim = 0 : i64, unit = 4 : i64, blocks = array<i64: 0, 1, 2, -1, 3, 4, 5, -1>, source = {file = "w"
// CHECK: graph.weight @k : tensor<16x6xf32> layers [0] sources [{op = "take", dim = 0 : i64, unit = 4 : i64, blocks = array<i64: 0, 0, 1, 1>, source = {file = "w"
// CHECK: graph.weight @o : tensor<6x32xf32> layers [0] sources [{op = "take", dim = 1 : i64
// CHECK: graph.weight @up : tensor<8x6xf32> layers [0] sources [{op = "pad", dim = 0 : i64, size = 8 : i64
// CHECK: graph.weight @down : tensor<6x8xf32> layers [0] sources [{op = "pad", dim = 1 : i64, size = 8 : i64
// CHECK: graph.cache_decl @c layers [0] heads 4 key_size 4 value_size 4 type f32 {dealt = array<i64: 0, 0, 1, 1>}
// CHECK: graph.attention %{{.*}} : tensor<1x2x8x4xf32>
// CHECK: graph.relu %{{.*}} : tensor<1x2x8xf32>
builtin.module {
  graph.weight @q : tensor<24x6xf32> layers [0] sources [{file = "w"}]
  graph.weight @k : tensor<8x6xf32> layers [0] sources [{file = "w"}]
  graph.weight @o : tensor<6x24xf32> layers [0] sources [{file = "w"}]
  graph.weight @up : tensor<5x6xf32> layers [0] sources [{file = "w"}]
  graph.weight @down : tensor<6x5xf32> layers [0] sources [{file = "w"}]
  graph.cache_decl @c layers [0] heads 2 key_size 4 value_size 4 type f32
  builtin.module @prefill_1x2 {
    func.func private @layer(%x: tensor<1x2x6xf32>) -> tensor<1x2x6xf32> {
      %wq = graph.param @q : tensor<24x6xf32>
      %q = graph.linear %x, %wq : tensor<1x2x24xf32>
      %wk = graph.param @k : tensor<8x6xf32>
      %k = graph.linear %x, %wk : tensor<1x2x8xf32>
      %keys, %values = graph.kv_update @c %k, %k : tensor<1x2x2x4xf32>, tensor<1x2x2x4xf32>
      %heads = graph.reshape %q : tensor<1x2x6x4xf32>
      %turned = graph.transpose %heads perm [0, 2, 1, 3] : tensor<1x6x2x4xf32>
      %a = graph.attention %turned, %keys, %values scale 1.0 : tensor<1x2x6x4xf32>
      %flat = graph.reshape %a : tensor<1x2x24xf32>
      %wo = graph.param @o : tensor<6x24xf32>
      %o = graph.linear %flat, %wo : tensor<1x2x6xf32>
      %wup = graph.param @up : tensor<5x6xf32>
      %up = graph.linear %o, %wup : tensor<1x2x5xf32>
      %act = graph.relu %up : tensor<1x2x5xf32>
      %wdown = graph.param @down : tensor<6x5xf32>
      %down = graph.linear %act, %wdown : tensor<1x2x6xf32>
      func.return %down : tensor<1x2x6xf32>
    }
  }
}
