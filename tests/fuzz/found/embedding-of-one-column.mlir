// Tables of one column were gathered as if every slice held all of them.
// how: rngd decode_1x1

!t_batch_seq_i32 = tensor<?x?xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1)>>>
!t_batch_seq_1_f32 = tensor<?x?x1xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 1)>>>
!t_batch_seq_8_f32 = tensor<?x?x8xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 8)>>>
builtin.module attributes {npuc.model_type = "random", npuc.dtype = "float32", npuc.vocab_size = 8 : i64, npuc.max_context = 160 : i64, npuc.phase = "import"} {
  graph.weight @model.embed_tokens.weight : tensor<8x1xf32> sources [{file = "random.bin", offset = 0 : i64, bytes = 32 : i64, dtype = "F32", shape = array<i64: 8, 1>}]
  func.func public @main(%tokens: !t_batch_seq_i32) -> !t_batch_seq_8_f32 {
    %0 = graph.param @model.embed_tokens.weight : tensor<8x1xf32>
    %1 = graph.embedding %0, %tokens : !t_batch_seq_1_f32
    %2 = graph.select_rows %1 : !t_batch_seq_1_f32
    %3 = graph.param @model.embed_tokens.weight : tensor<8x1xf32>
    %4 = graph.linear %2, %3 : !t_batch_seq_8_f32
    func.return %4 : !t_batch_seq_8_f32
  }
}
