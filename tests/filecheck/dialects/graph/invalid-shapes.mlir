// RUN: irc opt %s --verify-diagnostics --split-input-file | filecheck %s

// Ranges lie inside their dimension.
// CHECK: range 4:9:1 does not fit dimension 1 of [2, 8]
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.slice %x [:, 4:9] : tensor<2x5xf32>
  func.return
}
// -----

// A slice's size follows from its ranges.
// CHECK: result has shape [2, 3], expected [2, 4]
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.slice %x [:, ::2] : tensor<2x3xf32>
  func.return
}
// -----

// Padding is given per dimension.
// CHECK: low has 1 and high 2 entries for 2 dimensions
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.pad %x low [0] high [0, 1] value 0.0 : tensor<2x9xf32>
  func.return
}
// -----

// Padding adds elements.
// CHECK: padding is negative: low is [0, -1], high is [0, 1]
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.pad %x low [0, -1] high [0, 1] value 0.0 : tensor<2x8xf32>
  func.return
}
// -----

// Concatenated tensors agree in all other dimensions.
// CHECK: shapes differ beside dimension 1: input 0 has [2, 8], input 1 has [3, 8]
func.func @f(%x : tensor<2x8xf32>, %v : tensor<3x8xf32>) {
  %y = graph.concat %x, %v dim 1 : tensor<2x16xf32>
  func.return
}
// -----

// Concatenated sizes add up.
// CHECK: result has shape [2, 8], expected [2, 16]
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.concat %x, %x dim 1 : tensor<2x8xf32>
  func.return
}
// -----

// A constant has its value's shape.
// CHECK: result has shape [3], expected [2]
func.func @f() {
  %y = graph.constant dense<1.0> : tensor<2xf32> -> tensor<3xf32>
  func.return
}
// -----

// An index counts along a dimension of the result.
// CHECK: dim is 1, expected 0 to 0
func.func @f() {
  %y = graph.iota dim 1 : tensor<8xi32>
  func.return
}
// -----

// A change of placement changes nothing else.
// CHECK: result has shape [8], expected [2, 8]
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.relayout %x : tensor<8xf32, #tile.host>
  func.return
}
// -----

// Tiles of rows are as their whole but for the rows.
// CHECK: input 0 has shape [2, 8], its tile [1, 7]: they differ beside dimension 0
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.rows(%t : tensor<1x7xf32> = %x along 0) along [0] : tensor<2x7xf32> {
    graph.yield %t
  }
  func.return
}
// -----

// Other inputs come whole.
// CHECK: input 0 is tensor<2x8xf32>, its argument tensor<1x8xf32>
func.func @f(%x : tensor<2x8xf32>) {
  %y = graph.rows(%t : tensor<1x8xf32> = %x) along [0] : tensor<1x8xf32> {
    graph.yield %t
  }
  func.return
}
