// RUN: irc opt %s -p 'assign-layouts{target="rngd"}' | filecheck %s

graph.weight @w : tensor<96x64xf32> sources [{file = "a"}]
graph.weight @v : tensor<96xf32> sources [{file = "a"}]
graph.weight @n : tensor<64xf32> sources [{file = "a"}]
graph.weight @e : tensor<32x64xf32> sources [{file = "a"}]
graph.cache_decl @cache layers [0] heads 2 key_size 32 value_size 32 type f32

builtin.module @decode_2x16 attributes {npuc.bucket = {kind = "decode", batch = 2 : i64, new_tokens = 1 : i64, length = 16 : i64}} {
  // Norms and sums work on slices, shape changes and rotation on replicated tensors; a value is converted once.
  // CHECK: func.func private @layer(%h: !L4_2_1_64_f32, %c: !R_2_1_8_f32) -> !L4_2_1_64_f32 {
  func.func private @layer(%h : tensor<2x1x64xf32>, %c : tensor<2x1x8xf32>) -> tensor<2x1x64xf32> {
    // CHECK-NEXT: %n = graph.param @n : !L4_64_f32
    %n = graph.param @n : tensor<64xf32>
    // CHECK-NEXT: %x = graph.rms_norm %h, %n eps 1.0e-05 : !L4_2_1_64_f32
    %x = graph.rms_norm %h, %n eps 1.0e-05 : tensor<2x1x64xf32>
    // CHECK-NEXT: %x_1 = graph.relayout %x : !R_2_1_64_f32 {module = "attention"}
    // CHECK-NEXT: %q = graph.reshape %x_1 : !R_2_1_8_8_f32
    %q = graph.reshape %x : tensor<2x1x8x8xf32> {module = "attention"}
    // CHECK-NEXT: %t = graph.transpose %q perm [0, 2, 1, 3] : !R_2_8_1_8_f32
    %t = graph.transpose %q perm [0, 2, 1, 3] : tensor<2x8x1x8xf32>
    // CHECK-NEXT: %r = graph.rope %t, %c, %c : !R_2_8_1_8_f32
    %r = graph.rope %t, %c, %c : tensor<2x8x1x8xf32>
    %b = graph.transpose %r perm [0, 2, 1, 3] : tensor<2x1x8x8xf32>
    // CHECK: %y = graph.reshape {{.*}} : !R_2_1_64_f32
    %y = graph.reshape %b : tensor<2x1x64xf32>
    // CHECK-NEXT: %y_1 = graph.relayout %y : !L4_2_1_64_f32
    // CHECK-NEXT: %z = graph.add %h, %y_1 : !L4_2_1_64_f32
    %z = graph.add %h, %y : tensor<2x1x64xf32>
    // CHECK-NEXT: func.return %z : !L4_2_1_64_f32
    func.return %z : tensor<2x1x64xf32>
  }

  // Attention reads the cache from main memory, its query replicated, its mask cut along the keys.
  // CHECK: func.func private @attend(%q: !L4_2_4_1_32_f32, %k: !R_2_2_1_32_f32, %m: !L4_2_1_1_16_i1)
  func.func private @attend(%q : tensor<2x4x1x32xf32>, %k : tensor<2x2x1x32xf32>, %m : tensor<2x1x1x16xi1>) -> tensor<2x4x1x32xf32> {
    // CHECK-NEXT: %q_1 = graph.relayout %q : !R_2_4_1_32_f32
    // CHECK-NEXT: %keys, %values = graph.kv_update @cache %k, %k : !H_2_2_16_32_f32, !H_2_2_16_32_f32
    %keys, %values = graph.kv_update @cache %k, %k : tensor<2x2x16x32xf32>, tensor<2x2x16x32xf32>
    // CHECK-NEXT: %a = graph.attention %q_1, %keys, %values mask %m scale 1.0 : !R_2_1_4_32_f32
    %a = graph.attention %q, %keys, %values mask %m scale 1.0 : tensor<2x1x4x32xf32>
    %t = graph.transpose %a perm [0, 2, 1, 3] : tensor<2x4x1x32xf32>
    func.return %t : tensor<2x4x1x32xf32>
  }

  // Inputs lie in main memory; weights and indices take the placement that their users ask for.
  // CHECK: func.func private @body(%tokens: !H_2_1_i32, %positions: !H_2_1_i32) -> !L4_2_1_64_f32
  func.func private @body(%tokens : tensor<2x1xi32>, %positions : tensor<2x1xi32>) -> tensor<2x1x64xf32> {
    // CHECK-NEXT: %positions_1 = graph.relayout %positions : !R_2_1_i32
    // CHECK-NEXT: %e = graph.param @e : tensor<32x64xf32>
    %e = graph.param @e : tensor<32x64xf32>
    // CHECK-NEXT: %x = graph.embedding %e, %tokens : !L4_2_1_64_f32
    %x = graph.embedding %e, %tokens : tensor<2x1x64xf32>
    // CHECK-NEXT: %p = graph.reshape %positions_1 : !R_2_1_1_i32
    %p = graph.reshape %positions : tensor<2x1x1xi32>
    // CHECK-NEXT: %i = graph.iota dim 0 : !R_8_i32
    %i = graph.iota dim 0 : tensor<8xi32>
    // CHECK-NEXT: %m = graph.mul %p, %i : !R_2_1_8_i32
    %m = graph.mul %p, %i : tensor<2x1x8xi32>
    %c = graph.cast %m : tensor<2x1x8xf32>
    // CHECK: %y = graph.layers @layer [0] %x extras %c : !L4_2_1_64_f32
    %y = graph.layers @layer [0] %x extras %c : tensor<2x1x64xf32>
    func.return %y : tensor<2x1x64xf32>
  }

  // Logits are computed in slices and stored to main memory.
  // CHECK: func.func private @head_all(%hidden: !L4_2_1_64_f32) -> !H_2_1_96_f32
  func.func private @head_all(%hidden : tensor<2x1x64xf32>) -> tensor<2x1x96xf32> {
    %s = graph.select_rows %hidden : tensor<2x1x64xf32>
    %w = graph.param @w : tensor<96x64xf32>
    // CHECK: %v = graph.param @v : !L4_96_f32
    %v = graph.param @v : tensor<96xf32>
    // CHECK-NEXT: %l = graph.linear %s, %w bias %v : !L4_2_1_96_f32
    %l = graph.linear %s, %w bias %v : tensor<2x1x96xf32>
    // CHECK-NEXT: %l_1 = graph.relayout %l : !H_2_1_96_f32
    // CHECK-NEXT: func.return %l_1
    func.return %l : tensor<2x1x96xf32>
  }

  // Entries only hand on what body and head say.
  // CHECK: func.func @all(%tokens: !H_2_1_i32, %positions: !H_2_1_i32) -> !H_2_1_96_f32
  func.func @all(%tokens : tensor<2x1xi32>, %positions : tensor<2x1xi32>) -> tensor<2x1x96xf32> {
    // CHECK-NEXT: func.call @body(%tokens, %positions) : (!H_2_1_i32, !H_2_1_i32) -> !L4_2_1_64_f32
    %h = func.call @body(%tokens, %positions) : (tensor<2x1xi32>, tensor<2x1xi32>) -> tensor<2x1x64xf32>
    %l = func.call @head_all(%h) : (tensor<2x1x64xf32>) -> tensor<2x1x96xf32>
    func.return %l : tensor<2x1x96xf32>
  }
}
