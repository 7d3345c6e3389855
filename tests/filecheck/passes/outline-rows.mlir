// RUN: irc opt %s -p outline-rows,dce | filecheck %s

!flat = tensor<?x?x32xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 32)>>>
!wide = tensor<?x?x64xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 64)>>>
!split = tensor<?x?x4x8xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 4, 8)>>>
!heads = tensor<?x4x?x8xf32, #graph.dims<affine_map<(b, s, c) -> (b, 4, s, 8)>>>
!queries = tensor<?x?x8x8xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 8, 8)>>>
!turned = tensor<?x8x?x8xf32, #graph.dims<affine_map<(b, s, c) -> (b, 8, s, 8)>>>
!table = tensor<?x?x8xf32, #graph.dims<affine_map<(b, s, c) -> (b, s, 8)>>>
!cache = tensor<?x4x?x8xf32, #graph.dims<affine_map<(b, s, c) -> (b, 4, c, 8)>>>
!mask = tensor<?x1x?x?xi1, #graph.dims<affine_map<(b, s, c) -> (b, 1, s, c)>>>

graph.weight @w : tensor<64x64xf32> sources [{file = "a"}]
graph.weight @n : tensor<8xf32> sources [{file = "a"}]
graph.cache_decl @cache layers [0] heads 4 key_size 8 value_size 8 type f32

// CHECK: func.func @attention
func.func @attention(%q : !wide, %k : !flat, %v : !flat, %cos : !table, %m : !mask) -> !wide {
  // What turns keys becomes a body over rows that gives them flat again; which inputs are cut is said by `along`.
  // CHECK-NEXT: %[[K:.*]] = graph.rows(%k_1 : !t_batch_seq_32_f32 = %k along 1, %cos_1 : !t_batch_seq_8_f32 = %cos along 1) along [1] : !t_batch_seq_32_f32 {
  // CHECK-NEXT: graph.reshape %k_1
  // CHECK-NEXT: graph.transpose
  // CHECK-NEXT: %[[R:.*]] = graph.rope %{{.*}}, %cos_1, %cos_1
  // CHECK-NEXT: graph.transpose %[[R]] perm [0, 2, 1, 3]
  // CHECK-NEXT: %[[F:.*]] = graph.reshape {{.*}} : !t_batch_seq_32_f32
  // CHECK-NEXT: graph.yield %[[F]]
  %ks = graph.reshape %k : !split
  %kt = graph.transpose %ks perm [0, 2, 1, 3] : !heads
  %kr = graph.rope %kt, %cos, %cos : !heads
  // Values reach the cache as they come.
  // CHECK: graph.kv_update @cache %[[K]], %v
  %vs = graph.reshape %v : !split
  %vt = graph.transpose %vs perm [0, 2, 1, 3] : !heads
  %keys, %values = graph.kv_update @cache %kr, %vt : !cache, !cache
  // Queries and attention are one body, with the weights that it needs; keys and values come whole, the mask is cut
  // along its own rows.
  // CHECK-NEXT: %y = graph.rows(%q_1 : {{.*}} = %q along 1, {{.*}} = %cos along 1, {{.*}} = %keys, {{.*}} = %values, {{.*}} = %m along 2) along [1] : !t_batch_seq_64_f32 {
  // CHECK-NEXT: graph.reshape %q_1
  // CHECK: graph.param @n
  // CHECK-NEXT: graph.rms_norm
  // CHECK: graph.rope
  // CHECK-NEXT: graph.attention
  // CHECK-NEXT: graph.reshape
  // CHECK-NEXT: graph.yield
  // CHECK-NEXT: } {module = "self_attn"}
  %n = graph.param @n : tensor<8xf32>
  %qs = graph.reshape %q : !queries
  %qn = graph.rms_norm %qs, %n eps 1.0e-06 : !queries
  %qt = graph.transpose %qn perm [0, 2, 1, 3] : !turned
  %qr = graph.rope %qt, %cos, %cos : !turned
  %a = graph.attention %qr, %keys, %values mask %m scale 0.5 : !queries
  %y = graph.reshape %a : !wide {module = "self_attn"}
  // What follows stays outside.
  // CHECK: %z = graph.linear %y
  %w = graph.param @w : tensor<64x64xf32>
  %z = graph.linear %y, %w : !wide
  func.return %z : !wide
}
