// RUN: irc opt %s -p 'spread-rows{target="rngd"}' | filecheck %s

graph.weight @w : tensor<64x64xf32> sources [{file = "a"}]
graph.cache_decl @cache layers [0] heads 1 key_size 64 value_size 64 type f32

// 128 rows are two for each of 64 slices: tiles of rows are no longer needed.
// CHECK: builtin.module @prefill_1x128 attributes {{{.*}}npuc.spread}
builtin.module @prefill_1x128 attributes {npuc.bucket = {kind = "prefill", batch = 1 : i64, new_tokens = 128 : i64, length = 128 : i64}} {
  // CHECK: func.func private @layer
  func.func private @layer(%h : tensor<1x128x64xf32>, %c : tensor<1x128x64xf32>) -> tensor<1x128x64xf32> {
    %w = graph.param @w : tensor<64x64xf32>
    %q = graph.linear %h, %w : tensor<1x128x64xf32>
    // CHECK: %r = graph.rows(%x : tensor<1x128x64xf32> = %q along 1, %t : tensor<1x128x64xf32> = %c along 1) along [1] : tensor<1x128x64xf32> {
    %r = graph.rows(%x : tensor<1x16x64xf32> = %q along 1, %t : tensor<1x16x64xf32> = %c along 1) along [1] : tensor<1x128x64xf32> {
      // CHECK-NEXT: graph.reshape {{.*}} : tensor<1x128x1x64xf32>
      // CHECK-NEXT: graph.transpose {{.*}} : tensor<1x1x128x64xf32>
      // CHECK-NEXT: graph.rope {{.*}} : tensor<1x1x128x64xf32>
      %a = graph.reshape %x : tensor<1x16x1x64xf32>
      %b = graph.transpose %a perm [0, 2, 1, 3] : tensor<1x1x16x64xf32>
      %d = graph.rope %b, %t, %t : tensor<1x1x16x64xf32>
      %e = graph.reshape %d : tensor<1x16x64xf32>
      graph.yield %e
    }
    %z = graph.add %h, %r : tensor<1x128x64xf32>
    func.return %z : tensor<1x128x64xf32>
  }
}

// 96 rows cannot be dealt evenly.
// CHECK: builtin.module @prefill_1x96
// CHECK-NOT: npuc.spread
builtin.module @prefill_1x96 attributes {npuc.bucket = {kind = "prefill", batch = 1 : i64, new_tokens = 96 : i64, length = 128 : i64}} {
  func.func private @layer(%h : tensor<1x96x64xf32>) -> tensor<1x96x64xf32> {
    %z = graph.add %h, %h : tensor<1x96x64xf32>
    func.return %z : tensor<1x96x64xf32>
  }
}

// A sum over all rows is for no slice alone.
// CHECK: builtin.module @prefill_1x192
// CHECK-NOT: npuc.spread
builtin.module @prefill_1x192 attributes {npuc.bucket = {kind = "prefill", batch = 1 : i64, new_tokens = 192 : i64, length = 192 : i64}} {
  func.func private @layer(%h : tensor<1x192x64xf32>) -> tensor<1x192x64xf32> {
    %s = graph.reduce sum %h dims [1] keepdims : tensor<1x1x64xf32>
    %z = graph.add %h, %s : tensor<1x192x64xf32>
    func.return %z : tensor<1x192x64xf32>
  }
}
