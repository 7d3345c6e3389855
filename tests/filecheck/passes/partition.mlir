// RUN: irc opt %s -p 'assign-shardings{tensor_parallel=2},partition' | filecheck %s

// Weights are a rank's part of themselves; the head's is another one than the table's, which stays whole.
// CHECK: npuc.mesh = #dist.mesh<tp = 2>
// CHECK: graph.weight @up : tensor<4x6xf32> sources [{op = "shard", dim = 0 : i64, parts = 2 : i64, source = {file = "w"}}]
// CHECK: graph.weight @down : tensor<6x4xf32> sources [{op = "shard", dim = 1 : i64, parts = 2 : i64, source = {file = "w"}}]
// CHECK: graph.weight @table : tensor<10x6xf32> sources [{file = "w"}]
// CHECK: graph.weight @"table~1" : tensor<5x6xf32> sources [{op = "shard", dim = 0 : i64, parts = 2 : i64, source = {file = "w"}}]
builtin.module {
  graph.weight @up : tensor<8x6xf32> sources [{file = "w"}]
  graph.weight @down : tensor<6x8xf32> sources [{file = "w"}]
  graph.weight @bias : tensor<6xf32> sources [{file = "w"}]
  graph.weight @table : tensor<10x6xf32> sources [{file = "w"}]
  builtin.module @prefill_1x2 {
    // Partial sums are added over the ranks, then the bias, once.
    // CHECK-LABEL: func.func private @layer
    // CHECK: %up = graph.linear %x, %wup : tensor<1x2x4xf32>
    // CHECK: %[[PARTS:.*]] = graph.linear %up, %wdown : tensor<1x2x6xf32> {module = "mlp.down"}
    // CHECK-NEXT: %[[SUM:.*]] = dist.all_reduce sum %[[PARTS]] over [tp] mesh #dist.mesh<tp = 2> : tensor<1x2x6xf32> {module = "mlp.down"}
    // CHECK-NEXT: %[[DOWN:.*]] = graph.add %[[SUM]], %b : tensor<1x2x6xf32> {module = "mlp.down"}
    // CHECK: func.return %[[DOWN]]
    func.func private @layer(%x: tensor<1x2x6xf32>) -> tensor<1x2x6xf32> {
      %wup = graph.param @up : tensor<8x6xf32>
      %up = graph.linear %x, %wup : tensor<1x2x8xf32>
      %wdown = graph.param @down : tensor<6x8xf32>
      %b = graph.param @bias : tensor<6xf32>
      %down = graph.linear %up, %wdown bias %b : tensor<1x2x6xf32> {module = "mlp.down"}
      func.return %down : tensor<1x2x6xf32>
    }
    func.func private @body(%ids: tensor<1x2xi32>) -> tensor<1x2x6xf32> {
      %t = graph.param @table : tensor<10x6xf32>
      %x = graph.embedding %t, %ids : tensor<1x2x6xf32>
      func.return %x : tensor<1x2x6xf32>
    }

    // Each rank computes a part of the logits.
    // CHECK-LABEL: func.func private @head_all
    // CHECK: %[[PART:.*]] = graph.linear %x, %w : tensor<1x2x5xf32>
    // CHECK-NEXT: %[[ALL:.*]] = dist.all_gather %[[PART]] dim 2 over [tp] mesh #dist.mesh<tp = 2> : tensor<1x2x10xf32>
    // CHECK-NEXT: func.return %[[ALL]] : tensor<1x2x10xf32>
    func.func private @head_all(%x: tensor<1x2x6xf32>) -> tensor<1x2x10xf32> {
      %w = graph.param @table : tensor<10x6xf32>
      %logits = graph.linear %x, %w : tensor<1x2x10xf32>
      func.return %logits : tensor<1x2x10xf32>
    }
  }
}
