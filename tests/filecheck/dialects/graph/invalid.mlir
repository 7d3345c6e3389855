// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// An elementwise operation keeps the shape.
// CHECK: result has shape [2, 9], expected [2, 8]
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.silu %x : tensor<2x9xf32>
  func.return
}
// -----

// It keeps the element type too.
// CHECK: result has element type bf16, expected f32
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.silu %x : tensor<2x8xbf16>
  func.return
}
// -----

// Operands broadcast as in numpy.
// CHECK: shapes do not broadcast: lhs has [2, 8], rhs has [3, 8]
func.func @f(%x : tensor<2x8xf32>, %v : tensor<3x8xf32>) {
  %y = graph.add %x, %v : tensor<2x8xf32>
  func.return
}
// -----

// Nothing is converted implicitly.
// CHECK: element types differ: lhs has f32, rhs has bf16
func.func @f(%x : tensor<2x8xf32>, %v : tensor<8xbf16>) {
  %y = graph.add %x, %v : tensor<2x8xf32>
  func.return
}
// -----

// A comparison gives a predicate.
// CHECK: result has element type f32, expected i1
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.le %x, %x : tensor<2x8xf32>
  func.return
}
// -----

// A choice needs a predicate.
// CHECK: condition has element type f32, expected i1
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.where %x, %x, %x : tensor<2x8xf32>
  func.return
}
// -----

// Symbolic sizes are compared by value and named as users know them.
// CHECK: result has shape [batch, 8], expected [seq, 8]
func.func @f(%x : tensor<?x8xf32, #graph.dims<affine_map<(d0, d1, d2) -> (d1, 8)>>>) {
  %y = graph.cast %x : tensor<?x8xbf16, #graph.dims<affine_map<(d0, d1, d2) -> (d0, 8)>>>
  func.return
}
// -----

// Reductions have a closed set of kinds.
// CHECK: kind is product, expected one of sum, mean, max, min, any, all
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.reduce product %x dims [1] : tensor<2xf32>
  func.return
}
// -----

// Dimensions are numbers of the operand's.
// CHECK: reduced dimension is 2, expected 0 to 1
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.reduce sum %x dims [2] : tensor<2xf32>
  func.return
}
// -----

// Reduced dimensions vanish unless they are kept.
// CHECK: result has shape [2, 1], expected [2]
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.reduce sum %x dims [1] : tensor<2x1xf32>
  func.return
}
// -----

// A reshape moves no element in or out.
// CHECK: numbers of elements differ: input has shape [2, 8], result has shape [4, 5]
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.reshape %x : tensor<4x5xf32>
  func.return
}
// -----

// Only sizes of 1 repeat.
// CHECK: shapes do not broadcast: lhs has [2, 8], rhs has [4, 8]
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.broadcast %x : tensor<4x8xf32>
  func.return
}
// -----

// A transpose permutes all dimensions.
// CHECK: perm is [0, 0], expected a permutation of 2 dimensions
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.transpose %x perm [0, 0] : tensor<2x2xf32>
  func.return
}
// -----

// A slice has one range per dimension.
// CHECK: 1 ranges for 2 dimensions
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.slice %x [1:] : tensor<1x8xf32>
  func.return
}
