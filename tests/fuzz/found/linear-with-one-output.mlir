// A linear layer with one output was said to lie whole in every slice, while only the first had computed it.
// how: rngd prefill_1x2

!t_batch_seq_i32 = tensor<?x?xi32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1)>>>
!t_batch_seq_8_f32 = tensor<?x?x8xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 8)>>>
!t_batch_seq_1_f32 = tensor<?x?x1xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d0, d1, 1)>>>
builtin.module attributes {npuc.model_type = "random", npuc.dtype = "float32", npuc.vocab_size = 8 : i64, npuc.max_context = 160 : i64, npuc.phase = "import"} {
  graph.weight @model.embed_tokens.weight : tensor<8x8xf32> sources [{file = "random.bin", offset = 262144 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 8, 8>}]
  graph.weight @model.gate.weight : tensor<1x8xf32> sources [{file = "random.bin", offset = 293820 : i64, bytes = 32 : i64, dtype = "F32", shape = array<i64: 1, 8>}]
  graph.weight @model.lm_head.weight : tensor<8x8xf32> sources [{file = "random.bin", offset = 325496 : i64, bytes = 256 : i64, dtype = "F32", shape = array<i64: 8, 8>}]
  func.func public @main(%tokens: !t_batch_seq_i32, %positions: !t_batch_seq_i32) -> !t_batch_seq_8_f32 {
    %0 = graph.param @model.embed_tokens.weight : tensor<8x8xf32> {module = "model.embed_tokens"}
    %1 = graph.embedding %0, %tokens : !t_batch_seq_8_f32 {module = "model.embed_tokens"}
    %2 = graph.param @model.gate.weight : tensor<1x8xf32> {module = "model.gate"}
    %3 = graph.linear %1, %2 : !t_batch_seq_1_f32 {module = "model.gate"}
    %4 = graph.sigmoid %3 : !t_batch_seq_1_f32 {module = "model"}
    %5 = graph.mul %1, %4 : !t_batch_seq_8_f32 {module = "model"}
    %6 = graph.select_rows %5 : !t_batch_seq_8_f32 {module = "model"}
    %7 = graph.param @model.lm_head.weight : tensor<8x8xf32> {module = "model.lm_head"}
    %8 = graph.linear %6, %7 : !t_batch_seq_8_f32 {module = "model.lm_head"}
    func.return %8 : !t_batch_seq_8_f32
  }
}
