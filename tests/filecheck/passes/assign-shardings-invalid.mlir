// RUN: not irc opt %s -p 'assign-shardings{tensor_parallel=4}' | filecheck %s

// Ten features make no four equal shares.
// CHECK: assign-shardings: 10 blocks do not make 4 equal shares; run pad-shards first
builtin.module {
  graph.weight @up : tensor<10x6xf32> sources [{file = "w"}]
  graph.weight @down : tensor<6x10xf32> sources [{file = "w"}]
  builtin.module @prefill_1x2 {
    func.func private @layer(%x: tensor<1x2x6xf32>) -> tensor<1x2x6xf32> {
      %wup = graph.param @up : tensor<10x6xf32>
      %up = graph.linear %x, %wup : tensor<1x2x10xf32>
      %wdown = graph.param @down : tensor<6x10xf32>
      %down = graph.linear %up, %wdown : tensor<1x2x6xf32>
      func.return %down : tensor<1x2x6xf32>
    }
  }
}
