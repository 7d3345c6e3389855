// RUN: irc opt %s -p 'assign-shardings{tensor_parallel=2}' | filecheck %s

// Features between two linear layers are shared; the residual stream, which goes through a norm, is not.
// CHECK-LABEL: func.func private @layer
// CHECK: %n = graph.rms_norm %x, %wn eps 1.0e-05 : tensor<1x2x6xf32>
// CHECK-NEXT: %wup = graph.param @up : tensor<8x6xf32> {shardings = [#dist.sharding<#dist.mesh<tp = 2>, {{\[\[}}tp], []]>]}
// CHECK-NEXT: %up = graph.linear %n, %wup : tensor<1x2x8xf32> {shardings = [#dist.sharding<#dist.mesh<tp = 2>, {{\[\[}}], [], [tp]]>]}
// CHECK-NEXT: %act = graph.relu %up : tensor<1x2x8xf32> {shardings = [#dist.sharding<#dist.mesh<tp = 2>, {{\[\[}}], [], [tp]]>]}
// CHECK-NEXT: %wdown = graph.param @down : tensor<6x8xf32> {shardings = [#dist.sharding<#dist.mesh<tp = 2>, {{\[\[}}], [tp]]>]}
// CHECK-NEXT: %down = graph.linear %act, %wdown : tensor<1x2x6xf32>{{$}}

// A softmax over the features needs all of them in one place.
// CHECK: %wide = graph.linear %down, %wup2 : tensor<1x2x8xf32>{{$}}

// Logits are shared by the rows of their weight, and put together where the head returns them.
// CHECK-LABEL: func.func private @head_all
// CHECK: graph.linear %x, %w : tensor<1x2x10xf32> {shardings = [#dist.sharding<#dist.mesh<tp = 2>, {{\[\[}}], [], [tp]]>]}
builtin.module {
  graph.weight @norm : tensor<6xf32> layers [0] sources [{file = "w"}]
  graph.weight @up : tensor<8x6xf32> layers [0] sources [{file = "w"}]
  graph.weight @down : tensor<6x8xf32> layers [0] sources [{file = "w"}]
  graph.weight @up2 : tensor<8x6xf32> layers [0] sources [{file = "w"}]
  graph.weight @down2 : tensor<6x8xf32> layers [0] sources [{file = "w"}]
  graph.weight @head : tensor<10x6xf32> sources [{file = "w"}]
  builtin.module @prefill_1x2 {
    func.func private @layer(%x: tensor<1x2x6xf32>) -> tensor<1x2x6xf32> {
      %wn = graph.param @norm : tensor<6xf32>
      %n = graph.rms_norm %x, %wn eps 1.0e-05 : tensor<1x2x6xf32>
      %wup = graph.param @up : tensor<8x6xf32>
      %up = graph.linear %n, %wup : tensor<1x2x8xf32>
      %act = graph.relu %up : tensor<1x2x8xf32>
      %wdown = graph.param @down : tensor<6x8xf32>
      %down = graph.linear %act, %wdown : tensor<1x2x6xf32>
      %wup2 = graph.param @up2 : tensor<8x6xf32>
      %wide = graph.linear %down, %wup2 : tensor<1x2x8xf32>
      %soft = graph.softmax %wide dim 2 : tensor<1x2x8xf32>
      %wdown2 = graph.param @down2 : tensor<6x8xf32>
      %narrow = graph.linear %soft, %wdown2 : tensor<1x2x6xf32>
      func.return %narrow : tensor<1x2x6xf32>
    }
    func.func private @head_all(%x: tensor<1x2x6xf32>) -> tensor<1x2x10xf32> {
      %w = graph.param @head : tensor<10x6xf32>
      %logits = graph.linear %x, %w : tensor<1x2x10xf32>
      func.return %logits : tensor<1x2x10xf32>
    }
  }
}
