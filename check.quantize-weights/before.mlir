!t_batch_seq_128_f32 = tensor<?x?x128xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 128)>>>
!t_batch_1_seq_ctx_i1 = tensor<?x1x?x?xi1, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 1, d1, d2)>>>
!t_batch_seq_32_f32 = tensor<?x?x32xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 32)>>>
!t_batch_seq_64_f32 = tensor<?x?x64xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 64)>>>
!t_batch_seq_2_32_f32 = tensor<?x?x2x32xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 2, 32)>>>
!t_batch_2_seq_32_f32 = tensor<?x2x?x32xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 2, d1, 32)>>>
!t_batch_2_ctx_32_f32 = tensor<?x2x?x32xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 2, d2, 32)>>>
!t_batch_seq_4_32_f32 = tensor<?x?x4x32xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 4, 32)>>>
!t_batch_4_seq_32_f32 = tensor<?x4x?x32xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 4, d1, 32)>>>
!t_batch_seq_344_f32 = tensor<?x?x344xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 344)>>>
!t_batch_seq_i32 = tensor<?x?xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1)>>>
!t_ctx_i32 = tensor<?xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d2)>>>
!t_1_1_1_ctx_i32 = tensor<1x1x1x?xi32, #graph.dims<affine_map<(d0, d1, d2) -> (1, 1, 1, d2)>>>
!t_batch_1_seq_1_i32 = tensor<?x1x?x1xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 1, d1, 1)>>>
!t_batch_seq_1_i32 = tensor<?x?x1xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 1)>>>
!t_batch_seq_1_f32 = tensor<?x?x1xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 1)>>>
!t_batch_seq_1024_f32 = tensor<?x?x1024xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 1024)>>>
builtin.module attributes {npuc.phase = "import", npuc.model_type = "llama", npuc.dtype = "float32", npuc.vocab_size = 1024 : i64, npuc.max_context = 256 : i64} {
  graph.weight @"model.layers.{}.input_layernorm.weight" : tensor<128xf32> layers [0, 1, 2, 3] sources [{file = "model.safetensors", offset = 528328 : i64, bytes = 512 : i64, dtype = "F32", shape = array<i64: 128>}, {file = "model.safetensors", offset = 1254344 : i64, bytes = 512 : i64, dtype = "F32", shape = array<i64: 128>}, {file = "model.safetensors", offset = 1980360 : i64, bytes = 512 : i64, dtype = "F32", shape = array<i64: 128>}, {file = "model.safetensors", offset = 2706376 : i64, bytes = 512 : i64, dtype = "F32", shape = array<i64: 128>}]
  graph.weight @"model.layers.{}.self_attn.q_proj.weight" : tensor<128x128xf32> layers [0, 1, 2, 3] sources [{file = "model.safetensors", offset = 1156040 : i64, bytes = 65536 : i64, dtype = "F32", shape = array<i64: 128, 128>}, {file = "model.safetensors", offset = 1882056 : i64, bytes = 65536 : i64, dtype = "F32", shape = array<i64: 128, 128>}, {file = "model.safetensors", offset = 2608072 : i64, bytes = 65536 : i64, dtype = "F32", shape = array<i64: 128, 128>}, {file = "model.safetensors", offset = 3334088 : i64, bytes = 65536 : i64, dtype = "F32", shape = array<i64: 128, 128>}]
  graph.weight @"model.layers.{}.self_attn.k_proj.weight" : tensor<64x128xf32> layers [0, 1, 2, 3] sources [{file = "model.safetensors", offset = 1057736 : i64, bytes = 32768 : i64, dtype = "F32", shape = array<i64: 64, 128>}, {file = "model.safetensors", offset = 1783752 : i64, bytes = 32768 : i64, dtype = "F32", shape = array<i64: 64, 128>}, {file = "model.safetensors", offset = 2509768 : i64, bytes = 32768 : i64, dtype = "F32", shape = array<i64: 64, 128>}, {file = "model.safetensors", offset = 3235784 : i64, bytes = 32768 : i64, dtype = "F32", shape = array<i64: 64, 128>}]
  graph.weight @"model.layers.{}.self_attn.v_proj.weight" : tensor<64x128xf32> layers [0, 1, 2, 3] sources [{file = "model.safetensors", offset = 1221576 : i64, bytes = 32768 : i64, dtype = "F32", shape = array<i64: 64, 128>}, {file = "model.safetensors", offset = 1947592 : i64, bytes = 32768 : i64, dtype = "F32", shape = array<i64: 64, 128>}, {file = "model.safetensors", offset = 2673608 : i64, bytes = 32768 : i64, dtype = "F32", shape = array<i64: 64, 128>}, {file = "model.safetensors", offset = 3399624 : i64, bytes = 32768 : i64, dtype = "F32", shape = array<i64: 64, 128>}]
  graph.weight @"model.layers.{}.self_attn.o_proj.weight" : tensor<128x128xf32> layers [0, 1, 2, 3] sources [{file = "model.safetensors", offset = 1090504 : i64, bytes = 65536 : i64, dtype = "F32", shape = array<i64: 128, 128>}, {file = "model.safetensors", offset = 1816520 : i64, bytes = 65536 : i64, dtype = "F32", shape = array<i64: 128, 128>}, {file = "model.safetensors", offset = 2542536 : i64, bytes = 65536 : i64, dtype = "F32", shape = array<i64: 128, 128>}, {file = "model.safetensors", offset = 3268552 : i64, bytes = 65536 : i64, dtype = "F32", shape = array<i64: 128, 128>}]
  graph.weight @"model.layers.{}.post_attention_layernorm.weight" : tensor<128xf32> layers [0, 1, 2, 3] sources [{file = "model.safetensors", offset = 1057224 : i64, bytes = 512 : i64, dtype = "F32", shape = array<i64: 128>}, {file = "model.safetensors", offset = 1783240 : i64, bytes = 512 : i64, dtype = "F32", shape = array<i64: 128>}, {file = "model.safetensors", offset = 2509256 : i64, bytes = 512 : i64, dtype = "F32", shape = array<i64: 128>}, {file = "model.safetensors", offset = 3235272 : i64, bytes = 512 : i64, dtype = "F32", shape = array<i64: 128>}]
  graph.weight @"model.layers.{}.mlp.gate_proj.weight" : tensor<344x128xf32> layers [0, 1, 2, 3] sources [{file = "model.safetensors", offset = 704968 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 344, 128>}, {file = "model.safetensors", offset = 1430984 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 344, 128>}, {file = "model.safetensors", offset = 2157000 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 344, 128>}, {file = "model.safetensors", offset = 2883016 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 344, 128>}]
  graph.weight @"model.layers.{}.mlp.up_proj.weight" : tensor<344x128xf32> layers [0, 1, 2, 3] sources [{file = "model.safetensors", offset = 881096 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 344, 128>}, {file = "model.safetensors", offset = 1607112 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 344, 128>}, {file = "model.safetensors", offset = 2333128 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 344, 128>}, {file = "model.safetensors", offset = 3059144 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 344, 128>}]
  graph.weight @"model.layers.{}.mlp.down_proj.weight" : tensor<128x344xf32> layers [0, 1, 2, 3] sources [{file = "model.safetensors", offset = 528840 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 128, 344>}, {file = "model.safetensors", offset = 1254856 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 128, 344>}, {file = "model.safetensors", offset = 1980872 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 128, 344>}, {file = "model.safetensors", offset = 2706888 : i64, bytes = 176128 : i64, dtype = "F32", shape = array<i64: 128, 344>}]
  graph.weight @model.norm.weight : tensor<128xf32> sources [{file = "model.safetensors", offset = 3432392 : i64, bytes = 512 : i64, dtype = "F32", shape = array<i64: 128>}]
  graph.weight @model.embed_tokens.weight : tensor<1024x128xf32> sources [{file = "model.safetensors", offset = 4040 : i64, bytes = 524288 : i64, dtype = "F32", shape = array<i64: 1024, 128>}]
  graph.cache_decl @cache0 layers [0, 1, 2, 3] heads 2 key_size 32 value_size 32 type f32
  func.func private @layer_kind0(%hidden_states: !t_batch_seq_128_f32, %attention_mask: !t_batch_1_seq_ctx_i1, %position_embeddings: !t_batch_seq_32_f32, %position_embeddings_1: !t_batch_seq_32_f32) -> !t_batch_seq_128_f32 {
    %input_layernorm_weight = graph.param @"model.layers.{}.input_layernorm.weight" : tensor<128xf32> {module = "model.layers.{}.input_layernorm"}
    %mul = graph.rms_norm %hidden_states, %input_layernorm_weight eps 1.0e-05 : !t_batch_seq_128_f32 {module = "model.layers.{}.input_layernorm"}
    %q_proj_weight = graph.param @"model.layers.{}.self_attn.q_proj.weight" : tensor<128x128xf32> {module = "model.layers.{}.self_attn.q_proj"}
    %linear = graph.linear %mul, %q_proj_weight : !t_batch_seq_128_f32 {module = "model.layers.{}.self_attn.q_proj"}
    %k_proj_weight = graph.param @"model.layers.{}.self_attn.k_proj.weight" : tensor<64x128xf32> {module = "model.layers.{}.self_attn.k_proj"}
    %linear_1 = graph.linear %mul, %k_proj_weight : !t_batch_seq_64_f32 {module = "model.layers.{}.self_attn.k_proj"}
    %v_proj_weight = graph.param @"model.layers.{}.self_attn.v_proj.weight" : tensor<64x128xf32> {module = "model.layers.{}.self_attn.v_proj"}
    %linear_2 = graph.linear %mul, %v_proj_weight : !t_batch_seq_64_f32 {module = "model.layers.{}.self_attn.v_proj"}
    %add = graph.rows(%linear_3 : !t_batch_seq_64_f32 = %linear_1 along 1, %position_embeddings_2 : !t_batch_seq_32_f32 = %position_embeddings along 1, %position_embeddings_3 : !t_batch_seq_32_f32 = %position_embeddings_1 along 1) along [1] : !t_batch_seq_64_f32 {
      %view = graph.reshape %linear_3 : !t_batch_seq_2_32_f32 {module = "model.layers.{}.self_attn"}
      %permute = graph.transpose %view perm [0, 2, 1, 3] : !t_batch_2_seq_32_f32 {module = "model.layers.{}.self_attn"}
      %add_1 = graph.rope %permute, %position_embeddings_2, %position_embeddings_3 : !t_batch_2_seq_32_f32 {module = "model.layers.{}.self_attn"}
      %add_2 = graph.transpose %add_1 perm [0, 2, 1, 3] : !t_batch_seq_2_32_f32 {module = "model.layers.{}.self_attn"}
      %add_3 = graph.reshape %add_2 : !t_batch_seq_64_f32 {module = "model.layers.{}.self_attn"}
      graph.yield %add_3
    } {module = "model.layers.{}.self_attn"}
    %keys, %values = graph.kv_update @cache0 %add, %linear_2 : !t_batch_2_ctx_32_f32, !t_batch_2_ctx_32_f32 {module = "model.layers.{}.self_attn"}
    %view_1 = graph.rows(%linear_4 : !t_batch_seq_128_f32 = %linear along 1, %position_embeddings_4 : !t_batch_seq_32_f32 = %position_embeddings along 1, %position_embeddings_5 : !t_batch_seq_32_f32 = %position_embeddings_1 along 1, %keys_1 : !t_batch_2_ctx_32_f32 = %keys, %values_1 : !t_batch_2_ctx_32_f32 = %values, %attention_mask_1 : !t_batch_1_seq_ctx_i1 = %attention_mask along 2) along [1] : !t_batch_seq_128_f32 {
      %view_2 = graph.reshape %linear_4 : !t_batch_seq_4_32_f32 {module = "model.layers.{}.self_attn"}
      %permute_1 = graph.transpose %view_2 perm [0, 2, 1, 3] : !t_batch_4_seq_32_f32 {module = "model.layers.{}.self_attn"}
      %add_4 = graph.rope %permute_1, %position_embeddings_4, %position_embeddings_5 : !t_batch_4_seq_32_f32 {module = "model.layers.{}.self_attn"}
      %attention = graph.attention %add_4, %keys_1, %values_1 mask %attention_mask_1 scale 0.17677669 : !t_batch_seq_4_32_f32 {module = "model.layers.{}.self_attn"}
      %view_3 = graph.reshape %attention : !t_batch_seq_128_f32 {module = "model.layers.{}.self_attn"}
      graph.yield %view_3
    } {module = "model.layers.{}.self_attn"}
    %o_proj_weight = graph.param @"model.layers.{}.self_attn.o_proj.weight" : tensor<128x128xf32> {module = "model.layers.{}.self_attn.o_proj"}
    %linear_5 = graph.linear %view_1, %o_proj_weight : !t_batch_seq_128_f32 {module = "model.layers.{}.self_attn.o_proj"}
    %add_5 = graph.add %hidden_states, %linear_5 : !t_batch_seq_128_f32 {module = "model.layers.{}"}
    %post_attention_layernorm_weight = graph.param @"model.layers.{}.post_attention_layernorm.weight" : tensor<128xf32> {module = "model.layers.{}.post_attention_layernorm"}
    %mul_1 = graph.rms_norm %add_5, %post_attention_layernorm_weight eps 1.0e-05 : !t_batch_seq_128_f32 {module = "model.layers.{}.post_attention_layernorm"}
    %gate_proj_weight = graph.param @"model.layers.{}.mlp.gate_proj.weight" : tensor<344x128xf32> {module = "model.layers.{}.mlp.gate_proj"}
    %linear_6 = graph.linear %mul_1, %gate_proj_weight : !t_batch_seq_344_f32 {module = "model.layers.{}.mlp.gate_proj"}
    %up_proj_weight = graph.param @"model.layers.{}.mlp.up_proj.weight" : tensor<344x128xf32> {module = "model.layers.{}.mlp.up_proj"}
    %linear_7 = graph.linear %mul_1, %up_proj_weight : !t_batch_seq_344_f32 {module = "model.layers.{}.mlp.up_proj"}
    %mul_2 = graph.gated silu %linear_6, %linear_7 : !t_batch_seq_344_f32 {module = "model.layers.{}.mlp"}
    %down_proj_weight = graph.param @"model.layers.{}.mlp.down_proj.weight" : tensor<128x344xf32> {module = "model.layers.{}.mlp.down_proj"}
    %linear_8 = graph.linear %mul_2, %down_proj_weight : !t_batch_seq_128_f32 {module = "model.layers.{}.mlp.down_proj"}
    %add_6 = graph.add %add_5, %linear_8 : !t_batch_seq_128_f32 {module = "model.layers.{}"}
    func.return %add_6 : !t_batch_seq_128_f32
  }
  func.func public @main(%tokens: !t_batch_seq_i32, %positions: !t_batch_seq_i32) -> !t_batch_seq_1024_f32 {
    %norm_weight = graph.param @model.norm.weight : tensor<128xf32> {module = "model.norm"}
    %embed_tokens_weight = graph.param @model.embed_tokens.weight : tensor<1024x128xf32> {module = "model.embed_tokens"}
    %embedding = graph.embedding %embed_tokens_weight, %tokens : !t_batch_seq_128_f32 {module = "model.embed_tokens"}
    %arange = graph.iota dim 0 : !t_ctx_i32 {module = "model"}
    %le = graph.reshape %arange : !t_1_1_1_ctx_i32 {module = "model"}
    %le_1 = graph.reshape %positions : !t_batch_1_seq_1_i32 {module = "model"}
    %le_2 = graph.le %le, %le_1 : !t_batch_1_seq_ctx_i1 {module = "model"}
    %unsqueeze = graph.reshape %positions : !t_batch_seq_1_i32 {module = "model.rotary_emb"}
    %to_copy = graph.cast %unsqueeze : !t_batch_seq_1_f32 {module = "model.rotary_emb"}
    %mul = graph.constant dense<[1.000000e+00, 0.562341332, 0.316227764, 0.177827939, 1.000000e-01, 0.0562341288, 0.0316227786, 0.0177827943, 1.000000e-02, 0.00562341325, 0.00316227786, 0.00177827943, 1.000000e-03, 0.000562341302, 0.000316227786, 0.00017782794, 1.000000e+00, 0.562341332, 0.316227764, 0.177827939, 1.000000e-01, 0.0562341288, 0.0316227786, 0.0177827943, 1.000000e-02, 0.00562341325, 0.00316227786, 0.00177827943, 1.000000e-03, 0.000562341302, 0.000316227786, 0.00017782794]> : tensor<32xf32> {module = "model.rotary_emb"}
    %cat = graph.mul %to_copy, %mul : !t_batch_seq_32_f32 {module = "model.rotary_emb"}
    %cos = graph.cos %cat : !t_batch_seq_32_f32 {module = "model.rotary_emb"}
    %sin = graph.sin %cat : !t_batch_seq_32_f32 {module = "model.rotary_emb"}
    %layer = graph.layers @layer_kind0 [0, 1, 2, 3] %embedding extras %le_2, %cos, %sin : !t_batch_seq_128_f32 {module = "model.layers.{}"}
    %mul_1 = graph.rms_norm %layer, %norm_weight eps 1.0e-05 : !t_batch_seq_128_f32 {module = "model.norm"}
    %select_rows = graph.select_rows %mul_1 : !t_batch_seq_128_f32 {module = "lm_head"}
    %lm_head_weight = graph.param @model.embed_tokens.weight : tensor<1024x128xf32> {module = "lm_head"}
    %linear = graph.linear %select_rows, %lm_head_weight : !t_batch_seq_1024_f32 {module = "lm_head"}
    func.return %linear : !t_batch_seq_1024_f32
  }
}
