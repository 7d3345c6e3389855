!t_batch_seq_64_f32 = tensor<?x?x64xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 64)>>>
!t_batch_1_seq_ctx_i1 = tensor<?x1x?x?xi1, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 1, d1, d2)>>>
!t_batch_seq_8_f32 = tensor<?x?x8xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 8)>>>
!t_batch_seq_32_f32 = tensor<?x?x32xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 32)>>>
!t_batch_seq_4_8_f32 = tensor<?x?x4x8xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 4, 8)>>>
!t_batch_4_seq_8_f32 = tensor<?x4x?x8xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 4, d1, 8)>>>
!t_batch_4_ctx_8_f32 = tensor<?x4x?x8xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 4, d2, 8)>>>
!t_batch_seq_8_8_f32 = tensor<?x?x8x8xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 8, 8)>>>
!t_batch_8_seq_8_f32 = tensor<?x8x?x8xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 8, d1, 8)>>>
!t_batch_seq_172_f32 = tensor<?x?x172xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 172)>>>
!t_batch_seq_i32 = tensor<?x?xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1)>>>
!t_ctx_i32 = tensor<?xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d2)>>>
!t_1_1_1_ctx_i32 = tensor<1x1x1x?xi32, #graph.dims<affine_map<(d0, d1, d2) -> (1, 1, 1, d2)>>>
!t_batch_1_seq_1_i32 = tensor<?x1x?x1xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 1, d1, 1)>>>
!t_batch_seq_1_i32 = tensor<?x?x1xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 1)>>>
!t_batch_seq_1_f32 = tensor<?x?x1xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 1)>>>
!t_batch_seq_512_f32 = tensor<?x?x512xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 512)>>>
builtin.module attributes {npuc.phase = "optimize", npuc.model_type = "llama", npuc.dtype = "float32", npuc.vocab_size = 512 : i64, npuc.max_context = 512 : i64} {
  graph.weight @"model.layers.{}.input_layernorm.weight" : tensor<64xf32> layers [0, 1, 2, 3, 4] sources [{file = "model.safetensors", offset = 135936 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}, {file = "model.safetensors", offset = 317696 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}, {file = "model.safetensors", offset = 499456 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}, {file = "model.safetensors", offset = 681216 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}, {file = "model.safetensors", offset = 862976 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}]
  graph.weight @"model.layers.{}.self_attn.q_proj.weight" : tensor<64x64xf32> layers [0, 1, 2, 3, 4] sources [{file = "model.safetensors", offset = 293120 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}, {file = "model.safetensors", offset = 474880 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}, {file = "model.safetensors", offset = 656640 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}, {file = "model.safetensors", offset = 838400 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}, {file = "model.safetensors", offset = 1020160 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}]
  graph.weight @"model.layers.{}.self_attn.k_proj.weight" : tensor<32x64xf32> layers [0, 1, 2, 3, 4] sources [{file = "model.safetensors", offset = 268544 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}, {file = "model.safetensors", offset = 450304 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}, {file = "model.safetensors", offset = 632064 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}, {file = "model.safetensors", offset = 813824 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}, {file = "model.safetensors", offset = 995584 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}]
  graph.weight @"model.layers.{}.self_attn.v_proj.weight" : tensor<32x64xf32> layers [0, 1, 2, 3, 4] sources [{file = "model.safetensors", offset = 309504 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}, {file = "model.safetensors", offset = 491264 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}, {file = "model.safetensors", offset = 673024 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}, {file = "model.safetensors", offset = 854784 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}, {file = "model.safetensors", offset = 1036544 : i64, bytes = 8192 : i64, dtype = "F32", shape = array<i64: 32, 64>}]
  graph.weight @"model.layers.{}.self_attn.o_proj.weight" : tensor<64x64xf32> layers [0, 1, 2, 3, 4] sources [{file = "model.safetensors", offset = 276736 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}, {file = "model.safetensors", offset = 458496 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}, {file = "model.safetensors", offset = 640256 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}, {file = "model.safetensors", offset = 822016 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}, {file = "model.safetensors", offset = 1003776 : i64, bytes = 16384 : i64, dtype = "F32", shape = array<i64: 64, 64>}]
  graph.weight @"model.layers.{}.post_attention_layernorm.weight" : tensor<64xf32> layers [0, 1, 2, 3, 4] sources [{file = "model.safetensors", offset = 268288 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}, {file = "model.safetensors", offset = 450048 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}, {file = "model.safetensors", offset = 631808 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}, {file = "model.safetensors", offset = 813568 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}, {file = "model.safetensors", offset = 995328 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}]
  graph.weight @"model.layers.{}.mlp.gate_proj.weight" : tensor<172x64xf32> layers [0, 1, 2, 3, 4] sources [{file = "model.safetensors", offset = 180224 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}, {file = "model.safetensors", offset = 361984 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}, {file = "model.safetensors", offset = 543744 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}, {file = "model.safetensors", offset = 725504 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}, {file = "model.safetensors", offset = 907264 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}]
  graph.weight @"model.layers.{}.mlp.up_proj.weight" : tensor<172x64xf32> layers [0, 1, 2, 3, 4] sources [{file = "model.safetensors", offset = 224256 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}, {file = "model.safetensors", offset = 406016 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}, {file = "model.safetensors", offset = 587776 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}, {file = "model.safetensors", offset = 769536 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}, {file = "model.safetensors", offset = 951296 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 172, 64>}]
  graph.weight @"model.layers.{}.mlp.down_proj.weight" : tensor<64x172xf32> layers [0, 1, 2, 3, 4] sources [{file = "model.safetensors", offset = 136192 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 64, 172>}, {file = "model.safetensors", offset = 317952 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 64, 172>}, {file = "model.safetensors", offset = 499712 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 64, 172>}, {file = "model.safetensors", offset = 681472 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 64, 172>}, {file = "model.safetensors", offset = 863232 : i64, bytes = 44032 : i64, dtype = "F32", shape = array<i64: 64, 172>}]
  graph.weight @model.norm.weight : tensor<64xf32> sources [{file = "model.safetensors", offset = 1044736 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 64>}]
  graph.weight @model.embed_tokens.weight : tensor<512x64xf32> sources [{file = "model.safetensors", offset = 4864 : i64, bytes = 131072 : i64, dtype = "F32", shape = array<i64: 512, 64>}]
  graph.cache_decl @cache0 layers [0, 1, 2, 3, 4] heads 4 key_size 8 value_size 8 type f32
  func.func private @layer_kind0(%hidden_states: !t_batch_seq_64_f32, %attention_mask: !t_batch_1_seq_ctx_i1, %position_embeddings: !t_batch_seq_8_f32, %position_embeddings_1: !t_batch_seq_8_f32) -> !t_batch_seq_64_f32 {
    %input_layernorm_weight = graph.param @"model.layers.{}.input_layernorm.weight" : tensor<64xf32> {module = "model.layers.{}.input_layernorm"}
    %mul = graph.rms_norm %hidden_states, %input_layernorm_weight eps 1.0e-05 : !t_batch_seq_64_f32 {module = "model.layers.{}.input_layernorm"}
    %q_proj_weight = graph.param @"model.layers.{}.self_attn.q_proj.weight" : tensor<64x64xf32> {module = "model.layers.{}.self_attn.q_proj"}
    %linear = graph.linear %mul, %q_proj_weight : !t_batch_seq_64_f32 {module = "model.layers.{}.self_attn.q_proj"}
    %k_proj_weight = graph.param @"model.layers.{}.self_attn.k_proj.weight" : tensor<32x64xf32> {module = "model.layers.{}.self_attn.k_proj"}
    %linear_1 = graph.linear %mul, %k_proj_weight : !t_batch_seq_32_f32 {module = "model.layers.{}.self_attn.k_proj"}
    %v_proj_weight = graph.param @"model.layers.{}.self_attn.v_proj.weight" : tensor<32x64xf32> {module = "model.layers.{}.self_attn.v_proj"}
    %linear_2 = graph.linear %mul, %v_proj_weight : !t_batch_seq_32_f32 {module = "model.layers.{}.self_attn.v_proj"}
    %add = graph.rows(%linear_3 : !t_batch_seq_32_f32 = %linear_1 along 1, %position_embeddings_2 : !t_batch_seq_8_f32 = %position_embeddings along 1, %position_embeddings_3 : !t_batch_seq_8_f32 = %position_embeddings_1 along 1) along [1] : !t_batch_seq_32_f32 {
      %view = graph.reshape %linear_3 : !t_batch_seq_4_8_f32 {module = "model.layers.{}.self_attn"}
      %permute = graph.transpose %view perm [0, 2, 1, 3] : !t_batch_4_seq_8_f32 {module = "model.layers.{}.self_attn"}
      %add_1 = graph.rope %permute, %position_embeddings_2, %position_embeddings_3 : !t_batch_4_seq_8_f32 {module = "model.layers.{}.self_attn"}
      %add_2 = graph.transpose %add_1 perm [0, 2, 1, 3] : !t_batch_seq_4_8_f32 {module = "model.layers.{}.self_attn"}
      %add_3 = graph.reshape %add_2 : !t_batch_seq_32_f32 {module = "model.layers.{}.self_attn"}
      graph.yield %add_3
    } {module = "model.layers.{}.self_attn"}
    %keys, %values = graph.kv_update @cache0 %add, %linear_2 : !t_batch_4_ctx_8_f32, !t_batch_4_ctx_8_f32 {module = "model.layers.{}.self_attn"}
    %view_1 = graph.rows(%linear_4 : !t_batch_seq_64_f32 = %linear along 1, %position_embeddings_4 : !t_batch_seq_8_f32 = %position_embeddings along 1, %position_embeddings_5 : !t_batch_seq_8_f32 = %position_embeddings_1 along 1, %keys_1 : !t_batch_4_ctx_8_f32 = %keys, %values_1 : !t_batch_4_ctx_8_f32 = %values, %attention_mask_1 : !t_batch_1_seq_ctx_i1 = %attention_mask along 2) along [1] : !t_batch_seq_64_f32 {
      %view_2 = graph.reshape %linear_4 : !t_batch_seq_8_8_f32 {module = "model.layers.{}.self_attn"}
      %permute_1 = graph.transpose %view_2 perm [0, 2, 1, 3] : !t_batch_8_seq_8_f32 {module = "model.layers.{}.self_attn"}
      %add_4 = graph.rope %permute_1, %position_embeddings_4, %position_embeddings_5 : !t_batch_8_seq_8_f32 {module = "model.layers.{}.self_attn"}
      %attention = graph.attention %add_4, %keys_1, %values_1 mask %attention_mask_1 scale 0.35355338 : !t_batch_seq_8_8_f32 {module = "model.layers.{}.self_attn"}
      %view_3 = graph.reshape %attention : !t_batch_seq_64_f32 {module = "model.layers.{}.self_attn"}
      graph.yield %view_3
    } {module = "model.layers.{}.self_attn"}
    %o_proj_weight = graph.param @"model.layers.{}.self_attn.o_proj.weight" : tensor<64x64xf32> {module = "model.layers.{}.self_attn.o_proj"}
    %linear_5 = graph.linear %view_1, %o_proj_weight : !t_batch_seq_64_f32 {module = "model.layers.{}.self_attn.o_proj"}
    %add_5 = graph.add %hidden_states, %linear_5 : !t_batch_seq_64_f32 {module = "model.layers.{}"}
    %post_attention_layernorm_weight = graph.param @"model.layers.{}.post_attention_layernorm.weight" : tensor<64xf32> {module = "model.layers.{}.post_attention_layernorm"}
    %mul_1 = graph.rms_norm %add_5, %post_attention_layernorm_weight eps 1.0e-05 : !t_batch_seq_64_f32 {module = "model.layers.{}.post_attention_layernorm"}
    %gate_proj_weight = graph.param @"model.layers.{}.mlp.gate_proj.weight" : tensor<172x64xf32> {module = "model.layers.{}.mlp.gate_proj"}
    %linear_6 = graph.linear %mul_1, %gate_proj_weight : !t_batch_seq_172_f32 {module = "model.layers.{}.mlp.gate_proj"}
    %up_proj_weight = graph.param @"model.layers.{}.mlp.up_proj.weight" : tensor<172x64xf32> {module = "model.layers.{}.mlp.up_proj"}
    %linear_7 = graph.linear %mul_1, %up_proj_weight : !t_batch_seq_172_f32 {module = "model.layers.{}.mlp.up_proj"}
    %mul_2 = graph.gated silu %linear_6, %linear_7 : !t_batch_seq_172_f32 {module = "model.layers.{}.mlp"}
    %down_proj_weight = graph.param @"model.layers.{}.mlp.down_proj.weight" : tensor<64x172xf32> {module = "model.layers.{}.mlp.down_proj"}
    %linear_8 = graph.linear %mul_2, %down_proj_weight : !t_batch_seq_64_f32 {module = "model.layers.{}.mlp.down_proj"}
    %add_6 = graph.add %add_5, %linear_8 : !t_batch_seq_64_f32 {module = "model.layers.{}"}
    func.return %add_6 : !t_batch_seq_64_f32
  }
  func.func public @main(%tokens: !t_batch_seq_i32, %positions: !t_batch_seq_i32) -> !t_batch_seq_512_f32 {
    %norm_weight = graph.param @model.norm.weight : tensor<64xf32> {module = "model.norm"}
    %embed_tokens_weight = graph.param @model.embed_tokens.weight : tensor<512x64xf32> {module = "model.embed_tokens"}
    %embedding = graph.embedding %embed_tokens_weight, %tokens : !t_batch_seq_64_f32 {module = "model.embed_tokens"}
    %arange = graph.iota dim 0 : !t_ctx_i32 {module = "model"}
    %le = graph.reshape %arange : !t_1_1_1_ctx_i32 {module = "model"}
    %le_1 = graph.reshape %positions : !t_batch_1_seq_1_i32 {module = "model"}
    %le_2 = graph.le %le, %le_1 : !t_batch_1_seq_ctx_i1 {module = "model"}
    %unsqueeze = graph.reshape %positions : !t_batch_seq_1_i32 {module = "model.rotary_emb"}
    %to_copy = graph.cast %unsqueeze : !t_batch_seq_1_f32 {module = "model.rotary_emb"}
    %mul = graph.constant dense<[1.000000e+00, 1.000000e-01, 1.000000e-02, 1.000000e-03, 1.000000e+00, 1.000000e-01, 1.000000e-02, 1.000000e-03]> : tensor<8xf32> {module = "model.rotary_emb"}
    %cat = graph.mul %to_copy, %mul : !t_batch_seq_8_f32 {module = "model.rotary_emb"}
    %cos = graph.cos %cat : !t_batch_seq_8_f32 {module = "model.rotary_emb"}
    %sin = graph.sin %cat : !t_batch_seq_8_f32 {module = "model.rotary_emb"}
    %layer = graph.layers @layer_kind0 [0, 1, 2, 3, 4] %embedding extras %le_2, %cos, %sin : !t_batch_seq_64_f32 {module = "model.layers.{}"}
    %mul_1 = graph.rms_norm %layer, %norm_weight eps 1.0e-05 : !t_batch_seq_64_f32 {module = "model.norm"}
    %select_rows = graph.select_rows %mul_1 : !t_batch_seq_64_f32 {module = "lm_head"}
    %lm_head_weight = graph.param @model.embed_tokens.weight : tensor<512x64xf32> {module = "lm_head"}
    %linear = graph.linear %select_rows, %lm_head_weight : !t_batch_seq_512_f32 {module = "lm_head"}
    func.return %linear : !t_batch_seq_512_f32
  }
}
