// A layer norm with a bias and no weight lost its bias when it was lowered.
// how: rngd decode_1x1

!t_batch_seq_i32 = tensor<?x?xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1)>>>
!t_batch_seq_4_f32 = tensor<?x?x4xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 4)>>>
builtin.module attributes {npuc.model_type = "random", npuc.dtype = "float32", npuc.vocab_size = 8 : i64, npuc.max_context = 160 : i64, npuc.phase = "import"} {
  graph.weight @model.embed_tokens.weight : tensor<8x4xf32> sources [{file = "random.bin", offset = 262144 : i64, bytes = 128 : i64, dtype = "F32", shape = array<i64: 8, 4>}]
  graph.weight @model.norm4.bias : tensor<4xf32> sources [{file = "random.bin", offset = 126704 : i64, bytes = 16 : i64, dtype = "F32", shape = array<i64: 4>}]
  func.func public @main(%tokens: !t_batch_seq_i32) -> !t_batch_seq_4_f32 {
    %0 = graph.param @model.embed_tokens.weight : tensor<8x4xf32>
    %1 = graph.embedding %0, %tokens : !t_batch_seq_4_f32
    %2 = graph.param @model.norm4.bias : tensor<4xf32>
    %3 = graph.layer_norm %1 bias %2 eps 0.01 : !t_batch_seq_4_f32
    %4 = graph.select_rows %3 : !t_batch_seq_4_f32
    func.return %4 : !t_batch_seq_4_f32
  }
}
