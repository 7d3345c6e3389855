// RUN: irc opt %s -p 'assign-layouts{target="rngd"}' | filecheck %s

!h = tensor<1x128x256xf32>
!wide = tensor<1x128x512xf32>
!row = tensor<256xf32>

graph.weight @n : !row sources [{file = "a"}]
graph.weight @q : tensor<64x256xf32> sources [{file = "a"}]
graph.weight @up : tensor<512x256xf32> sources [{file = "a"}]
graph.weight @down : tensor<256x512xf32> sources [{file = "a"}]
graph.weight @s : tensor<f32> sources [{file = "a"}]
graph.weight @t : tensor<1xf32> sources [{file = "a"}]
graph.cache_decl @cache layers [0] heads 1 key_size 64 value_size 64 type f32

builtin.module @prefill_1x128 attributes {npuc.spread, npuc.bucket = {kind = "prefill", batch = 1 : i64, new_tokens = 128 : i64, length = 128 : i64}} {
  // Rows stay spread; what is between two linear layers is cut, and so is what ranks add up.
  // CHECK: func.func private @layer(%h: !S1_1_128_256_f32) -> !S1_1_128_256_f32
  func.func private @layer(%h : !h) -> !h {
    // CHECK-NEXT: graph.param @n : !R_256_f32
    %n = graph.param @n : !row
    // CHECK-NEXT: graph.rms_norm {{.*}} : !S1_1_128_256_f32
    %x = graph.rms_norm %h, %n eps 1.0e-05 : !h
    %q = graph.param @q : tensor<64x256xf32>
    // A scale of all is everywhere.
    // CHECK: %o = graph.param @s : !R_f32
    // CHECK-NEXT: %k = graph.linear {{.*}} scale %o : !S1_1_128_64_f32
    %o = graph.param @s : tensor<f32>
    %k = graph.linear %x, %q scale %o : tensor<1x128x64xf32>
    // CHECK-NEXT: graph.kv_update @cache %k, %k
    %keys, %values = graph.kv_update @cache %k, %k : tensor<1x1x128x64xf32>, tensor<1x1x128x64xf32>
    %up = graph.param @up : tensor<512x256xf32>
    %down = graph.param @down : tensor<256x512xf32>
    // CHECK: %g = graph.linear {{.*}} : !L8_1_128_512_f32
    %g = graph.linear %x, %up : !wide
    // CHECK-NEXT: %y = graph.gated silu %g, %g : !L8_1_128_512_f32
    %y = graph.gated silu %g, %g : !wide
    // Scaling it by a number leaves it cut.
    // CHECK: %i = graph.reshape %{{.*}} : !R_f32
    // CHECK-NEXT: %d = graph.div %y, %i : !L8_1_128_512_f32
    %t = graph.param @t : tensor<1xf32>
    %i = graph.reshape %t : tensor<f32>
    %d = graph.div %y, %i : !wide
    // CHECK-NEXT: %z = graph.linear {{.*}} : !L4_1_128_256_f32
    %z = graph.linear %d, %down : !h
    // CHECK-NEXT: %s = dist.all_reduce sum %z {{.*}} : !S1_1_128_256_f32
    %s = dist.all_reduce sum %z over [tp] mesh #dist.mesh<tp = 2> : !h
    // CHECK-NEXT: %r = graph.add %h, %s : !S1_1_128_256_f32
    %r = graph.add %h, %s : !h
    func.return %r : !h
  }

  // Without ranks a product of what is cut is spread by a change of placement.
  // CHECK: func.func private @body(%tokens: !H_1_128_i32, %positions: !H_1_128_i32) -> !S1_1_128_256_f32
  func.func private @body(%tokens : tensor<1x128xi32>, %positions : tensor<1x128xi32>) -> !h {
    // CHECK-NEXT: %positions_1 = graph.relayout %positions : !S1_1_128_i32
    %down = graph.param @down : tensor<256x512xf32>
    %up = graph.param @up : tensor<512x256xf32>
    // CHECK: %e = graph.embedding {{.*}} : !S1_1_128_256_f32
    %e = graph.embedding %up, %tokens : !h
    // CHECK-NEXT: %p = graph.reshape %positions_1 : !S1_1_128_1_i32
    %p = graph.reshape %positions : tensor<1x128x1xi32>
    // CHECK-NEXT: graph.cast {{.*}} : !S1_1_128_1_f32
    %c = graph.cast %p : tensor<1x128x1xf32>
    // CHECK-NEXT: %m = graph.mul {{.*}} : !S1_1_128_256_f32
    %m = graph.mul %e, %c : !h
    // CHECK-NEXT: %g = graph.linear {{.*}} : !L8_1_128_512_f32
    %g = graph.linear %m, %up : !wide
    // CHECK-NEXT: %z = graph.linear {{.*}} : !L4_1_128_256_f32
    // CHECK-NEXT: %z_1 = graph.relayout %z : !S1_1_128_256_f32
    %z = graph.linear %g, %down : !h
    // CHECK-NEXT: %r = graph.add %m, %z_1 : !S1_1_128_256_f32
    // CHECK-NEXT: func.return %r
    %r = graph.add %m, %z : !h
    func.return %r : !h
  }

  // The last valid row is found in main memory, then cut as in every head.
  // CHECK: func.func private @head_last(%hidden: !S1_1_128_256_f32) -> !H_1_1_64_f32
  func.func private @head_last(%hidden : !h) -> tensor<1x1x64xf32> {
    // CHECK-NEXT: %hidden_1 = graph.relayout %hidden : !H_1_128_256_f32
    // CHECK-NEXT: %last = graph.select_rows %hidden_1 : !L4_1_1_256_f32
    %last = graph.select_rows %hidden : tensor<1x1x256xf32>
    %n = graph.param @n : !row
    // CHECK: %normed = graph.rms_norm {{.*}} : !L4_1_1_256_f32
    %normed = graph.rms_norm %last, %n eps 1.0e-05 : tensor<1x1x256xf32>
    %q = graph.param @q : tensor<64x256xf32>
    // CHECK: %logits = graph.linear {{.*}} : !L4_1_1_64_f32
    // CHECK-NEXT: %logits_1 = graph.relayout %logits : !H_1_1_64_f32
    %logits = graph.linear %normed, %q : tensor<1x1x64xf32>
    func.return %logits : tensor<1x1x64xf32>
  }
}
