// RUN: irc opt %s -p 'split-rows{target="rngd"}' | filecheck %s

!hidden = tensor<1x512x2048xbf16>
!wide = tensor<1x512x8192xbf16>
!logits = tensor<1x512x128000xbf16>
!some = tensor<1x8x8192xbf16>
!few = tensor<1x8x2048xbf16>

graph.weight @n : tensor<2048xbf16> sources [{file = "a"}]
graph.weight @up : tensor<8192x2048xbf16> sources [{file = "a"}]
graph.weight @down : tensor<2048x8192xbf16> sources [{file = "a"}]
graph.weight @scales : tensor<2xf32> sources [{file = "a"}]
graph.weight @head : tensor<128000x2048xbf16> sources [{file = "a"}]

builtin.module @prefill_1x512 {
  // What follows attention is done some rows at a time if all of them do not fit: 512 rows of
  // 8192 take 128 KB in each slice, and two such tensors meet in the product (which takes the place of one).
  // CHECK: func.func private @layer
  func.func private @layer(%x : !hidden, %keys : tensor<1x8x512x64xbf16>, %mask : tensor<1x1x512x512xi1>) -> !hidden {
    // CHECK: graph.attention
    // CHECK-NEXT: %h = graph.reshape
    %q = graph.reshape %x : tensor<1x512x32x64xbf16>
    %t = graph.transpose %q perm [0, 2, 1, 3] : tensor<1x32x512x64xbf16>
    %a = graph.attention %t, %keys, %keys mask %mask scale 0.5 : tensor<1x512x32x64xbf16>
    %h = graph.reshape %a : !hidden
    // CHECK: %z = graph.rows(%x_1 : tensor<1x256x2048xbf16> = %x along 1, %h_1 : tensor<1x256x2048xbf16> = %h along 1, %scale_1 : tensor<f32> = %scale) along [1] : tensor<1x512x2048xbf16> {
    // CHECK-NEXT: %r = graph.add %x_1, %h_1 : tensor<1x256x2048xbf16>
    // CHECK-NEXT: %[[N:.*]] = graph.param @n
    // CHECK-NEXT: %y = graph.rms_norm %r, %[[N]] eps 1.0e-05 : tensor<1x256x2048xbf16>
    // CHECK-NEXT: graph.param @up
    // CHECK-NEXT: %g = graph.linear {{.*}} : tensor<1x256x8192xbf16> {module = "mlp"}
    // CHECK: %u = graph.linear
    // CHECK-NEXT: %m = graph.gated silu %g, %u
    // CHECK: %d = graph.linear %m, {{.*}} scale %scale_1
    // CHECK-NEXT: %[[Z:.*]] = graph.add %r, %d
    // CHECK-NEXT: graph.yield %[[Z]]
    // CHECK-NEXT: }
    // CHECK-NEXT: func.return %z
    %n = graph.param @n : tensor<2048xbf16>
    %up = graph.param @up : tensor<8192x2048xbf16>
    %down = graph.param @down : tensor<2048x8192xbf16>
    %r = graph.add %x, %h : !hidden
    %y = graph.rms_norm %r, %n eps 1.0e-05 : !hidden
    %g = graph.linear %y, %up : !wide {module = "mlp"}
    %u = graph.linear %y, %up : !wide
    %m = graph.gated silu %g, %u : !wide
    %scales = graph.param @scales : tensor<2xf32>
    %one = graph.slice %scales [1:2] : tensor<1xf32>
    %scale = graph.reshape %one : tensor<f32>
    %d = graph.linear %m, %down scale %scale : !hidden
    %z = graph.add %r, %d : !hidden
    func.return %z : !hidden
  }

  // Logits go to main memory tile by tile; they need not fit.
  // CHECK: func.func private @head_all
  func.func private @head_all(%x : !hidden) -> !logits {
    // CHECK: graph.rows(%x_1 : tensor<1x64x2048xbf16> = %x along 1) along [1] : tensor<1x512x128000xbf16> {
    %w = graph.param @head : tensor<128000x2048xbf16>
    %l = graph.linear %x, %w : !logits
    func.return %l : !logits
  }

  // What fits stays as it is.
  // CHECK: func.func private @short
  // CHECK-NOT: graph.rows
  func.func private @short(%x : !few) -> !few {
    %up = graph.param @up : tensor<8192x2048xbf16>
    %down = graph.param @down : tensor<2048x8192xbf16>
    %g = graph.linear %x, %up : !some
    %d = graph.linear %g, %down : !few
    func.return %d : !few
  }
}
