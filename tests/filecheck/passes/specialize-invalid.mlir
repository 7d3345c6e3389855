// RUN: irc opt %s -p 'specialize{target="rngd" buckets="decode_1x16"}' --verify-diagnostics --split-input-file | filecheck %s

// A model is a function called main.
// CHECK: specialize: the module has no function @main
func.func @model(%x : tensor<1x1x8xf32>) -> tensor<1x1x8xf32> {
  func.return %x : tensor<1x1x8xf32>
}
// -----

// The head begins in one place.
// CHECK: specialize: @main has 0 graph.select_rows, expected 1
func.func @main(%x : tensor<1x1x8xf32>) -> tensor<1x1x8xf32> {
  func.return %x : tensor<1x1x8xf32>
}
// -----

// It uses nothing from before but weights and constants.
// CHECK: specialize: graph.add after select_rows uses a value from before it
func.func @main(%x : tensor<1x1x8xf32>) -> tensor<1x1x8xf32> {
  %y = graph.silu %x : tensor<1x1x8xf32>
  %z = graph.select_rows %y : tensor<1x1x8xf32>
  %sum = graph.add %z, %y : tensor<1x1x8xf32>
  func.return %sum : tensor<1x1x8xf32>
}
