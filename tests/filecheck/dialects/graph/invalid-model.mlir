// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// A product sums over dimensions of one size.
// CHECK: contracting dimensions differ: lhs has 8, rhs has 9
func.func @f(%x : tensor<2x8xf32>, %w : tensor<4x9xf32>) {
  %y = graph.linear %x, %w : tensor<2x4xf32>
  func.return
}
// -----

// A linear layer's weight is a matrix.
// CHECK: weight has 1 dimensions, expected 2
func.func @f(%x : tensor<2x8xf32>, %w : tensor<8xf32>) {
  %y = graph.linear %x, %w : tensor<2x8xf32>
  func.return
}
// -----

// A bias has one element per output.
// CHECK: bias has shape [8], expected [4]
func.func @f(%x : tensor<2x8xf32>, %w : tensor<4x8xf32>, %b : tensor<8xf32>) {
  %y = graph.linear %x, %w bias %b : tensor<2x4xf32>
  func.return
}
// -----

// A scale is one number, or one for each output.
// CHECK: scale has shape [8], expected [4]
func.func @f(%x : tensor<2x8xf32>, %w : tensor<4x8xi8>, %s : tensor<8xf32>) {
  %y = graph.linear %x, %w scale %s : tensor<2x4xf32>
  func.return
}
// -----

// It is in f32.
// CHECK: scale has element type bf16, expected f32
func.func @f(%x : tensor<2x8xf32>, %w : tensor<4x8xi8>, %s : tensor<bf16>) {
  %y = graph.linear %x, %w scale %s : tensor<2x4xf32>
  func.return
}
// -----

// A product of matrices sums over inner dimensions.
// CHECK: contracting dimensions differ: lhs has 8, rhs has 2
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.matmul %x, %x : tensor<2x8xf32>
  func.return
}
// -----

// Rows of a table are chosen by i32.
// CHECK: ids has element type f32, expected i32
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.embedding %x, %x : tensor<2x8x8xf32>
  func.return
}
// -----

// A norm's weight spans the last dimension.
// CHECK: weight has shape [2], expected [8]
func.func @f(%x : tensor<2x8xf32>, %w : tensor<2xf32>) {
  %y = graph.rms_norm %x, %w eps 1.0e-05 : tensor<2x8xf32>
  func.return
}
// -----

// Softmax is over one of the dimensions.
// CHECK: dim is 2, expected 0 to 1
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.softmax %x dim 2 : tensor<2x8xf32>
  func.return
}
// -----

// Softmax is of floats.
// CHECK: input has element type i32, expected a float
func.func @f(%x : tensor<8xi32>) {
  %y = graph.softmax %x dim 0 : tensor<8xi32>
  func.return
}
// -----

// Rotated elements come in pairs, and not more than there are.
// CHECK: 10 of 8 elements rotated: expected an even number up to 8
func.func @f(%q : tensor<1x4x3x8xf32>, %c : tensor<1x3x10xf32>) {
  %y = graph.rope %q, %c, %c : tensor<1x4x3x8xf32>
  func.return
}
// -----

// The activation is one of the elementwise operations.
// CHECK: activation is swish, which is no elementwise operation
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.gated swish %x, %x : tensor<2x8xf32>
  func.return
}
// -----

// Query heads share key heads evenly.
// CHECK: 3 query heads over 2 key heads
func.func @f(%q : tensor<1x3x3x8xf32>, %k : tensor<1x2x5x8xf32>) {
  %y = graph.attention %q, %k, %k scale 1.0 : tensor<1x3x3x8xf32>
  func.return
}
// -----

// Keys and values have the same positions.
// CHECK: values has shape [1, 2, 4, 8], expected [1, 2, 5, 8]
func.func @f(%q : tensor<1x4x3x8xf32>, %k : tensor<1x2x5x8xf32>, %v : tensor<1x2x4x8xf32>) {
  %y = graph.attention %q, %k, %v scale 1.0 : tensor<1x3x4x8xf32>
  func.return
}
// -----

// A mask has a predicate for every row and position.
// CHECK: mask has shape [1, 1, 3, 3], expected [1, 1, 3, 5]
func.func @f(%q : tensor<1x4x3x8xf32>, %k : tensor<1x2x5x8xf32>, %v : tensor<1x2x5x6xf32>, %m : tensor<1x1x3x3xi1>) {
  %y = graph.attention %q, %k, %v mask %m scale 1.0 : tensor<1x3x4x6xf32>
  func.return
}
// -----

// Attention gives heads behind rows.
// CHECK: result has shape [1, 4, 3, 6], expected [1, 3, 4, 6]
func.func @f(%q : tensor<1x4x3x8xf32>, %k : tensor<1x2x5x8xf32>, %v : tensor<1x2x5x6xf32>) {
  %y = graph.attention %q, %k, %v scale 1.0 : tensor<1x4x3x6xf32>
  func.return
}
// -----

// All rows are selected, or one.
// CHECK: result has shape [1, 2, 8], expected [1, 3, 8]
func.func @f(%x : tensor<1x3x8xf32>) {
  %y = graph.select_rows %x : tensor<1x2x8xf32>
  func.return
}
