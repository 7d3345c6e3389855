// RUN: irc opt %s | filecheck %s
// RUN: irc opt %s --print-op-generic | filecheck %s --check-prefix=GENERIC

// Norms, softmax and products; an offset of 0 is not written.
// CHECK: func.func @norms
func.func @norms(%x : tensor<2x8xf32>, %w : tensor<8xf32>) {
  // CHECK-NEXT: %0 = graph.rms_norm %x, %w eps 1.0e-06 offset 1.0 : tensor<2x8xf32> {module = "norm"}
  %0 = graph.rms_norm %x, %w eps 1.0e-06 offset 1.0 : tensor<2x8xf32> {module = "norm"}
  // CHECK-NEXT: %1 = graph.rms_norm %x, %w eps 1.0e-06 : tensor<2x8xf32>
  // GENERIC: "graph.rms_norm"(%x, %w) {eps = 1.000000e-06 : f32, offset = 0.000000e+00 : f32}
  %1 = graph.rms_norm %x, %w eps 1.0e-06 offset 0.0 : tensor<2x8xf32>
  // CHECK-NEXT: %2 = graph.layer_norm %x eps 1.0e-05 : tensor<2x8xf32>
  %2 = graph.layer_norm %x eps 1.0e-05 : tensor<2x8xf32>
  // CHECK-NEXT: %3 = graph.layer_norm %x bias %w eps 1.0e-05 : tensor<2x8xf32>
  // GENERIC: "graph.layer_norm"(%x, %w) {eps = 1.000000e-05 : f32, operandSegmentSizes = array<i32: 1, 0, 1>}
  %3 = graph.layer_norm %x bias %w eps 1.0e-05 : tensor<2x8xf32>
  // CHECK-NEXT: %4 = graph.softmax %x dim 1 : tensor<2x8xf32>
  %4 = graph.softmax %x dim 1 : tensor<2x8xf32>
  %5 = graph.transpose %x perm [1, 0] : tensor<8x2xf32>
  // CHECK: %6 = graph.matmul %x, %5 : tensor<2x2xf32>
  %6 = graph.matmul %x, %5 : tensor<2x2xf32>
  func.return
}

// Rotary embedding turns part of each head; attention reads the cache that kv_update writes.
graph.cache_decl @cache layers [0] heads 2 key_size 4 value_size 6 type f32
// CHECK: func.func @attention
func.func @attention(%q : tensor<1x4x3x4xf32>, %v : tensor<1x2x3x6xf32>, %cos : tensor<1x3x2xf32>,
                     %mask : tensor<1x1x3x5xi1>) {
  // CHECK-NEXT: %0 = graph.rope %q, %cos, %cos : tensor<1x4x3x4xf32>
  %0 = graph.rope %q, %cos, %cos : tensor<1x4x3x4xf32>
  // CHECK-NEXT: %1 = graph.rope %q, %cos, %cos interleaved : tensor<1x4x3x4xf32>
  // GENERIC: "graph.rope"(%q, %cos, %cos) {interleaved = true}
  %1 = graph.rope %q, %cos, %cos interleaved : tensor<1x4x3x4xf32>
  %k = graph.slice %0 [:, :2, :, :] : tensor<1x2x3x4xf32>
  // CHECK: %keys, %values = graph.kv_update @cache %k, %v : tensor<1x2x5x4xf32>, tensor<1x2x5x6xf32>
  %keys, %values = graph.kv_update @cache %k, %v : tensor<1x2x5x4xf32>, tensor<1x2x5x6xf32>
  // CHECK-NEXT: %2 = graph.attention %0, %keys, %values mask %mask scale 0.5 softcap 30.0 : tensor<1x3x4x6xf32>
  %2 = graph.attention %0, %keys, %values mask %mask scale 0.5 softcap 30.0 : tensor<1x3x4x6xf32>
  // CHECK-NEXT: %3 = graph.attention %0, %keys, %values scale 0.5 : tensor<1x3x4x6xf32>
  // GENERIC: {scale = 5.000000e-01 : f32, softcap = 0.000000e+00 : f32} : (tensor<1x4x3x4xf32>,
  %3 = graph.attention %0, %keys, %values scale 0.5 : tensor<1x3x4x6xf32>
  func.return
}

// A body over tiles of rows: which inputs are cut, and along which dimension, is said by `along`.
// CHECK: func.func @rows
func.func @rows(%x : tensor<1x4x8xf32>, %w : tensor<8xf32>) {
  // CHECK-NEXT: %y = graph.rows(%tile : tensor<1x2x8xf32> = %x along 1, %v : tensor<8xf32> = %w) along [1] : tensor<1x4x8xf32> {
  // GENERIC: "graph.rows"(%x, %w) ({
  // GENERIC-NEXT: ^bb0(%tile: tensor<1x2x8xf32>, %v: tensor<8xf32>):
  %y = graph.rows(%tile : tensor<1x2x8xf32> = %x along 1, %v : tensor<8xf32> = %w) along [1] : tensor<1x4x8xf32> {
    // CHECK-NEXT: %z = graph.mul %tile, %v : tensor<1x2x8xf32>
    %z = graph.mul %tile, %v : tensor<1x2x8xf32>
    // CHECK-NEXT: graph.yield %z
    graph.yield %z
  // CHECK-NEXT: } {module = "m"}
  // GENERIC: }) {input_dims = array<i64: 1, -1>, output_dims = array<i64: 1>, module = "m"}
  } {module = "m"}
  func.return
}

// A linear layer of stored values has their scale: one, or one for each output.
// CHECK: func.func @quantized
func.func @quantized(%q : tensor<2x8xf8E4M3FN>, %w : tensor<4x8xf8E4M3FN>, %one : tensor<f32>, %x : tensor<2x8xbf16>,
    %v : tensor<4x8xi8>, %b : tensor<4xbf16>, %each : tensor<4xf32>) -> (tensor<2x4xbf16>, tensor<2x4xbf16>) {
  // CHECK: %0 = graph.linear %q, %w scale %one : tensor<2x4xbf16>
  %0 = graph.linear %q, %w scale %one : tensor<2x4xbf16>
  // CHECK-NEXT: %1 = graph.linear %x, %v bias %b scale %each : tensor<2x4xbf16>
  %1 = graph.linear %x, %v bias %b scale %each : tensor<2x4xbf16>
  func.return %0, %1 : tensor<2x4xbf16>, tensor<2x4xbf16>
}
