// RUN: irc opt %s -p 'assign-shardings{tensor_parallel=2},partition' | filecheck %s

// Weights that are multiplied as they are stored stay so; their scales are shared with their rows.
// CHECK: graph.param @up : tensor<4x6xi8>
// CHECK: graph.param @scale : tensor<4xf32>
builtin.module {
  graph.weight @up : tensor<8x6x!nquant.quantized<i8 : bf16, channel 0>> sources [{file = "w"}]
  graph.weight @scale : tensor<8xf32> sources [{file = "s"}]
  graph.weight @down : tensor<6x8xbf16> sources [{file = "w"}]
  builtin.module @prefill_1x2 {
    func.func private @layer(%x: tensor<1x2x6xbf16>) -> tensor<1x2x6xbf16> {
      %wup = graph.param @up : tensor<8x6xi8>
      %s = graph.param @scale : tensor<8xf32>
      %up = graph.linear %x, %wup scale %s : tensor<1x2x8xbf16>
      %wdown = graph.param @down : tensor<6x8xbf16>
      %down = graph.linear %up, %wdown : tensor<1x2x6xbf16>
      func.return %down : tensor<1x2x6xbf16>
    }
  }
}
